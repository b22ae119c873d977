/// Oblique scans through every step that a prediction or a harmonised copy goes through: each voxel
/// stays within a thousandth of a millimetre of its place in the patient.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "client/imaging/image_file.h"
#include "client/imaging/nifti_header.h"
#include "client/imaging/orientation.h"
#include "client/imaging/resampling.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/imaging/dicom_files.h"
#include "tests/unit/client/imaging/phantom.h"

namespace isoscan {
namespace {

constexpr double kToleranceMm = 1e-3;
constexpr std::int16_t kFloat32 = 16;

/// The oblique grid with its axes in another order, some turned about.
Geometry Stored(const std::array<std::size_t, 3>& axes, const std::array<double, 3>& signs,
                const std::array<std::int64_t, 3>& size) {
  const Geometry oblique = ObliqueGeometry(size);
  Geometry stored = oblique;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    stored.spacing_mm[axis] = oblique.spacing_mm[axes[axis]];
    for (std::size_t row = 0; row < 3; ++row) {
      stored.direction[row][axis] = signs[axis] * oblique.direction[row][axes[axis]];
    }
  }
  return stored;
}

/// Sagittal, coronal and axial slices as scanners store them, and a mirrored grid.
std::vector<Geometry> StoredGrids(const std::array<std::int64_t, 3>& size) {
  return {Stored({0, 1, 2}, {1, 1, 1}, size), Stored({1, 2, 0}, {1, -1, -1}, size),
          Stored({0, 2, 1}, {1, -1, 1}, size), Stored({2, 0, 1}, {-1, 1, -1}, size)};
}

std::array<double, 3> IndexOf(const Geometry& geometry, std::size_t voxel) {
  const auto columns = static_cast<std::size_t>(geometry.size[0]);
  const auto rows = static_cast<std::size_t>(geometry.size[1]);
  return {static_cast<double>(voxel % columns), static_cast<double>(voxel / columns % rows),
          static_cast<double>(voxel / columns / rows)};
}

double Distance(const std::array<double, 3>& a, const std::array<double, 3>& b) {
  return std::hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}

/// The greatest distance between where voxel number n, which has the value n, was in `original` and
/// where the volume has it.
double GreatestShiftOfNumbers(const Volume& volume, const Geometry& original) {
  double greatest = 0;
  for (std::size_t voxel = 0; voxel < volume.voxels.size(); ++voxel) {
    const auto number = static_cast<std::size_t>(std::lround(volume.voxels[voxel]));
    greatest = std::max(greatest,
                        Distance(PhysicalPoint(original, IndexOf(original, number)),
                                 PhysicalPoint(volume.geometry, IndexOf(volume.geometry, voxel))));
  }
  return greatest;
}

NiftiForms FormsIn(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::array<char, kNiftiHeaderBytes> bytes{};
  file.read(bytes.data(), bytes.size());
  const absl::StatusOr<NiftiHeader> header =
      ParseNiftiHeader(std::as_bytes(std::span(bytes)), path);
  EXPECT_OK(header);
  return header.ok() ? header->forms : NiftiForms();
}

class RoundTrip : public testing::Test {
 protected:
  std::filesystem::path Path(const std::string& name) const { return folder_.path() / name; }

  void WriteNifti(const std::filesystem::path& path, const Volume& volume,
                  const NiftiForms& forms) const {
    std::ofstream file(path, std::ios::binary);
    file << NiftiHeaderBytes(volume.geometry.size, forms, kFloat32);
    file.write(reinterpret_cast<const char*>(volume.voxels.data()),
               static_cast<std::streamsize>(volume.voxels.size() * sizeof(float)));
  }

  TemporaryDirectory folder_;
};

TEST_F(RoundTrip, OfADicomSeriesToNiftiOnItsGridKeepsEveryVoxelInItsPlace) {
  int number = 0;
  for (const Geometry& grid : StoredGrids({13, 11, 9})) {
    const std::filesystem::path dicom = Path(fmt::format("dicom-{}", ++number));
    WriteMrSeries(dicom, NumberedVolume(grid));

    ASSERT_OK_AND_ASSIGN(const Volume stored, ReadVolume(dicom));
    const Volume back = FromCanonical(ToCanonical(stored), stored.geometry);
    const LabelMap labels = FromCanonical(ToCanonical(BoxLabels(stored.geometry)), stored.geometry);
    ASSERT_OK(WriteVolumeLike(dicom, Path("image.nii.gz"), back));
    ASSERT_OK(WriteLabelMapLike(dicom, Path("labels.nii.gz"), labels));

    for (const char* name : {"image.nii.gz", "labels.nii.gz"}) {
      for (const GeometrySource source :
           {GeometrySource::kAgreed, GeometrySource::kQform, GeometrySource::kSform}) {
        ASSERT_OK_AND_ASSIGN(const GeometryAudit audit, AuditGeometry(Path(name), source));
        EXPECT_EQ(audit.qform_code, 1);
        EXPECT_EQ(audit.sform_code, 1);
        EXPECT_LT(GreatestCornerDistance(audit.geometry, stored.geometry), kToleranceMm);
      }
    }
    ASSERT_OK_AND_ASSIGN(const Volume read, ReadVolume(Path("image.nii.gz")));
    EXPECT_LT(GreatestShiftOfNumbers(read, grid), kToleranceMm);
    ASSERT_OK_AND_ASSIGN(const Volume read_labels, ReadLabelValues(Path("labels.nii.gz")));
    EXPECT_TRUE(std::equal(read_labels.voxels.begin(), read_labels.voxels.end(),
                           BoxLabels(stored.geometry).voxels.begin()));
  }
}

TEST_F(RoundTrip, OfADicomSeriesRefusesAnotherGrid) {
  WriteMrSeries(Path("dicom"), NumberedVolume(ObliqueGeometry({5, 4, 3})));
  ASSERT_OK_AND_ASSIGN(Volume stored, ReadVolume(Path("dicom")));
  stored.geometry.origin_mm[2] += 1;

  EXPECT_THAT(WriteVolumeLike(Path("dicom"), Path("out.nii"), stored),
              StatusIs(absl::StatusCode::kInvalidArgument, testing::HasSubstr("1 mm away")));
  EXPECT_FALSE(std::filesystem::exists(Path("out.nii")));
}

// The forms of two programs, a little apart, under every pair of codes that means something.
TEST_F(RoundTrip, OfANiftiKeepsBothFormsWithTheirCodes) {
  constexpr std::pair<std::int16_t, std::int16_t> kCodes[] = {
      {1, 0}, {0, 1}, {1, 1}, {1, 2}, {2, 1}, {2, 4}, {3, 4}, {0, 4}, {4, 0}, {0, 0}};
  for (const Geometry& grid : StoredGrids({13, 11, 9})) {
    for (const auto& [qform, sform] : kCodes) {
      NiftiForms forms = FormsOf(grid);
      forms.qform_code = qform;
      forms.sform_code = sform;
      forms.offset[1] += 0.03F;
      forms.units = 10;  // Millimetres and seconds.
      WriteNifti(Path("input.nii"), NumberedVolume(grid), forms);

      ASSERT_OK_AND_ASSIGN(const Volume stored, ReadVolume(Path("input.nii")));
      const Volume back = FromCanonical(ToCanonical(stored), stored.geometry);
      ASSERT_OK(WriteVolumeLike(Path("input.nii"), Path("image.nii"), back));
      ASSERT_OK(
          WriteLabelMapLike(Path("input.nii"), Path("labels.nii"), BoxLabels(stored.geometry)));

      EXPECT_EQ(FormsIn(Path("image.nii")), forms) << qform << " " << sform;
      EXPECT_EQ(FormsIn(Path("labels.nii")), forms) << qform << " " << sform;
      ASSERT_OK_AND_ASSIGN(const Volume read, ReadVolume(Path("image.nii")));
      EXPECT_EQ(read.geometry, stored.geometry);
      EXPECT_EQ(read.voxels, stored.voxels);
    }
  }
}

// Each voxel holds its own place: after resampling to the network's grid and back, it still does.
TEST_F(RoundTrip, ThroughTheNetworksGridKeepsEveryInnerVoxelInItsPlace) {
  for (const Geometry& grid : StoredGrids({16, 15, 14})) {
    for (std::size_t coordinate = 0; coordinate < 3; ++coordinate) {
      Volume places{.geometry = grid, .voxels = {}};
      for (std::size_t voxel = 0; voxel < static_cast<std::size_t>(grid.voxels()); ++voxel) {
        places.voxels.push_back(
            static_cast<float>(PhysicalPoint(grid, IndexOf(grid, voxel))[coordinate]));
      }
      ASSERT_OK(WriteVolume(Path("input.nii.gz"), places));

      ASSERT_OK_AND_ASSIGN(const Volume stored, ReadVolume(Path("input.nii.gz")));
      const Volume canonical = ToCanonical(stored);
      const Volume seen = Resample(canonical, WithSpacing(canonical.geometry, {0.6, 0.7, 1.3}),
                                   ImageInterpolation::kLinear);
      const Volume back = Resample(seen, canonical.geometry, ImageInterpolation::kLinear);
      ASSERT_OK(WriteVolumeLike(Path("input.nii.gz"), Path("output.nii.gz"),
                                FromCanonical(back, stored.geometry)));
      ASSERT_OK_AND_ASSIGN(const Volume read, ReadVolume(Path("output.nii.gz")));

      ASSERT_EQ(read.geometry, stored.geometry);
      double greatest_mm = 0;
      for (std::size_t voxel = 0; voxel < read.voxels.size(); ++voxel) {
        const std::array<double, 3> index = IndexOf(read.geometry, voxel);
        bool inner = true;  // At the border the outermost voxel counts beyond itself.
        for (std::size_t axis = 0; axis < 3; ++axis) {
          inner = inner && index[axis] >= 2 &&
                  index[axis] < static_cast<double>(read.geometry.size[axis]) - 2;
        }
        if (!inner) continue;
        greatest_mm =
            std::max(greatest_mm, std::abs(static_cast<double>(read.voxels[voxel]) -
                                           PhysicalPoint(read.geometry, index)[coordinate]));
      }
      EXPECT_LT(greatest_mm, kToleranceMm);
    }
  }
}

}  // namespace
}  // namespace isoscan
