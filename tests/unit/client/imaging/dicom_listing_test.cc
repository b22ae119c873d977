#include "client/imaging/dicom_listing.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "client/imaging/image_file.h"
#include "tests/support/peak_memory.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/imaging/dicom_files.h"
#include "tests/unit/client/imaging/dicom_kinds.h"
#include "tests/unit/client/imaging/dicom_series_fixture.h"
#include "tests/unit/client/imaging/phantom.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

/// The same grid turned so that slices run along another axis of the patient.
Geometry Turned(Geometry grid, const std::array<std::size_t, 3>& axes) {
  const auto direction = grid.direction;
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t axis = 0; axis < 3; ++axis) {
      grid.direction[row][axis] = direction[row][axes[axis]];
    }
  }
  return grid;
}

TEST_F(DicomSeriesTest, IsReadSlicesInOrderOfTheirPlaceOnTheGridOfTheirPositions) {
  for (const std::array<std::size_t, 3>& axes :
       {std::array<std::size_t, 3>{0, 1, 2}, {1, 2, 0}, {2, 0, 1}}) {
    const TemporaryDirectory folder;
    const Volume volume = NumberedVolume(Turned(ObliqueGeometry({6, 5, 7}), axes));
    WriteMrSeries(folder.path(), volume);

    ASSERT_OK_AND_ASSIGN(const DicomListing listing, ListDicomSeries(folder.path()));
    ASSERT_THAT(listing.series, SizeIs(1));
    ASSERT_OK_AND_ASSIGN(const Volume read, ReadDicomSeries(listing.series.front()));

    EXPECT_EQ(read.voxels, volume.voxels);
    EXPECT_TRUE(SameGrid(read.geometry, volume.geometry, 1e-6));
    EXPECT_EQ(listing.series.front().geometry, read.geometry);
    EXPECT_THAT(listing.set_aside, IsEmpty());
  }
}

// A left-handed stack of files, slices numbered against the normal, makes the same volume.
TEST_F(DicomSeriesTest, HasItsThirdAxisAlongTheNormalOfItsSlices) {
  Geometry reversed = volume_.geometry;
  for (auto& row : reversed.direction) row[2] = -row[2];
  const Volume anatomy = SmoothVolume(reversed);
  WriteMrSeries(Folder(), anatomy);

  ASSERT_OK_AND_ASSIGN(const Volume read, ReadVolume(Folder()));

  const Volume expected = SmoothVolume(read.geometry);
  EXPECT_LT(read.geometry.direction[2][2] * reversed.direction[2][2], 0);
  for (std::size_t i = 0; i < read.voxels.size(); ++i) {
    ASSERT_NEAR(read.voxels[i], expected.voxels[i], 0.51) << i;
  }
}

TEST_F(DicomSeriesTest, GoesToNiftiAndBackWithinAThousandthOfAMillimetre) {
  for (const std::array<std::size_t, 3>& axes :
       {std::array<std::size_t, 3>{0, 1, 2}, {1, 2, 0}, {2, 0, 1}}) {
    const TemporaryDirectory folder;
    Geometry grid = Turned(ObliqueGeometry({64, 48, 40}), axes);
    grid.size = {64, 48, 40};
    WriteMrSeries(folder.path() / "dicom", SmoothVolume(grid));

    ASSERT_OK_AND_ASSIGN(const Volume from_dicom, ReadVolume(folder.path() / "dicom"));
    ASSERT_OK(WriteVolume(folder.path() / "a.nii.gz", from_dicom));
    ASSERT_OK_AND_ASSIGN(const Volume from_nifti, ReadVolume(folder.path() / "a.nii.gz"));

    EXPECT_LT(GreatestCornerDistance(from_dicom.geometry, grid), 1e-3);
    EXPECT_LT(GreatestCornerDistance(from_nifti.geometry, grid), 1e-3);
    EXPECT_EQ(from_nifti.voxels, from_dicom.voxels);
  }
}

TEST_F(DicomSeriesTest, KeepsHowItWasAcquired) {
  WriteMrSeries(Folder(), volume_, [](std::int64_t, RawDicom& file) {
    file.Text(0x00080008, "CS", "ORIGINAL\\PRIMARY\\M\\ND\\NORM");
    file.Text(0x00180082, "DS", "850");
    file.Text(0x00181020, "LO", "V1.2");
    file.Text(0x00181250, "SH", "HEAD 32");
  });

  const DicomListing listing = List();

  ASSERT_THAT(listing.series, SizeIs(1));
  const Acquisition& acquisition = listing.series.front().acquisition;
  EXPECT_EQ(acquisition.modality, "MR");
  EXPECT_EQ(acquisition.manufacturer, "ACME MEDICAL");
  EXPECT_EQ(acquisition.model, "Magnet 3");
  EXPECT_EQ(acquisition.software, "V1.2");
  EXPECT_EQ(acquisition.receive_coil, "HEAD 32");
  EXPECT_EQ(acquisition.field_tesla, 1.5);
  EXPECT_EQ(acquisition.repetition_ms, 500);
  EXPECT_EQ(acquisition.echo_ms, 12.5);
  EXPECT_EQ(acquisition.inversion_ms, 850);
  EXPECT_EQ(acquisition.flip_degrees, 90);
  EXPECT_EQ(acquisition.echo_number, 1);
  EXPECT_THAT(acquisition.sequence, ElementsAre("SE"));
  EXPECT_THAT(acquisition.image_type, ElementsAre("ORIGINAL", "PRIMARY", "M", "ND", "NORM"));
}

// Names, numbers, dates, UIDs and descriptions with a mark; the mark must be nowhere.
TEST_F(DicomSeriesTest, KeepsNothingThatNamesAPatient) {
  const auto mark = [](std::int64_t slice, RawDicom& file) {
    for (const auto& [tag, vr] : std::vector<std::pair<std::uint32_t, std::string>>{
             {0x00080050, "SH"}, {0x00080080, "LO"}, {0x00080081, "ST"}, {0x00080090, "PN"},
             {0x00081010, "SH"}, {0x00081030, "LO"}, {0x0008103e, "LO"}, {0x00081040, "LO"},
             {0x00081050, "PN"}, {0x00081070, "PN"}, {0x00100010, "PN"}, {0x00100020, "LO"},
             {0x00101000, "LO"}, {0x00101001, "PN"}, {0x00101040, "LO"}, {0x00102160, "SH"},
             {0x00104000, "LT"}, {0x00181000, "LO"}, {0x00181030, "LO"}, {0x00200010, "SH"},
             {0x00204000, "LT"}, {0x00324000, "LT"}, {0x00400254, "LO"}}) {
      file.Text(tag, vr, "MARKER");
    }
    for (const std::uint32_t date : {0x00080020u, 0x00080021u, 0x00080022u, 0x00100030u}) {
      file.Text(date, "DA", "19431231");
    }
    for (const std::uint32_t uid : {0x0020000du, 0x0020000eu, 0x00200052u}) {
      file.Text(uid, "UI", "1.99.7777");
    }
    if (slice == 2) file.Remove(0x00200032);
  };
  WriteMrSeries(Folder(), volume_, mark);
  WriteMrSeries(
      Folder() / "short", volume_,
      [&mark](std::int64_t slice, RawDicom& file) {
        mark(slice, file);
        file.Text(0x0020000e, "UI", "1.99.7777.2");
        file.Bytes(0x7fe00010, "OW", "few");
      },
      "2");
  WriteMrSeries(
      Folder() / "good", volume_,
      [&mark](std::int64_t, RawDicom& file) {
        mark(0, file);
        file.Text(0x0020000e, "UI", "1.99.7777.3");
      },
      "3");

  const DicomListing listing = List();

  std::string everything;
  for (const DicomSetAside& aside : listing.set_aside) {
    everything += fmt::format("{} {}\n", aside.first.string(), aside.reason);
  }
  ASSERT_THAT(listing.series, SizeIs(1));
  const DicomSeries& series = listing.series.front();
  const Acquisition& acquisition = series.acquisition;
  everything += fmt::format("{} {} {} {} {} {} {} {} {} {} {} {}", series.key, series.patient,
                            fmt::join(series.notes, " "), acquisition.modality,
                            acquisition.manufacturer, acquisition.model, acquisition.software,
                            acquisition.receive_coil, fmt::join(acquisition.sequence, " "),
                            fmt::join(acquisition.sequence_variant, " "), acquisition.dimensions,
                            fmt::join(acquisition.image_type, " "));
  everything += std::string(ReadDicomSeries(series).status().message());
  std::filesystem::remove(series.slices.front().file);
  everything += std::string(ReadDicomSeries(series).status().message());
  EXPECT_THAT(everything,
              AllOf(Not(HasSubstr("MARKER")), Not(HasSubstr("7777")), Not(HasSubstr("1943"))));
  EXPECT_THAT(listing.set_aside, SizeIs(4));
}

TEST_F(DicomSeriesTest, TellsWhetherTwoSeriesShowOnePatient) {
  WriteMrSeries(Folder() / "a", volume_, nullptr, "1");
  WriteMrSeries(Folder() / "b", volume_, nullptr, "2");
  WriteMrSeries(
      Folder() / "c", volume_,
      [](std::int64_t, RawDicom& file) { file.Text(0x00100020, "LO", "patient-8"); }, "3");
  WriteMrSeries(
      Folder() / "d", volume_,
      [](std::int64_t, RawDicom& file) { file.Text(0x00100020, "LO", ""); }, "4");

  const DicomListing listing = List();

  ASSERT_THAT(listing.series, SizeIs(4));
  EXPECT_EQ(listing.series[0].patient, listing.series[1].patient);
  EXPECT_NE(listing.series[0].patient, listing.series[2].patient);
  EXPECT_THAT(listing.series[0].patient, SizeIs(64));
  EXPECT_EQ(listing.series[3].patient, "");
  // What a site holds out must not hang on the process. Python:
  // int(hashlib.sha256(b"isoscan held-out patient\npatient-7").hexdigest()[:5], 16) / 16**5
  EXPECT_EQ(listing.series[0].patient_fraction, 277972.0 / (1 << 20));
  EXPECT_EQ(listing.series[1].patient_fraction, 277972.0 / (1 << 20));
  EXPECT_NE(listing.series[2].patient_fraction, 277972.0 / (1 << 20));
  EXPECT_EQ(listing.series[3].patient_fraction, std::nullopt);
}

TEST_F(DicomSeriesTest, AreToldApartByUidEchoComponentTypeAndSize) {
  const Volume wide = NumberedVolume(ObliqueGeometry({7, 5, 7}));
  const auto as_one = [](const Change& change) {
    return [change](std::int64_t slice, RawDicom& file) {
      file.Text(0x0020000e, "UI", "1.2.3.99");
      if (change) change(slice, file);
    };
  };
  WriteMrSeries(Folder(), volume_, nullptr, "1");
  WriteMrSeries(Folder(), volume_, as_one(nullptr), "2");
  WriteMrSeries(Folder(), volume_, as_one([](std::int64_t, RawDicom& file) {
                  file.Text(0x00180086, "IS", "2");
                  file.Text(0x00180081, "DS", "25");
                }),
                "3");
  WriteMrSeries(Folder(), volume_, as_one([](std::int64_t, RawDicom& file) {
                  file.Text(0x00080008, "CS", "ORIGINAL\\PRIMARY\\P\\ND");
                }),
                "4");
  WriteMrSeries(Folder(), wide, as_one(nullptr), "5");
  WriteMrSeries(Folder(), volume_, as_one([](std::int64_t, RawDicom& file) {
                  file.Text(0x00080008, "CS", "ORIGINAL\\PRIMARY\\M\\ND\\NORM");
                }),
                "6");

  const DicomListing listing = List();

  ASSERT_THAT(listing.series, SizeIs(6));
  std::vector<std::string> keys;
  for (const DicomSeries& series : listing.series) keys.push_back(series.key);
  EXPECT_THAT(keys, ElementsAre(".", ".#2", ".#3", ".#4", ".#5", ".#6"));
  EXPECT_EQ(listing.series[2].acquisition.echo_ms, 25);
  EXPECT_EQ(listing.series[3].acquisition.component, ImageComponent::kPhase);
  EXPECT_EQ(listing.series[4].geometry.size[0], 7);
  EXPECT_THAT(listing.set_aside, IsEmpty());
}

TEST_F(DicomSeriesTest, OfGesPhaseImagesIsKnownByTheirPrivateElement) {
  WriteMrSeries(Folder(), volume_, [](std::int64_t, RawDicom& file) {
    file.Text(0x00430010, "LO", "GEMS_PARM_01");
    file.Bytes(0x0043102f, "SS", std::string("\x01\x00", 2));
  });

  const DicomListing listing = List();

  ASSERT_THAT(listing.series, SizeIs(1));
  EXPECT_EQ(listing.series.front().acquisition.component, ImageComponent::kPhase);
}

TEST_F(DicomSeriesTest, WithLongScansInTwoDirectionsIsTwoVolumes) {
  const Volume axial = NumberedVolume(ObliqueGeometry({3, 2, 30}));
  const Volume coronal = NumberedVolume(Turned(ObliqueGeometry({3, 2, 30}), {1, 2, 0}));
  WriteMrSeries(Folder(), axial);
  WriteMrSeries(
      Folder(), coronal,
      [](std::int64_t, RawDicom& file) { file.Text(0x0020000e, "UI", "1.2.3.1"); }, "2");

  const DicomListing listing = List();

  ASSERT_THAT(listing.series, SizeIs(2));
  EXPECT_TRUE(SameGrid(listing.series[0].geometry, axial.geometry));
  EXPECT_TRUE(SameGrid(listing.series[1].geometry, coronal.geometry));
}

TEST_F(DicomSeriesTest, WithFewSlicesInThreeDirectionsIsALocaliser) {
  for (const auto& [series, axes] : std::vector<std::pair<std::string, std::array<std::size_t, 3>>>{
           {"1", {0, 1, 2}}, {"2", {1, 2, 0}}, {"3", {2, 0, 1}}}) {
    WriteMrSeries(
        Folder(), NumberedVolume(Turned(ObliqueGeometry({6, 5, 7}), axes)),
        [](std::int64_t, RawDicom& file) { file.Text(0x0020000e, "UI", "1.2.3.1"); }, series);
  }

  EXPECT_THAT(OnlyFault(), HasSubstr("localiser: they are a localiser: 7 + 7 + 7 slices in 3 "
                                     "directions"));
}

// Some hundred files: a scan, another of which two files are damaged, and copies of the first.
TEST_F(DicomSeriesTest, AreTheSameByOneThreadAndByMany) {
  const Volume large = NumberedVolume(ObliqueGeometry({3, 2, 120}));
  WriteMrSeries(Folder() / "b", large, nullptr, "1");
  WriteMrSeries(Folder() / "a", large, nullptr, "1");
  WriteMrSeries(
      Folder() / "c", large,
      [](std::int64_t slice, RawDicom& file) {
        if (slice % 60 == 7) file.Text(0x00080060, "CS", "CT");
      },
      "2");
  const auto described = [](const DicomListing& listing) {
    std::string text = fmt::format("{} {}", listing.dicom_files, listing.other_files);
    for (const DicomSeries& series : listing.series) {
      text += fmt::format("\n{} {}", series.key, series.slices.size());
      for (const DicomSlice& slice : series.slices) text += fmt::format(" {}", slice.file.string());
    }
    for (const DicomSetAside& aside : listing.set_aside) {
      text += fmt::format("\n{} {} {} {}", aside.first.string(), aside.files,
                          FaultName(aside.fault), aside.reason);
    }
    return text;
  };

  ASSERT_OK_AND_ASSIGN(const DicomListing one, ListDicomSeries(Folder()));
  ASSERT_OK_AND_ASSIGN(const DicomListing many, ListDicomSeries(Folder(), {.threads = 7}));

  EXPECT_EQ(described(one), described(many));
  EXPECT_THAT(one.series, SizeIs(1));
  EXPECT_EQ(one.series.front().key, "a");
  EXPECT_THAT(one.set_aside, SizeIs(3));
}

TEST_F(DicomSeriesTest, AreListedFileByFileUntilSomebodyStopsIt) {
  WriteMrSeries(Folder(), volume_);
  std::vector<std::int64_t> told;
  std::stop_source stop;
  ListingControl control{.threads = 3, .stop = stop.get_token(), .observe = {}};
  control.observe = [&told](std::int64_t done, std::int64_t total) {
    told.push_back(done);
    EXPECT_EQ(total, 7);
  };
  EXPECT_OK(ListDicomSeries(Folder(), control));
  EXPECT_THAT(told, ElementsAre(1, 2, 3, 4, 5, 6, 7));

  told.clear();
  control.observe = [&](std::int64_t done, std::int64_t) {
    told.push_back(done);
    if (done == 3) stop.request_stop();
  };
  EXPECT_THAT(ListDicomSeries(Folder(), control), StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT(told, ElementsAre(1, 2, 3));
}

TEST_F(DicomSeriesTest, OfOtherFilesIsNone) {
  std::ofstream(Folder() / "README") << "no image";
  std::ofstream(Folder() / "empty");
  std::filesystem::create_directory(Folder() / ".hidden");
  WriteMrSeries(Folder() / ".hidden", volume_);

  const DicomListing listing = List();

  EXPECT_THAT(listing.series, IsEmpty());
  EXPECT_THAT(listing.set_aside, IsEmpty());
  EXPECT_EQ(listing.other_files, 2);
  EXPECT_THAT(ListDicomSeries(Folder() / "none"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("there is no folder")));
}

/// One way in which a series is no volume, and what is said.
struct Broken {
  std::string name;
  std::string said;
  Change change;
};

void PrintTo(const Broken& broken, std::ostream* out) { *out << broken.name; }

class BrokenDicomSeries : public DicomSeriesTest, public testing::WithParamInterface<Broken> {};

TEST_P(BrokenDicomSeries, IsNamed) {
  WriteMrSeries(Folder(), volume_, GetParam().change);

  EXPECT_THAT(OnlyFault(), HasSubstr(GetParam().said));
}

/// Moves a slice along the normal by `slices` of the usual gap, and aside along its row.
std::string Moved(std::int64_t slice, double slices, double aside_mm = 0) {
  const Geometry grid = ObliqueGeometry({6, 5, 7});
  const auto point =
      PhysicalPoint(grid, {aside_mm / grid.spacing_mm[0], 0, static_cast<double>(slice) + slices});
  return Decimals({point[0], point[1], point[2]});
}

std::string Tilted(double radians) {
  const auto d = ObliqueGeometry({6, 5, 7}).direction;
  std::vector<double> cosines{d[0][0], d[1][0], d[2][0]};
  for (const auto& row : d) {
    cosines.push_back(row[1] * std::cos(radians) + row[2] * std::sin(radians));
  }
  return Decimals(cosines);
}

INSTANTIATE_TEST_SUITE_P(
    EachWay, BrokenDicomSeries,
    testing::Values(
        Broken{"MissingSlices",
               "missing_slices: 2 of 9 slices are missing: 1-017.dcm and 1-022.dcm "
               "are 8.7 mm apart, most neighbours 2.9 mm",
               [](std::int64_t slice, RawDicom& file) {
                 if (slice >= 4) file.Text(0x00200032, "DS", Moved(slice, 2));
               }},
        Broken{"UnequalGaps",
               "unequal_gaps: their slices are not equally spaced, from 2.842 to "
               "2.958 mm",
               [](std::int64_t slice, RawDicom& file) {
                 if (slice == 3) file.Text(0x00200032, "DS", Moved(slice, 0.02));
               }},
        Broken{"DuplicateSlices",
               "duplicate_slices: 1 of their 6 places hold more than one slice, "
               "such as 1-012.dcm and 1-017.dcm",
               [](std::int64_t slice, RawDicom& file) {
                 if (slice >= 3) file.Text(0x00200032, "DS", Moved(slice, -1));
               }},
        Broken{"OnePlace", "many_volumes: they are 7 volumes of 1 slices (4D",
               [](std::int64_t, RawDicom& file) { file.Text(0x00200032, "DS", Moved(0, 0)); }},
        Broken{"Sheared", "not_parallel: their stack is sheared: 1-032.dcm lies 3 mm beside",
               [](std::int64_t slice, RawDicom& file) {
                 file.Text(0x00200032, "DS", Moved(slice, 0, 0.5 * static_cast<double>(slice)));
               }},
        Broken{"NotParallel",
               "not_parallel: their slices are not parallel: 7 directions, up to 6.88 "
               "degrees apart",
               [](std::int64_t slice, RawDicom& file) {
                 file.Text(0x00200037, "DS", Tilted(0.02 * static_cast<double>(slice)));
               }},
        Broken{
            "NamedLocaliser", "localiser: they are a localiser by their image type or name",
            [](std::int64_t, RawDicom& file) { file.Text(0x0008103e, "LO", "3-plane Localizer"); }},
        Broken{"Reformat", "derived: they are derived images (MPR)",
               [](std::int64_t, RawDicom& file) {
                 file.Text(0x00080008, "CS", "DERIVED\\PRIMARY\\MPR\\NORM");
               }},
        Broken{"DiffusionMap", "derived: they are derived images (ADC)",
               [](std::int64_t, RawDicom& file) {
                 file.Text(0x00080008, "CS", "DERIVED\\PRIMARY\\DIFFUSION\\ADC");
               }},
        Broken{"SecondaryCapture", "secondary_capture: they are secondary captures",
               [](std::int64_t, RawDicom& file) {
                 file.Text(0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.7");
               }},
        Broken{"BurnedIn", "burned_in_annotation: text is burned into their pixels",
               [](std::int64_t, RawDicom& file) { file.Text(0x00280301, "CS", "YES"); }},
        Broken{"Colour", "colour: they are colour images (RGB, 3 values per pixel)",
               [](std::int64_t, RawDicom& file) {
                 file.Short(0x00280002, 3);
                 file.Text(0x00280004, "CS", "RGB");
               }},
        Broken{"Palette", "colour: they are colour images (PALETTE COLOR",
               [](std::int64_t, RawDicom& file) { file.Text(0x00280004, "CS", "PALETTE COLOR"); }},
        Broken{"Tomography", "not_mr: their modality is \"CT\", Isoscan reads MR",
               [](std::int64_t, RawDicom& file) { file.Text(0x00080060, "CS", "CT"); }},
        Broken{"Report", "no_image: they hold no image (modality \"SR\")",
               [](std::int64_t, RawDicom& file) {
                 file.Text(0x00080060, "CS", "SR");
                 file.Remove(0x00280010);
                 file.Remove(0x7fe00010);
               }},
        Broken{"NoPosition", "no_position: they do not say where they lie",
               [](std::int64_t, RawDicom& file) { file.Remove(0x00200032); }},
        Broken{"NoSpacing", "no_position: their rows and columns are no grid",
               [](std::int64_t, RawDicom& file) { file.Remove(0x00280030); }},
        Broken{"NoRightAngle", "no_position: their rows and columns are no grid",
               [](std::int64_t, RawDicom& file) {
                 file.Text(0x00200037, "DS", "1\\0\\0\\0.6\\0.8\\0");
               }},
        Broken{
            "NoNumbers", "no_position: they do not say where they lie",
            [](std::int64_t, RawDicom& file) { file.Text(0x00200032, "DS", "nan\\inf\\1e999"); }},
        Broken{"FarAway", "no_position: they do not say where they lie",
               [](std::int64_t slice, RawDicom& file) {
                 file.Text(0x00200032, "DS", fmt::format("1e300\\-1e300\\{}e299", slice));
               }},
        Broken{"NoScale", "pixels: their RescaleSlope is 0",
               [](std::int64_t, RawDicom& file) { file.Text(0x00281053, "DS", "0"); }},
        Broken{"OddBits",
               "pixels: their pixels have 16 bits, 12 of them stored, the highest being "
               "bit 15",
               [](std::int64_t, RawDicom& file) { file.Short(0x00280102, 15); }},
        Broken{"Mosaic", "mosaic: they are Siemens mosaics without the private header",
               [](std::int64_t, RawDicom& file) {
                 file.Text(0x00080008, "CS", "ORIGINAL\\PRIMARY\\M\\ND\\MOSAIC");
               }},
        Broken{"ManyFrames", "multi_frame: they hold 12 frames in one file without saying where",
               [](std::int64_t, RawDicom& file) { file.Text(0x00280008, "IS", "12"); }},
        Broken{"FloatPixels", "pixels: their pixels are floating-point numbers",
               [](std::int64_t, RawDicom& file) {
                 file.Remove(0x7fe00010);
                 file.Bytes(0x7fe00008, "OF", std::string(120, '\0'));
               }},
        Broken{"DoublePixels", "pixels: their pixels are floating-point numbers",
               [](std::int64_t, RawDicom& file) {
                 file.Remove(0x7fe00010);
                 file.Bytes(0x7fe00009, "OD", std::string(240, '\0'));
               }},
        Broken{"Truncated", "truncated: they end too early: 58 of 60 bytes of pixels",
               [](std::int64_t, RawDicom& file) {
                 file.Bytes(0x7fe00010, "OW", std::string(58, 'x'));
               }}),
    [](const testing::TestParamInfo<Broken>& way) { return way.param.name; });

TEST_F(DicomSeriesTest, OfOneSliceIsRefused) {
  WriteMrSeries(Folder(), NumberedVolume(ObliqueGeometry({6, 5, 1})));

  EXPECT_THAT(OnlyFault(), HasSubstr("single_slice: it is a single slice"));
}

TEST_F(DicomSeriesTest, InAnUnknownTransferSyntaxIsRefusedByIts) {
  for (std::int64_t slice = 0; slice < 3; ++slice) {
    MrSlice(volume_, slice)
        .Write(Folder() / fmt::format("{}.dcm", slice), "1.2.840.10008.1.2.4.102");
  }

  EXPECT_THAT(OnlyFault(), HasSubstr("transfer_syntax: their transfer syntax "
                                     "1.2.840.10008.1.2.4.102 cannot be decoded"));
}

// 128 bytes of two are the best that RLE does: no memory is taken for a plane of gigabytes that a
// file of a kilobyte says it holds.
TEST_F(DicomSeriesTest, InRleThatCannotHoldItsPixelsIsTruncated) {
  for (std::int64_t slice = 0; slice < 3; ++slice) {
    RawDicom file = MrSlice(volume_, slice);
    file.Short(0x00280010, 60000);
    file.Short(0x00280011, 60000);
    file.Write(Folder() / fmt::format("{}.dcm", slice), "1.2.840.10008.1.2.5");
  }

  EXPECT_THAT(OnlyFault(), HasSubstr("truncated: they end too early: at most 3840 of 7200000000"));
}

// Each file that was cut anywhere is either damaged or a missing slice; nothing else, no crash.
TEST_F(DicomSeriesTest, CutAnywhereIsDamaged) {
  WriteMrSeries(Folder(), volume_);
  const std::filesystem::path victim = Folder() / "1-017.dcm";
  const auto whole = static_cast<std::int64_t>(std::filesystem::file_size(victim));
  for (std::int64_t bytes = whole - 1; bytes > 140; bytes -= 13) {
    std::filesystem::resize_file(victim, static_cast<std::uintmax_t>(bytes));

    const DicomListing listing = List();

    ASSERT_THAT(listing.series, IsEmpty()) << bytes;
    ASSERT_THAT(listing.set_aside, SizeIs(2)) << bytes;
    EXPECT_THAT(listing.set_aside[1].first.filename(), victim.filename());
    EXPECT_EQ(listing.set_aside[0].fault, DicomFault::kMissingSlices);
  }
}

TEST_F(DicomSeriesTest, HeldTwiceIsReadOnceAndTheCopiesAreTold) {
  WriteMrSeries(Folder() / "a", volume_);
  WriteMrSeries(Folder() / "b", volume_);

  const DicomListing listing = List();

  ASSERT_THAT(listing.series, SizeIs(1));
  EXPECT_EQ(listing.series.front().key, "a");
  ASSERT_THAT(listing.set_aside, SizeIs(1));
  EXPECT_EQ(listing.set_aside.front().fault, DicomFault::kCopies);
  EXPECT_EQ(listing.set_aside.front().files, 7);
}

TEST_F(DicomSeriesTest, WithEveryPlaceTwiceIsTwoVolumes) {
  WriteMrSeries(Folder(), volume_);
  WriteMrSeries(
      Folder(), volume_,
      [](std::int64_t, RawDicom& file) { file.Text(0x0020000e, "UI", "1.2.3.1"); }, "2");

  EXPECT_THAT(OnlyFault(), HasSubstr("many_volumes: they are 2 volumes of 7 slices (4D"));
}

// Filters and anonymisers write DERIVED, too.
TEST_F(DicomSeriesTest, ThatIsOnlyCalledDerivedIsReadAndMarked) {
  WriteMrSeries(Folder(), volume_, [](std::int64_t, RawDicom& file) {
    file.Text(0x00080008, "CS", "DERIVED\\SECONDARY\\AXIAL");
  });

  const DicomListing listing = List();

  ASSERT_THAT(listing.series, SizeIs(1));
  EXPECT_TRUE(listing.series.front().derived);
  EXPECT_THAT(listing.series.front().notes, ElementsAre("derived images"));
}

TEST_F(DicomSeriesTest, IsFoundByItsFolderOrByOneOfItsFiles) {
  const Volume other = NumberedVolume(ObliqueGeometry({3, 3, 4}));
  WriteMrSeries(Folder() / "t1", volume_, nullptr, "1");
  WriteMrSeries(Folder() / "t2", other, nullptr, "2");
  WriteMrSeries(Folder() / "mixed", other, nullptr, "3");
  WriteMrSeries(Folder() / "mixed", volume_, nullptr, "4");

  ASSERT_OK_AND_ASSIGN(const Volume by_folder, ReadVolume(Folder() / "t1"));
  ASSERT_OK_AND_ASSIGN(const Volume by_file, ReadVolume(Folder() / "mixed" / "4-007.dcm"));
  ASSERT_OK_AND_ASSIGN(const Geometry geometry, ReadGeometry(Folder() / "mixed" / "3-007.dcm"));

  EXPECT_EQ(by_folder.voxels, volume_.voxels);
  EXPECT_EQ(by_file.voxels, volume_.voxels);
  EXPECT_TRUE(SameGrid(geometry, other.geometry));
  EXPECT_THAT(ReadVolume(Folder()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("holds 4 DICOM series"), HasSubstr("t1 (6 x 5 x 7, T1w)"))));
  std::filesystem::create_directory(Folder() / "empty");
  EXPECT_THAT(ReadVolume(Folder() / "empty"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("it holds no DICOM file")));
}

TEST_F(DicomSeriesTest, OfAMultiFrameFileFollowsItsFunctionalGroups) {
  Enhanced(volume_).Write(Folder() / "enhanced.dcm");

  const DicomListing listing = List();
  ASSERT_THAT(listing.series, SizeIs(2));
  std::array<Volume, 2> echoes;
  for (std::size_t echo = 0; echo < 2; ++echo) {
    const DicomSeries& series = listing.series[echo];
    EXPECT_EQ(series.kind, DicomKind::kMultiFrame);
    EXPECT_TRUE(SameGrid(series.geometry, volume_.geometry));
    EXPECT_EQ(series.acquisition.repetition_ms, 3000);
    ASSERT_OK_AND_ASSIGN(echoes[series.acquisition.echo_ms == 96 ? 1 : 0], ReadDicomSeries(series));
  }

  EXPECT_EQ(echoes[0].voxels, volume_.voxels);
  for (std::size_t i = 0; i < volume_.voxels.size(); ++i) {
    ASSERT_EQ(echoes[1].voxels[i], volume_.voxels[i] + 1000);
  }
  EXPECT_THAT(listing.set_aside, IsEmpty());
}

TEST_F(DicomSeriesTest, OfAMultiFrameFileWithoutOneFrameHasAMissingSlice) {
  Enhanced(volume_, /*left_out=*/6).Write(Folder() / "enhanced.dcm");

  const DicomListing listing = List();

  ASSERT_THAT(listing.series, SizeIs(1));
  EXPECT_EQ(listing.series.front().acquisition.echo_ms, 96);
  ASSERT_THAT(listing.set_aside, SizeIs(1));
  EXPECT_THAT(listing.set_aside.front().reason, HasSubstr("1 of 7 slices are missing"));
}

/// An enhanced file of `frames` empty items and a long ImageType; 8 bytes for each frame.
void WriteEmptyFrames(const std::filesystem::path& path, const Volume& volume, int frames) {
  std::string items;
  for (int frame = 0; frame < frames; ++frame) items += std::string("\xfe\xff\x00\xe0\0\0\0\0", 8);
  std::string type = "ORIGINAL";
  for (int i = 1; i < 16; ++i) type += '\\' + std::string(64, 'X');
  RawDicom file = MrSlice(volume, 0);
  file.Text(0x00080008, "CS", type);
  file.Text(0x00280008, "IS", fmt::format("{}", frames));
  file.Bytes(0x52009230, "SQ", items);
  file.Write(path);
}

// A header that is small on disk must not be large in memory, nor many of them.
TEST_F(DicomSeriesTest, OfFilesOfEmptyFramesTakesLittleMemory) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers keep freed memory for a while";
#endif
  for (int i = 0; i < 16; ++i) {
    WriteEmptyFrames(Folder() / fmt::format("{}.dcm", i), volume_, 100'000);
  }
  const auto list = [this] {
    const auto listing = ListDicomSeries(Folder());
    return listing.ok() && listing->set_aside.size() == 1 &&
           listing->set_aside[0].fault == DicomFault::kNoPosition;
  };

  const std::int64_t before = PeakMemoryOf([] { return true; });
  const std::int64_t peak = PeakMemoryOf(list);

  EXPECT_GT(peak, 0);
  EXPECT_LT(peak - before, 80'000'000);
}

TEST_F(DicomSeriesTest, OfMoreFramesThanAScannerWritesIsRefused) {
  WriteEmptyFrames(Folder() / "a.dcm", volume_, 100'001);

  EXPECT_THAT(OnlyFault(), HasSubstr("multi_frame: they hold 100001 frames in one file"));
}

TEST_F(DicomSeriesTest, OfAMosaicIsCutIntoItsTiles) {
  Mosaic(volume_).Write(Folder() / "mosaic.dcm");

  const DicomListing listing = List();
  ASSERT_THAT(listing.series, SizeIs(1));
  ASSERT_OK_AND_ASSIGN(const Volume read, ReadDicomSeries(listing.series.front()));

  EXPECT_EQ(listing.series.front().kind, DicomKind::kMosaic);
  EXPECT_EQ(read.voxels, volume_.voxels);
  EXPECT_LT(GreatestCornerDistance(read.geometry, volume_.geometry), 1e-3);
}

TEST_F(DicomSeriesTest, OfManyMosaicsIsManyVolumes) {
  for (const char* name : {"1", "2", "3"}) {
    RawDicom mosaic = Mosaic(volume_);
    mosaic.Text(0x00080018, "UI", std::string("1.2.3.1.") + name);
    mosaic.Write(Folder() / name / "mosaic.dcm");
  }

  EXPECT_THAT(OnlyFault(), HasSubstr("many_volumes: they are 3 volumes of 7 slices"));
}

}  // namespace
}  // namespace isoscan
