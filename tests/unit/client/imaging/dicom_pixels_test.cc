#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "client/imaging/dicom_series.h"
#include "client/imaging/image_file.h"
#include "tests/unit/client/imaging/dicom_files.h"
#include "tests/unit/client/imaging/dicom_kinds.h"
#include "tests/unit/client/imaging/dicom_rewriting.h"
#include "tests/unit/client/imaging/dicom_series_fixture.h"
#include <gdcmTransferSyntax.h>

// What ReadDicomSeries makes of stored pixels.

namespace isoscan {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

TEST_F(DicomSeriesTest, HasEachSlicesOwnRescaleSlopeAndIntercept) {
  WriteMrSeries(Folder(), volume_, [](std::int64_t slice, RawDicom& file) {
    file.Text(0x00281053, "DS", fmt::format("{}", 1 + slice));
    file.Text(0x00281052, "DS", "-5.5");
  });

  ASSERT_OK_AND_ASSIGN(const Volume read, ReadVolume(Folder()));

  for (std::size_t i = 0; i < read.voxels.size(); ++i) {
    const float slope = static_cast<float>(1 + i / 30);
    ASSERT_FLOAT_EQ(read.voxels[i], volume_.voxels[i] * slope - 5.5f) << i;
  }
}

// docs/references.md#chenevert2014: FP = (stored * RS + RI) / (RS * SS).
TEST_F(DicomSeriesTest, OfPhilipsHasTheFloatingPointScale) {
  const auto write = [this](const std::filesystem::path& folder, const std::string& maker) {
    WriteMrSeries(folder, volume_, [&maker](std::int64_t, RawDicom& file) {
      file.Text(0x00080070, "LO", maker);
      file.Text(0x00281053, "DS", "1.25");
      file.Text(0x00281052, "DS", "10");
      file.Text(0x20050011, "LO", "Philips MR Imaging DD 001");
      file.Bytes(0x2005110e, "FL", RawDicom::BytesOf(0.004f));
    });
  };
  write(Folder() / "philips", "Philips Medical Systems");
  write(Folder() / "other", "ACME");

  ASSERT_OK_AND_ASSIGN(const Volume philips, ReadVolume(Folder() / "philips"));
  ASSERT_OK_AND_ASSIGN(const Volume other, ReadVolume(Folder() / "other"));

  for (std::size_t i = 0; i < philips.voxels.size(); ++i) {
    const double displayed = volume_.voxels[i] * 1.25 + 10;
    ASSERT_NEAR(philips.voxels[i] / (displayed / (1.25 * 0.004)), 1, 1e-6) << i;
    ASSERT_FLOAT_EQ(other.voxels[i], static_cast<float>(displayed)) << i;
  }
}

TEST_F(DicomSeriesTest, OfMonochrome1IsTurnedOver) {
  WriteMrSeries(Folder() / "a", volume_,
                [](std::int64_t, RawDicom& file) { file.Text(0x00280004, "CS", "MONOCHROME1"); });
  WriteMrSeries(Folder() / "b", volume_, [](std::int64_t, RawDicom& file) {
    file.Text(0x00280004, "CS", "MONOCHROME1");
    file.Short(0x00280103, 1);
  });

  ASSERT_OK_AND_ASSIGN(const Volume without_sign, ReadVolume(Folder() / "a"));
  ASSERT_OK_AND_ASSIGN(const Volume with_sign, ReadVolume(Folder() / "b"));

  for (std::size_t i = 0; i < volume_.voxels.size(); ++i) {
    ASSERT_EQ(without_sign.voxels[i], 4095 - volume_.voxels[i]);
    ASSERT_EQ(with_sign.voxels[i], -1 - volume_.voxels[i]);
  }
}

TEST_F(DicomSeriesTest, IsReadWithOrWithoutASignAndOnlyFromTheStoredBits) {
  std::string pixels;
  for (const int stored : {0x0fff, 0x0800, 0x0001, 0xf7ff}) {
    pixels += RawDicom::BytesOf(static_cast<std::uint16_t>(stored));
  }
  const auto write = [this, &pixels](const std::string& name, int is_signed, int bits) {
    WriteMrSeries(Folder() / name, NumberedVolume(ObliqueGeometry({2, 2, 3})),
                  [&](std::int64_t, RawDicom& file) {
                    file.Short(0x00280101, static_cast<std::uint16_t>(bits));
                    file.Short(0x00280102, static_cast<std::uint16_t>(bits - 1));
                    file.Short(0x00280103, static_cast<std::uint16_t>(is_signed));
                    file.Bytes(0x7fe00010, "OW", pixels);
                  });
  };
  write("unsigned", 0, 12);
  write("signed", 1, 12);
  write("wide", 1, 16);

  ASSERT_OK_AND_ASSIGN(const Volume without_sign, ReadVolume(Folder() / "unsigned"));
  ASSERT_OK_AND_ASSIGN(const Volume with_sign, ReadVolume(Folder() / "signed"));
  ASSERT_OK_AND_ASSIGN(const Volume wide, ReadVolume(Folder() / "wide"));

  const auto first_four = [](const Volume& volume) {
    return std::vector<float>(volume.voxels.begin(), volume.voxels.begin() + 4);
  };
  EXPECT_THAT(first_four(without_sign), ElementsAre(4095, 2048, 1, 2047));
  EXPECT_THAT(first_four(with_sign), ElementsAre(-1, -2048, 1, 2047));
  EXPECT_THAT(first_four(wide), ElementsAre(4095, 2048, 1, -2049));
}

TEST_F(DicomSeriesTest, IsReadInEightAndThirtyTwoBits) {
  const auto write = [this](const std::string& name, int bits, const std::string& pixels) {
    WriteMrSeries(Folder() / name, NumberedVolume(ObliqueGeometry({2, 1, 2})),
                  [&](std::int64_t, RawDicom& file) {
                    file.Short(0x00280100, static_cast<std::uint16_t>(bits));
                    file.Short(0x00280101, static_cast<std::uint16_t>(bits));
                    file.Short(0x00280102, static_cast<std::uint16_t>(bits - 1));
                    file.Bytes(0x7fe00010, "OW", pixels);
                  });
  };
  write("8", 8, "\x07\xc8");
  write("32", 32, RawDicom::BytesOf(7) + RawDicom::BytesOf(3000000000u));

  ASSERT_OK_AND_ASSIGN(const Volume narrow, ReadVolume(Folder() / "8"));
  ASSERT_OK_AND_ASSIGN(const Volume wide, ReadVolume(Folder() / "32"));

  EXPECT_THAT(narrow.voxels, ElementsAre(7, 200, 7, 200));
  EXPECT_THAT(wide.voxels, ElementsAre(7, 3e9f, 7, 3e9f));
}

TEST_F(DicomSeriesTest, ThatHasChangedSinceItWasListedIsNotRead) {
  WriteMrSeries(Folder(), volume_);
  const DicomListing listing = List();
  ASSERT_THAT(listing.series, SizeIs(1));
  const std::filesystem::path file = listing.series.front().slices[3].file;

  MrSlice(NumberedVolume(ObliqueGeometry({4, 4, 7})), 3).Write(file);
  EXPECT_THAT(ReadDicomSeries(listing.series.front()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("has changed since")));

  std::ofstream(file) << "no image";
  EXPECT_THAT(ReadDicomSeries(listing.series.front()),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("has no DICOM signature")));

  std::filesystem::remove(file);
  EXPECT_THAT(ReadDicomSeries(listing.series.front()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(file.filename().string())));
}

class CompressedDicomSeries : public DicomSeriesTest,
                              public testing::WithParamInterface<gdcm::TransferSyntax::TSType> {};

TEST_P(CompressedDicomSeries, IsReadLikeThePlainOne) {
  const Volume anatomy = NumberedVolume(ObliqueGeometry({16, 12, 5}));
  for (const bool is_signed : {false, true}) {
    const std::filesystem::path folder = Folder() / (is_signed ? "signed" : "unsigned");
    WriteMrSeries(
        folder, anatomy,
        [is_signed](std::int64_t, RawDicom& file) {
          file.Short(0x00280101, 16);
          file.Short(0x00280102, 15);
          file.Short(0x00280103, is_signed ? 1 : 0);
        },
        is_signed ? "2" : "1");
    ASSERT_OK_AND_ASSIGN(const Volume plain, ReadVolume(folder));
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      ASSERT_TRUE(Rewrite(entry.path(), GetParam()));
    }

    ASSERT_OK_AND_ASSIGN(const Volume read, ReadVolume(folder));

    EXPECT_EQ(read.voxels, plain.voxels) << is_signed;
    EXPECT_EQ(plain.voxels, anatomy.voxels);
  }
}

// Whatever stands behind a cut, the slice is named; no zeros are read in its place.
TEST_P(CompressedDicomSeries, CutInItsPixelsIsNamed) {
  WriteMrSeries(Folder(), NumberedVolume(ObliqueGeometry({16, 12, 5})));
  for (const auto& entry : std::filesystem::directory_iterator(Folder())) {
    ASSERT_TRUE(Rewrite(entry.path(), GetParam()));
  }
  const std::filesystem::path victim = Folder() / "1-012.dcm";
  std::filesystem::resize_file(victim, std::filesystem::file_size(victim) - 24);

  const absl::StatusOr<Volume> read = ReadVolume(Folder());

  EXPECT_THAT(std::string(read.status().message()), HasSubstr("1-012.dcm"));
}

INSTANTIATE_TEST_SUITE_P(
    TransferSyntaxes, CompressedDicomSeries,
    testing::Values(gdcm::TransferSyntax::ImplicitVRLittleEndian,
                    gdcm::TransferSyntax::ExplicitVRBigEndian, gdcm::TransferSyntax::RLELossless,
                    gdcm::TransferSyntax::JPEGLosslessProcess14_1,
                    gdcm::TransferSyntax::JPEGLSLossless, gdcm::TransferSyntax::JPEG2000Lossless),
    [](const testing::TestParamInfo<gdcm::TransferSyntax::TSType>& way) {
      std::string name;
      for (const char letter : std::string(gdcm::TransferSyntax::GetTSString(way.param))) {
        name += letter == '.' ? '_' : letter;
      }
      return name;
    });

}  // namespace
}  // namespace isoscan
