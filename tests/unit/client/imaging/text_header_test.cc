#include "client/imaging/text_header.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <itkImageIOBase.h>
#include <itkMetaImageIO.h>
#include <itkNrrdImageIO.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <ostream>
#include <string>
#include <vector>

#include "client/imaging/image_file.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/imaging/phantom.h"

namespace isoscan {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr char kNrrd[] =
    "NRRD0004\ntype: int16\ndimension: 3\nspace: left-posterior-superior\nsizes: 2 2 2\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nkinds: domain domain domain\nendian: little\n"
    "encoding: raw\nspace origin: (0,0,0)\n\n";
constexpr char kMeta[] =
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    "CompressedData = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
    "ElementSpacing = 1 1 1\nDimSize = 2 2 2\nElementType = MET_SHORT\nElementDataFile = LOCAL\n";

class TextImage : public testing::Test {
 protected:
  std::filesystem::path Write(const std::string& name, const std::string& bytes) const {
    std::ofstream(folder_.path() / name, std::ios::binary) << bytes;
    return folder_.path() / name;
  }

  TemporaryDirectory folder_;
};

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  text.replace(text.find(from), from.size(), to);
  return text;
}

template <typename Stored>
itk::IOComponentEnum TypeOf() {
  return itk::ImageIOBase::MapPixelType<Stored>::CType;
}

template <typename Stored>
void WriteThroughItk(const std::filesystem::path& path, const Geometry& geometry, bool is_packed) {
  itk::ImageIOBase::Pointer writer = itk::MetaImageIO::New().GetPointer();
  if (path.extension() == ".nrrd" || path.extension() == ".nhdr") {
    writer = itk::NrrdImageIO::New().GetPointer();
  }
  writer->SetFileName(path.string());
  writer->SetNumberOfDimensions(3);
  writer->SetNumberOfComponents(1);
  writer->SetPixelType(itk::IOPixelEnum::SCALAR);
  writer->SetComponentType(TypeOf<Stored>());
  writer->SetUseCompression(is_packed);
  itk::ImageIORegion region(3);
  for (unsigned axis = 0; axis < 3; ++axis) {
    writer->SetDimensions(axis, static_cast<std::size_t>(geometry.size[axis]));
    writer->SetSpacing(axis, geometry.spacing_mm[axis]);
    writer->SetOrigin(axis, geometry.origin_mm[axis]);
    std::vector<double> cosines;
    for (const auto& row : geometry.direction) cosines.push_back(row[axis]);
    writer->SetDirection(axis, cosines);
    region.SetSize(axis, static_cast<std::size_t>(geometry.size[axis]));
  }
  writer->SetIORegion(region);
  std::vector<Stored> voxels;
  for (std::int64_t i = 0; i < geometry.voxels(); ++i) voxels.push_back(static_cast<Stored>(i));
  writer->WriteImageInformation();
  writer->Write(voxels.data());
}

template <typename Stored>
class TextImageOfItk : public TextImage {};
using StoredTypes = testing::Types<unsigned char, signed char, unsigned short, short, unsigned, int,
                                   long long, unsigned long long, float, double>;
TYPED_TEST_SUITE(TextImageOfItk, StoredTypes);

// Oblique axes, unequal spacing, odd sizes, and the left hand: what is where in the patient must
// not depend on who reads it.
TYPED_TEST(TextImageOfItk, IsReadAsItkWroteIt) {
  Geometry geometry = ObliqueGeometry({5, 4, 3});
  for (const bool is_mirrored : {false, true}) {
    for (auto& row : geometry.direction) row[1] = is_mirrored ? -row[1] : row[1];
    for (const char* name : {"a.nrrd", "a.nhdr", "a.mha", "a.mhd"}) {
      for (const bool is_packed : {false, true}) {
        const std::filesystem::path path = this->folder_.path() / name;
        WriteThroughItk<TypeParam>(path, geometry, is_packed);

        ASSERT_OK_AND_ASSIGN(const Volume volume, ReadVolume(path));
        ASSERT_OK_AND_ASSIGN(const GeometryAudit audit, AuditGeometry(path));

        EXPECT_LT(GreatestCornerDistance(volume.geometry, geometry), 1e-4) << name;
        EXPECT_EQ(volume.voxels, NumberedVolume(geometry).voxels) << name << is_packed;
        EXPECT_EQ(audit.geometry, volume.geometry);
        EXPECT_THAT(audit.notes, IsEmpty());
      }
    }
  }
}

TEST_F(TextImage, OfTheOtherByteOrderIsTurned) {
  const std::string voxels("\0\1\0\2\0\3\0\4\0\5\0\6\0\7\0\10", 16);
  const auto nrrd = Write("a.nrrd", Replaced(kNrrd, "little", "big") + voxels);
  const auto meta = Write("a.mha", Replaced(kMeta, "MSB = False", "MSB = True") + voxels);

  ASSERT_OK_AND_ASSIGN(const Volume first, ReadVolume(nrrd));
  ASSERT_OK_AND_ASSIGN(const Volume second, ReadVolume(meta));

  EXPECT_THAT(first.voxels, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
  EXPECT_EQ(second.voxels, first.voxels);
}

TEST_F(TextImage, WithoutAPatientsSpaceIsReadAndMarked) {
  const std::string bare =
      "NRRD0001\ntype: uchar\ndimension: 3\nsizes: 2 1 1\nspacings: 2 3 4\nencoding: raw\n\nab";

  ASSERT_OK_AND_ASSIGN(const GeometryAudit audit, AuditGeometry(Write("a.nrrd", bare)));

  EXPECT_THAT(audit.geometry.spacing_mm, ElementsAre(2, 3, 4));
  EXPECT_THAT(audit.notes, ElementsAre(HasSubstr("does not tell left from right")));
}

TEST_F(TextImage, WithAnAxisOfOneValueIsRead) {
  const std::string listed = Replaced(
      Replaced(Replaced(Replaced(kNrrd, "dimension: 3", "dimension: 4"), "2 2 2", "1 2 2 2"),
               "(1,0,0)", "none (1,0,0)"),
      "domain", "list domain");
  const std::string timed =
      Replaced(Replaced(Replaced(kMeta, "NDims = 3", "NDims = 4"), "2 2 2", "2 2 2 1"),
               "1 0 0 0 1 0 0 0 1", "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1");
  const std::string four =
      Replaced(Replaced(timed, "0 0 0\nEl", "0 0 0 0\nEl"), "1 1 1\n", "1 1 1 1\n");

  EXPECT_OK(ReadVolume(Write("a.nrrd", listed + std::string(16, '\1'))));
  EXPECT_OK(ReadVolume(Write("a.mha", four + std::string(16, '\1'))));
  EXPECT_THAT(ReadVolume(Write("b.nrrd", Replaced(listed, "1 2 2 2", "2 2 2 2"))),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("2 values per voxel")));
  EXPECT_THAT(ReadVolume(Write("b.mha", Replaced(four, "2 2 2 1", "2 2 2 7"))),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("7 volumes (4D)")));
}

TEST_F(TextImage, InMillimetresIsRead) {
  for (const char* units : {"space units: \"mm\" \"mm\" \"mm\"", "units: \"mm\" \"\" \"???\"",
                            "space units: mm millimeter \"Millimetres\""}) {
    const std::string header = Replaced(kNrrd, "encoding", std::string(units) + "\nencoding");
    EXPECT_OK(ReadVolume(Write("a.nrrd", header + std::string(16, '\1')))) << units;
  }
  for (const char* unit : {"mm", "?"}) {
    const std::string header =
        Replaced(kMeta, "NDims", std::string("DistanceUnits = ") + unit + "\nNDims");
    EXPECT_OK(ReadVolume(Write("a.mha", header + std::string(16, '\1')))) << unit;
  }
}

// The unit of an axis that is not of space says nothing about where a voxel lies.
TEST_F(TextImage, MayHaveASecondOfTime) {
  const std::string timed = Replaced(
      Replaced(Replaced(Replaced(kNrrd, "dimension: 3", "dimension: 4"), "2 2 2", "2 2 2 1"),
               "(0,0,1)", "(0,0,1) none"),
      "domain domain domain", "domain domain domain time\nunits: \"mm\" \"mm\" \"mm\" \"s\"");

  EXPECT_OK(ReadVolume(Write("a.nrrd", timed + std::string(16, '\1'))));
}

/// A header that lies, and what is said. MetaIO or NrrdIO crashed, hung, printed, opened another
/// file, or took the memory that was asked for.
struct Hostile {
  std::string name;
  std::string from;
  std::string to;
  std::string said;
};
void PrintTo(const Hostile& hostile, std::ostream* out) { *out << hostile.name; }

class HostileTextImage : public TextImage, public testing::WithParamInterface<Hostile> {};

TEST_P(HostileTextImage, IsRefusedInSilence) {
  const bool is_nrrd = std::string(kNrrd).find(GetParam().from) != std::string::npos;
  Write("x.raw", std::string(16, '\0'));
  const auto path = Write(
      is_nrrd ? "a.nrrd" : "a.mha",
      Replaced(is_nrrd ? kNrrd : kMeta, GetParam().from, GetParam().to) + std::string(16, '\0'));

  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();
  (void)AuditGeometry(path);
  const auto volume = ReadVolume(path);

  EXPECT_THAT(testing::internal::GetCapturedStderr(), IsEmpty());
  EXPECT_THAT(testing::internal::GetCapturedStdout(), IsEmpty());
  EXPECT_THAT(std::string(volume.status().message()), HasSubstr(GetParam().said));
}

std::string Many(const std::string& word, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += word;
  return text;
}

INSTANTIATE_TEST_SUITE_P(
    Ways, HostileTextImage,
    testing::Values(
        Hostile{"NrrdOfGigabytes", "sizes: 2 2 2", "sizes: 60000 60000 60000", "ends too early"},
        Hostile{"NrrdOfMoreThan64Bits", "2 2 2", "9000000000000000000 2 2", "3 axes with sizes"},
        Hostile{"NrrdOfNothing", "sizes: 2 2 2", "sizes: 2 0 2", "3 axes with sizes"},
        Hostile{"NrrdDimension", "dimension: 3", "dimension: -1", "-1 dimensions"},
        Hostile{"NrrdBzip2", "encoding: raw", "encoding: bzip2", "\"bzip2\""},
        Hostile{"NrrdNoGzip", "encoding: raw", "encoding: gzip", "cannot be inflated"},
        Hostile{"NrrdElsewhere", "encoding: raw", "data file: /dev/zero\nencoding: raw",
                "\"/dev/zero\""},
        Hostile{"NrrdParent", "encoding: raw", "data file: ../x.raw\nencoding: raw",
                "\"../x.raw\""},
        Hostile{"NrrdPattern", "encoding: raw", "data file: %s%s%n 1 2 1\nencoding: raw",
                "one file"},
        Hostile{"NrrdMissing", "encoding: raw", "data file: none.raw\nencoding: raw",
                "there is no file"},
        Hostile{"NrrdSheared", "(0,1,0)", "(1,1,0)", "right angles"},
        Hostile{"NrrdNan", "(0,1,0)", "(nan,nan,nan)", "broken"},
        Hostile{"NrrdSkip", "encoding: raw", "byte skip: 9223372036854775807\nencoding: raw",
                "bytes skipped"},
        Hostile{"NrrdTwice", "endian: little", "endian: little\nsizes: 9 9 9", "twice"},
        Hostile{"NrrdSpaceUnits", "encoding: raw",
                "space units: \"mm\" \"mm\" \"cm\"\nencoding: raw", "its unit is \"cm\""},
        Hostile{"NrrdUnits", "encoding: raw", "units: \"um\" \"um\" \"um\"\nencoding: raw",
                "its unit is \"um\""},
        Hostile{"NrrdBlankLine", "encoding: raw", "encoding: raw\n \t\r", "blank"},
        Hostile{"MetaUnits", "NDims = 3", "DistanceUnits = cm\nNDims = 3", "its unit is \"cm\""},
        Hostile{"MetaManyDimensions", "NDims = 3", "NDims = 100", "100 dimensions"},
        Hostile{"MetaNoDimensions", "NDims = 3", "NDims = -1", "-1 dimensions"},
        Hostile{"MetaGigabytes", "DimSize = 2 2 2", "DimSize = 60000 60000 60000",
                "ends too early"},
        Hostile{"MetaCompressedSize", "CompressedData = False",
                "CompressedData = True\nCompressedDataSize = 9000000000000000000",
                "cannot be inflated"},
        Hostile{"MetaMatrix", "1 0 0 0 1 0 0 0 1", Many("1 ", 20'000), "not one for 3 axes"},
        Hostile{"MetaPattern", "= LOCAL", "= %s%s%s%n 1 2 1", "one file"},
        Hostile{"MetaList", "= LOCAL", "= LIST", "one file"},
        Hostile{"MetaElsewhere", "= LOCAL", "= /dev/zero", "\"/dev/zero\""},
        Hostile{"MetaChannels", "NDims = 3", "ElementNumberOfChannels = 3\nNDims = 3",
                "3 values per voxel"},
        Hostile{"MetaType", "MET_SHORT", "MET_NONE", "MET_NONE"},
        Hostile{"MetaHeader", "NDims = 3", "HeaderSize = -5\nNDims = 3", "\"-5\" bytes"}),
    [](const testing::TestParamInfo<Hostile>& way) { return way.param.name; });

// A text without an end is not read to its end.
TEST_F(TextImage, OfTextAloneIsNoHeader) {
  for (const char* name : {"a.nrrd", "a.mha"}) {
    const std::string begin = std::string(name) == "a.nrrd" ? "NRRD0004\n" : "";
    EXPECT_THAT(ReadVolume(Write(name, begin + Many("x", 4 << 20))),
                StatusIs(absl::StatusCode::kDataLoss));
    EXPECT_THAT(ReadVolume(Write(name, "")), StatusIs(absl::StatusCode::kDataLoss));
  }
}

}  // namespace
}  // namespace isoscan
