#include "client/imaging/image_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/imaging/phantom.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::FloatEq;
using testing::HasSubstr;
using testing::Not;

class ImageFile : public testing::Test {
 protected:
  std::filesystem::path Path(const std::string& name) const { return folder_.path() / name; }

  /// 2 x 3 x 2 voxels of int16, 0 ... 11.
  static RawNifti Small() {
    RawNifti nifti{.size = {2, 3, 2}, .datatype = 4, .bits = 16};
    for (std::int16_t i = 0; i < 12; ++i) nifti.Append(i);
    return nifti;
  }

  TemporaryDirectory folder_;
};

TEST_F(ImageFile, ReturnsWhatWasWrittenWithItsGeometry) {
  for (const char* name : {"a.nii.gz", "a.nii"}) {
    const Volume volume = SmoothVolume(ObliqueGeometry({7, 5, 3}));

    ASSERT_OK(WriteVolume(Path(name), volume));
    ASSERT_OK_AND_ASSIGN(const Volume read, ReadVolume(Path(name)));
    ASSERT_OK_AND_ASSIGN(const Geometry geometry, ReadGeometry(Path(name)));

    EXPECT_EQ(read.voxels, volume.voxels);
    EXPECT_TRUE(SameGrid(read.geometry, volume.geometry, 1e-3));
    EXPECT_EQ(geometry, read.geometry);
  }
}

TEST_F(ImageFile, ReturnsTheLabelsThatWereWritten) {
  const LabelMap labels = BoxLabels(ObliqueGeometry({9, 6, 5}));

  ASSERT_OK(WriteLabelMap(Path("l.nii.gz"), labels));
  ASSERT_OK_AND_ASSIGN(const Volume read, ReadLabelValues(Path("l.nii.gz")));

  EXPECT_TRUE(std::equal(labels.voxels.begin(), labels.voxels.end(), read.voxels.begin(),
                         read.voxels.end()));
}

TEST_F(ImageFile, AppliesTheFilesOwnSlopeAndIntercept) {
  RawNifti nifti = Small();
  nifti.slope = 0.5;
  nifti.intercept = -3;
  nifti.Write(Path("s.nii"));

  ASSERT_OK_AND_ASSIGN(const Volume volume, ReadVolume(Path("s.nii")));

  for (std::size_t i = 0; i < 12; ++i) {
    EXPECT_THAT(volume.voxels[i], FloatEq(0.5f * static_cast<float>(i) - 3));
  }
}

TEST_F(ImageFile, TurnsNiftisRasIntoLps) {
  RawNifti nifti = Small();
  nifti.sform = {{{1, 0, 0, 10}, {0, 1, 0, 20}, {0, 0, 1, 30}}};
  nifti.qform_offset = {10, 20, 30};
  nifti.Write(Path("ras.nii"));

  ASSERT_OK_AND_ASSIGN(const Geometry geometry, ReadGeometry(Path("ras.nii")));

  EXPECT_THAT(geometry.size, ElementsAre(2, 3, 2));
  EXPECT_THAT(geometry.origin_mm, ElementsAre(-10, -20, 30));
  EXPECT_EQ(geometry.direction[0][0], -1);
  EXPECT_EQ(geometry.direction[1][1], -1);
  EXPECT_EQ(geometry.direction[2][2], 1);
}

TEST_F(ImageFile, ReadsDoublePrecision) {
  RawNifti nifti{.size = {2, 2, 1}, .datatype = 64, .bits = 64};
  for (const double value : {0.0, 1.0, 2.5, 1e6}) nifti.Append(value);
  nifti.Write(Path("d.nii"));

  ASSERT_OK_AND_ASSIGN(const Volume volume, ReadVolume(Path("d.nii")));

  EXPECT_THAT(volume.voxels, ElementsAre(0, 1, 2.5, 1e6f));
}

// niftilib would put zeros there, and nobody would know.
TEST_F(ImageFile, KeepsNanAndInfinity) {
  RawNifti nifti{.size = {2, 1, 1}};
  nifti.Append(std::numeric_limits<float>::quiet_NaN());
  nifti.Append(-std::numeric_limits<float>::infinity());
  nifti.Write(Path("nan.nii"));

  ASSERT_OK_AND_ASSIGN(const Volume volume, ReadVolume(Path("nan.nii")));

  EXPECT_TRUE(std::isnan(volume.voxels[0]));
  EXPECT_TRUE(std::isinf(volume.voxels[1]));
}

TEST_F(ImageFile, AcceptsAFourthAxisOfOneVolume) {
  RawNifti nifti = Small();
  nifti.size = {2, 3, 2, 1};
  nifti.Write(Path("4d.nii"));

  ASSERT_OK_AND_ASSIGN(const Volume volume, ReadVolume(Path("4d.nii")));

  EXPECT_THAT(volume.geometry.size, ElementsAre(2, 3, 2));
}

TEST_F(ImageFile, RefusesSeveralVolumesInOneFile) {
  RawNifti nifti = Small();
  nifti.size = {2, 3, 1, 2};
  nifti.Write(Path("4d.nii"));

  EXPECT_THAT(ReadVolume(Path("4d.nii")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("holds 2 volumes (4D)")));
}

TEST_F(ImageFile, RefusesColours) {
  RawNifti nifti{.size = {2, 1, 1}, .datatype = 128, .bits = 24};
  nifti.voxels.assign(6, '\1');
  nifti.Write(Path("rgb.nii"));

  EXPECT_THAT(ReadVolume(Path("rgb.nii")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("3 values per voxel")));
}

// The fixture of segmentation.md 6.1: qform identity, sform mirrored. ITK reads one, nibabel the
// other, and left becomes right.
TEST_F(ImageFile, RefusesFormsThatSwapLeftAndRight) {
  RawNifti nifti = Small();
  nifti.sform_code = 2;
  nifti.sform[0] = {-1, 0, 0, 1};
  nifti.Write(Path("swapped.nii"));

  EXPECT_THAT(ReadVolume(Path("swapped.nii")),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("qform (code 1) and sform (code 2)"),
                             HasSubstr("1 mm apart"), HasSubstr("nibabel"))));
  EXPECT_THAT(ReadGeometry(Path("swapped.nii")), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(ImageFile, RefusesFormsThatLieApart) {
  RawNifti nifti = Small();
  nifti.qform_offset = {0, 0, 7};
  nifti.Write(Path("apart.nii"));

  EXPECT_THAT(ReadVolume(Path("apart.nii")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("7 mm apart")));
}

TEST_F(ImageFile, AcceptsFormsThatDifferByRounding) {
  RawNifti nifti = Small();
  nifti.qform_offset = {0.05f, 0, 0};
  nifti.Write(Path("rounded.nii"));

  EXPECT_OK(ReadVolume(Path("rounded.nii")));
}

TEST_F(ImageFile, ReadsTheFormThatIsNamed) {
  RawNifti nifti = Small();
  nifti.sform_code = 2;
  nifti.sform[0] = {-1, 0, 0, 1};
  nifti.Write(Path("swapped.nii"));

  ASSERT_OK_AND_ASSIGN(const Volume qform, ReadVolume(Path("swapped.nii"), GeometrySource::kQform));
  ASSERT_OK_AND_ASSIGN(const Volume sform, ReadVolume(Path("swapped.nii"), GeometrySource::kSform));

  EXPECT_EQ(qform.geometry.direction[0][0], -1);
  EXPECT_EQ(sform.geometry.direction[0][0], 1);
  EXPECT_EQ(qform.voxels, sform.voxels);
}

TEST_F(ImageFile, IgnoresAFormWhoseCodeIsZero) {
  RawNifti nifti = Small();
  nifti.sform_code = 0;
  nifti.sform = {};
  nifti.Write(Path("qform.nii"));

  EXPECT_OK(ReadVolume(Path("qform.nii")));
}

TEST_F(ImageFile, RefusesAShearedSform) {
  RawNifti nifti = Small();
  nifti.qform_code = 0;
  nifti.sform = {{{1, 0.2f, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}}};
  nifti.Write(Path("sheared.nii"));

  EXPECT_THAT(ReadVolume(Path("sheared.nii")),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("right angles"), Not(HasSubstr("\n")))));
}

TEST_F(ImageFile, ReadsTheOtherByteOrder) {
  RawNifti nifti = Small();
  nifti.slope = 2;
  std::string bytes = nifti.Header() + nifti.voxels;
  const auto swap = [&bytes](std::size_t offset, std::size_t width, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      const auto first = bytes.begin() + static_cast<std::ptrdiff_t>(offset + i * width);
      std::reverse(first, first + static_cast<std::ptrdiff_t>(width));
    }
  };
  swap(0, 4, 1);
  swap(40, 2, 8);    // dim
  swap(70, 2, 2);    // datatype, bitpix
  swap(76, 4, 8);    // pixdim
  swap(108, 4, 3);   // vox_offset, scl_slope, scl_inter
  swap(252, 2, 2);   // qform_code, sform_code
  swap(256, 4, 18);  // quatern, qoffset, srow
  swap(352, 2, 12);
  std::ofstream(Path("big.nii"), std::ios::binary) << bytes;
  nifti.Write(Path("little.nii"));

  ASSERT_OK_AND_ASSIGN(const Volume big, ReadVolume(Path("big.nii")));
  ASSERT_OK_AND_ASSIGN(const Volume little, ReadVolume(Path("little.nii")));

  EXPECT_EQ(big.voxels, little.voxels);
  EXPECT_EQ(big.geometry, little.geometry);
}

TEST_F(ImageFile, ReadsEveryScalarType) {
  const auto read = [this](std::int16_t datatype, auto zero) {
    RawNifti nifti{.size = {3, 1, 1},
                   .datatype = datatype,
                   .bits = static_cast<std::int16_t>(8 * sizeof(zero))};
    for (const int value : {0, 1, 77}) nifti.Append(static_cast<decltype(zero)>(value));
    nifti.Write(Path("t.nii"));
    const absl::StatusOr<Volume> volume = ReadVolume(Path("t.nii"));
    EXPECT_OK(volume.status());
    return volume.ok() ? volume->voxels : std::vector<float>();
  };

  EXPECT_THAT(read(2, std::uint8_t{}), ElementsAre(0, 1, 77));
  EXPECT_THAT(read(256, std::int8_t{}), ElementsAre(0, 1, 77));
  EXPECT_THAT(read(512, std::uint16_t{}), ElementsAre(0, 1, 77));
  EXPECT_THAT(read(4, std::int16_t{}), ElementsAre(0, 1, 77));
  EXPECT_THAT(read(768, std::uint32_t{}), ElementsAre(0, 1, 77));
  EXPECT_THAT(read(8, std::int32_t{}), ElementsAre(0, 1, 77));
  EXPECT_THAT(read(1280, std::uint64_t{}), ElementsAre(0, 1, 77));
  EXPECT_THAT(read(1024, std::int64_t{}), ElementsAre(0, 1, 77));
  EXPECT_THAT(read(16, float{}), ElementsAre(0, 1, 77));
  EXPECT_THAT(read(64, double{}), ElementsAre(0, 1, 77));
}

TEST_F(ImageFile, ReadsHeaderAndVoxelsFromTwoFiles) {
  RawNifti nifti = Small();
  nifti.voxels.replace(0, 2, "\x1f\x8b");  // A value, though gzip begins so.
  std::string header = nifti.Header();
  header.replace(344, 4, std::string("ni1\0", 4));
  std::fill_n(header.begin() + 108, 4, '\0');  // Voxels from byte 0 on.
  std::ofstream(Path("a.hdr"), std::ios::binary) << header;
  std::ofstream(Path("a.img"), std::ios::binary) << nifti.voxels;

  for (const char* name : {"a.hdr", "a.img"}) {
    ASSERT_OK_AND_ASSIGN(const Volume volume, ReadVolume(Path(name)));
    EXPECT_EQ(volume.voxels[11], 11);
  }
  std::filesystem::remove(Path("a.img"));
  EXPECT_THAT(ReadVolume(Path("a.hdr")), StatusIs(absl::StatusCode::kNotFound, HasSubstr("a.img")));
}

/// What a header says of the place: pixdim, unit, codes, quaternion, offset, sform.
std::string FormBytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string header(352, '\0');
  file.read(header.data(), std::ssize(header));
  return header.substr(76, 16) + header.substr(123, 1) + header.substr(252, 76);
}

TEST_F(ImageFile, WritesBothFormsOfItsInput) {
  RawNifti input = Small();
  input.size = {7, 5, 3};
  input.datatype = 2;
  input.bits = 8;
  input.voxels = std::string(105, '\1');
  input.qform_code = 2;
  input.sform_code = 4;
  input.qfac = -1;
  input.spacing_mm = {0.8F, 1.1F, 2.9F};
  input.quaternion = {0.1F, 0.2F, 0.3F};
  input.qform_offset = {-1.5F, 2, 31};
  input.units = 10;  // Millimetres and seconds.
  // The sform of another program, off by rounding and a little more.
  ASSERT_OK_AND_ASSIGN(const Volume by_qform, [&] {
    input.sform_code = 0;
    input.Write(Path("qform.nii"));
    return ReadVolume(Path("qform.nii"));
  }());
  const Geometry& grid = by_qform.geometry;
  for (std::size_t row = 0; row < 3; ++row) {
    const double ras = row < 2 ? -1 : 1;
    for (std::size_t axis = 0; axis < 3; ++axis) {
      input.sform[row][axis] =
          static_cast<float>(ras * grid.direction[row][axis] * grid.spacing_mm[axis]);
    }
    input.sform[row][3] = static_cast<float>(ras * grid.origin_mm[row] + 0.03);
  }
  input.sform_code = 4;
  input.Write(Path("input.nii"));
  ASSERT_OK_AND_ASSIGN(const Volume volume, ReadVolume(Path("input.nii")));
  LabelMap labels = BoxLabels(volume.geometry);

  ASSERT_OK(WriteLabelMapLike(Path("input.nii"), Path("labels.nii"), labels));
  ASSERT_OK(WriteVolumeLike(Path("input.nii"), Path("volume.nii"), volume));
  ASSERT_OK(WriteLabelMapLike(Path("input.nii"), Path("labels.nii.gz"), labels));
  ASSERT_OK_AND_ASSIGN(const Volume read, ReadLabelValues(Path("labels.nii.gz")));

  EXPECT_EQ(FormBytes(Path("labels.nii")), FormBytes(Path("input.nii")));
  EXPECT_EQ(FormBytes(Path("volume.nii")), FormBytes(Path("input.nii")));
  EXPECT_EQ(read.geometry, volume.geometry);
  EXPECT_TRUE(std::equal(labels.voxels.begin(), labels.voxels.end(), read.voxels.begin(),
                         read.voxels.end()));
}

// Whichever form was chosen: the output contradicts itself as the input does, and no more.
TEST_F(ImageFile, WritesContradictingFormsAsTheyAre) {
  RawNifti input = Small();
  input.sform_code = 2;
  input.sform[0] = {-1, 0, 0, 1};
  input.Write(Path("swapped.nii"));
  for (const GeometrySource source : {GeometrySource::kQform, GeometrySource::kSform}) {
    ASSERT_OK_AND_ASSIGN(const Volume volume, ReadVolume(Path("swapped.nii"), source));

    ASSERT_OK(WriteVolumeLike(Path("swapped.nii"), Path("out.nii"), volume));
    ASSERT_OK_AND_ASSIGN(const Volume read, ReadVolume(Path("out.nii"), source));

    EXPECT_EQ(FormBytes(Path("out.nii")), FormBytes(Path("swapped.nii")));
    EXPECT_EQ(read.geometry, volume.geometry);
  }
}

TEST_F(ImageFile, WritesEqualFormsWhereItsInputIsNoNifti) {
  std::ofstream file(Path("a.mha"), std::ios::binary);
  file << "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
          "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 5 6 7\nElementSpacing = 1 1 2\n"
          "DimSize = 2 1 1\nElementType = MET_FLOAT\nElementDataFile = LOCAL\n"
       << std::string(8, '\0');
  file.close();
  ASSERT_OK_AND_ASSIGN(const Volume volume, ReadVolume(Path("a.mha")));

  ASSERT_OK(WriteVolumeLike(Path("a.mha"), Path("out.nii"), volume));
  ASSERT_OK_AND_ASSIGN(const GeometryAudit audit, AuditGeometry(Path("out.nii")));

  EXPECT_EQ(audit.geometry, volume.geometry);
  EXPECT_EQ(audit.qform_code, 1);
  EXPECT_EQ(audit.sform_code, 1);
  EXPECT_LT(audit.disagreement_mm, 1e-6);
}

TEST_F(ImageFile, WritesNothingLikeAnInputOnAnotherGrid) {
  const Volume input = SmoothVolume(ObliqueGeometry({7, 5, 3}));
  ASSERT_OK(WriteVolume(Path("input.nii"), input));
  Volume moved = input;
  moved.geometry.origin_mm[1] += 0.5;

  EXPECT_THAT(WriteVolumeLike(Path("input.nii"), Path("out.nii"), moved),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("0.5 mm away")));
  EXPECT_THAT(
      WriteVolumeLike(Path("input.nii"), Path("out.nii"), SmoothVolume(ObliqueGeometry({5, 7, 3}))),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("which has 7 x 5 x 3")));
  EXPECT_FALSE(std::filesystem::exists(Path("out.nii")));
}

TEST_F(ImageFile, NamesAFileThatIsNotThere) {
  EXPECT_THAT(ReadVolume(Path("none.nii.gz")),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none.nii.gz")));
}

TEST_F(ImageFile, RefusesAnotherKindOfFile) {
  std::ofstream(Path("scan.dcm")) << "DICM";

  EXPECT_THAT(ReadVolume(Path("scan.dcm")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("dcm2niix")));
}

TEST_F(ImageFile, TellsATruncatedFile) {
  Volume volume = SmoothVolume(ObliqueGeometry({32, 32, 32}));
  for (const char* name : {"cut.nii.gz", "cut.nii"}) {
    ASSERT_OK(WriteVolume(Path(name), volume));
    std::filesystem::resize_file(Path(name), std::filesystem::file_size(Path(name)) / 2);

    EXPECT_THAT(ReadVolume(Path(name)),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("damaged")));
  }
}

TEST_F(ImageFile, TellsAFileThatOnlyHasTheName) {
  std::ofstream(Path("text.nii.gz")) << "not an image";

  EXPECT_THAT(ReadVolume(Path("text.nii.gz")), StatusIs(absl::StatusCode::kDataLoss));
}

TEST_F(ImageFile, ReadsNrrdInItsOwnSpace) {
  std::ofstream file(Path("a.nrrd"), std::ios::binary);
  file << "NRRD0004\ntype: uint8\ndimension: 3\nspace: right-anterior-superior\nsizes: 2 1 2\n"
          "space directions: (2,0,0) (0,3,0) (0,0,4)\nkinds: domain domain domain\n"
          "encoding: raw\nspace origin: (1,2,3)\n\n"
       << std::string("\x01\x02\x03\x04", 4);
  file.close();

  ASSERT_OK_AND_ASSIGN(const Volume volume, ReadVolume(Path("a.nrrd")));

  EXPECT_THAT(volume.voxels, ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(volume.geometry.spacing_mm, ElementsAre(2, 3, 4));
  EXPECT_THAT(volume.geometry.origin_mm, ElementsAre(-1, -2, 3));
  EXPECT_EQ(volume.geometry.direction[0][0], -1);
}

TEST_F(ImageFile, ReadsMetaImage) {
  std::ofstream file(Path("a.mha"), std::ios::binary);
  file << "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
          "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 5 6 7\nElementSpacing = 1 1 2\n"
          "DimSize = 2 1 1\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
       << std::string("\x07\x09", 2);
  file.close();

  ASSERT_OK_AND_ASSIGN(const Volume volume, ReadVolume(Path("a.mha")));

  EXPECT_THAT(volume.voxels, ElementsAre(7, 9));
  EXPECT_THAT(volume.geometry.origin_mm, ElementsAre(5, 6, 7));
}

TEST_F(ImageFile, LeavesNothingBehindWhenItCannotWrite) {
  const Volume volume = SmoothVolume(ObliqueGeometry({3, 3, 3}));

  EXPECT_THAT(WriteVolume(Path("none") / "a.nii.gz", volume),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("there is no folder")));
  EXPECT_THAT(WriteVolume(Path("a.png"), volume),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(".nii.gz")));
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

TEST_F(ImageFile, LeavesOnlyTheFileItWrote) {
  ASSERT_OK(WriteVolume(Path("a.nii.gz"), SmoothVolume(ObliqueGeometry({3, 3, 3}))));

  int files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
    ++files;
  }
  EXPECT_EQ(files, 1);
}

}  // namespace
}  // namespace isoscan
