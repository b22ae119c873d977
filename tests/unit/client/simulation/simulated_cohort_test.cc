#include "client/simulation/simulated_cohort.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <iterator>
#include <string>

#include "client/imaging/image_file.h"
#include "client/imaging/orientation.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include <omp.h>

namespace isoscan {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

Anatomy HalfAndHalf() {
  const Geometry grid{.size = {20, 20, 20}};
  Anatomy anatomy{.field_of_view = grid,
                  .labels = {.geometry = grid, .voxels = {}},
                  .image = {.geometry = grid, .voxels = {}},
                  .tissue = {}};
  for (int i = 0; i < 8000; ++i) {
    const bool left = i % 20 < 10;
    anatomy.image.voxels.push_back(left ? 1.0F : 5.0F);
    anatomy.labels.voxels.push_back(left ? 1 : 2);
    anatomy.tissue.push_back({});
    anatomy.tissue.back()[IndexOf(left ? Tissue::kGrey : Tissue::kWhite)] = 1;
  }
  return anatomy;
}

std::string BytesOf(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

const std::vector<AtlasLabel> kLabels{{.name = "left", .values = {1}},
                                      {.name = "right", .values = {2}}};

TEST(SimulatedCohort, IsABidsDatasetWithAMaskForEveryLabel) {
  const TemporaryDirectory folder;

  ASSERT_OK(WriteSimulatedCohort(folder.path() / "north", HalfAndHalf(), kLabels,
                                 {.name = "north", .scale = 2}, {.patients = 2}));

  for (const char* const subject : {"sub-0001", "sub-0002"}) {
    const fs::path anat = folder.path() / "north" / subject / "anat";
    EXPECT_OK(ReadVolume(anat / (std::string(subject) + "_T1w.nii.gz")));
    for (const char* const label : {"left", "right"}) {
      EXPECT_OK(
          ReadLabelValues(folder.path() / "north" / "derivatives" / "labels" / subject / "anat" /
                          (std::string(subject) + "_label-" + label + "_mask.nii.gz")));
    }
  }
  EXPECT_TRUE(fs::exists(folder.path() / "north" / "dataset_description.json"));
}

TEST(SimulatedCohort, GrowsWithoutChangingItsPatients) {
  const TemporaryDirectory folder;
  const Scanner scanner{.name = "north", .noise = 0.1};

  ASSERT_OK(WriteSimulatedCohort(folder.path() / "small", HalfAndHalf(), kLabels, scanner, {}));
  ASSERT_OK(WriteSimulatedCohort(folder.path() / "large", HalfAndHalf(), kLabels, scanner,
                                 {.patients = 3}));

  const auto small = ReadVolume(folder.path() / "small/sub-0001/anat/sub-0001_T1w.nii.gz");
  const auto large = ReadVolume(folder.path() / "large/sub-0001/anat/sub-0001_T1w.nii.gz");
  ASSERT_OK(small);
  ASSERT_OK(large);
  EXPECT_EQ(small->voxels, large->voxels);
}

TEST(SimulatedCohort, NeverWritesIntoAFolderThatHasSomething) {
  const TemporaryDirectory folder;
  std::ofstream(folder.path() / "precious.txt") << "keep";

  EXPECT_THAT(WriteSimulatedCohort(folder.path(), HalfAndHalf(), kLabels, {.name = "north"}, {}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("not empty")));
}

TEST(SimulatedCohort, HasOneScanPerProtocolAndATruthfulSidecar) {
  const TemporaryDirectory folder;
  const Scanner scanner = *ParseScanner("north:protocol=E+H+J,noise=0.02,scale=3");

  ASSERT_OK(WriteSimulatedCohort(folder.path() / "north", HalfAndHalf(), kLabels, scanner, {}));

  const fs::path anat = folder.path() / "north/sub-0001/anat";
  for (const char* const contrast : {"T1w", "FLAIR", "T2w"}) {
    EXPECT_OK(ReadVolume(anat / (std::string("sub-0001_") + contrast + ".nii.gz")));
  }
  const std::string sidecar = BytesOf(anat / "sub-0001_FLAIR.json");
  for (const char* const member :
       {"\"Manufacturer\": \"simulated\"", "\"ManufacturersModelName\": \"north\"",
        "\"MagneticFieldStrength\": 3,", "\"RepetitionTime\": 9,", "\"EchoTime\": 0.09,",
        "\"InversionTime\": 2.5,", "\"Protocol\": \"3T-flair\"", "\"Scale\": 3,"}) {
    EXPECT_THAT(sidecar, HasSubstr(member));
  }
}

TEST(SimulatedCohort, OfTheSameSeedHasTheSameBytes) {
  const TemporaryDirectory folder;
  const Scanner scanner =
      *ParseScanner("north:protocol=A,noise=0.1,field=0.1,transmit=0.1,oblique=10");
  for (const char* const name : {"first", "second"}) {
    omp_set_num_threads(name[0] == 'f' ? 1 : 3);
    ASSERT_OK(WriteSimulatedCohort(folder.path() / name, HalfAndHalf(), kLabels, scanner, {}));
  }
  omp_set_num_threads(omp_get_num_procs());
  ASSERT_OK(
      WriteSimulatedCohort(folder.path() / "other", HalfAndHalf(), kLabels, scanner, {.seed = 2}));

  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder.path() / "first")) {
    if (!entry.is_regular_file()) continue;
    const fs::path relative = entry.path().lexically_relative(folder.path() / "first");
    EXPECT_EQ(BytesOf(entry.path()), BytesOf(folder.path() / "second" / relative)) << relative;
    ++files;
  }
  EXPECT_EQ(files, 6);  // Two descriptions, a scan with its sidecar, two masks.
  const fs::path scan = "sub-0001/anat/sub-0001_T1w.nii.gz";
  EXPECT_NE(BytesOf(folder.path() / "first" / scan), BytesOf(folder.path() / "other" / scan));
}

TEST(SimulatedCohort, OfAnObliqueScannerReadsBackInItsPlace) {
  const TemporaryDirectory folder;
  const Anatomy anatomy = HalfAndHalf();
  const Scanner scanner = *ParseScanner("north:protocol=E,oblique=20,orientation=ASR,spacing=1");
  ASSERT_OK(WriteSimulatedCohort(folder.path() / "north", anatomy, kLabels, scanner,
                                 {.variation = {.displacement_mm = 0}}));

  const auto scan = ReadVolume(folder.path() / "north/sub-0001/anat/sub-0001_T1w.nii.gz");
  const auto left = ReadLabelValues(folder.path() /
                                    "north/derivatives/labels/sub-0001/anat/"
                                    "sub-0001_label-left_mask.nii.gz");

  ASSERT_OK(scan);
  ASSERT_OK(left);
  EXPECT_TRUE(SameGrid(scan->geometry, left->geometry));
  EXPECT_NEAR(scan->geometry.direction[1][0], -0.96, 0.01);  // Anterior first, turned.
  // Grey matter and its mask lie at x < 9.5 mm, whatever the order of voxels.
  const Volume canonical = ToCanonical(*scan);
  const Volume mask = ToCanonical(*left);
  const Geometry& grid = canonical.geometry;
  for (std::int64_t i = 0; i < grid.voxels(); ++i) {
    const double x =
        PhysicalPoint(grid, {static_cast<double>(i % grid.size[0]),
                             static_cast<double>(i / grid.size[0] % grid.size[1]),
                             static_cast<double>(i / (grid.size[0] * grid.size[1]))})[0];
    if (std::abs(x - 9.5) < 1) continue;  // The voxels on the border.
    const auto voxel = static_cast<std::size_t>(i);
    ASSERT_EQ(mask.voxels[voxel], x < 9.5 ? 1 : 0) << x;
    ASSERT_EQ(canonical.voxels[voxel] < 80, x < 9.5) << x;
  }
}

TEST(SimulatedCohort, RefusesAScannerThatTheAnatomyCannotServe) {
  const TemporaryDirectory folder;
  Anatomy only_image = HalfAndHalf();
  only_image.tissue.clear();
  Anatomy only_tissue = HalfAndHalf();
  only_tissue.image.voxels.clear();

  EXPECT_THAT(WriteSimulatedCohort(folder.path() / "north", only_image, kLabels,
                                   *ParseScanner("north:protocol=E"), {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("needs tissue")));
  EXPECT_THAT(WriteSimulatedCohort(folder.path() / "north", only_tissue, kLabels,
                                   *ParseScanner("north:scale=2"), {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("give the head")));
  EXPECT_FALSE(fs::exists(folder.path() / "north"));
}

TEST(RescanCohort, RefusesAProtocol) {
  const TemporaryDirectory folder;
  for (const char* const scanner : {"south:protocol=E", "south:oblique=5", "south:spacing=1"}) {
    EXPECT_THAT(RescanCohort(folder.path(), folder.path() / "copy", *ParseScanner(scanner), 1),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("only scale, bias")));
  }
}

TEST(RescanCohort, ChangesImagesAndNoLabel) {
  const TemporaryDirectory folder;
  ASSERT_OK(
      WriteSimulatedCohort(folder.path() / "real", HalfAndHalf(), kLabels, {.name = "north"}, {}));

  ASSERT_OK(RescanCohort(folder.path() / "real", folder.path() / "copy",
                         {.name = "south", .scale = 4, .bias = 100}, 1));

  const auto real = ReadVolume(folder.path() / "real/sub-0001/anat/sub-0001_T1w.nii.gz");
  const auto copy = ReadVolume(folder.path() / "copy/sub-0001/anat/sub-0001_T1w.nii.gz");
  ASSERT_OK(real);
  ASSERT_OK(copy);
  EXPECT_EQ(real->geometry.size, copy->geometry.size);
  for (std::size_t i = 0; i < real->voxels.size(); ++i) {
    ASSERT_NEAR(copy->voxels[i], 4 * real->voxels[i] + 100, 1e-3);
  }
  const fs::path mask = "derivatives/labels/sub-0001/anat/sub-0001_label-left_mask.nii.gz";
  const auto real_mask = ReadLabelValues(folder.path() / "real" / mask);
  const auto copied_mask = ReadLabelValues(folder.path() / "copy" / mask);
  ASSERT_OK(real_mask);
  ASSERT_OK(copied_mask);
  EXPECT_EQ(real_mask->voxels, copied_mask->voxels);
}

TEST(RescanCohort, RefusesATargetInsideItsSource) {
  const TemporaryDirectory folder;
  const fs::path source = folder.path() / "real";
  ASSERT_OK(WriteSimulatedCohort(source, HalfAndHalf(), kLabels, {.name = "north"}, {}));

  for (const fs::path& target : {source / "copy", source / "sub-0001/../a/b", source}) {
    EXPECT_THAT(RescanCohort(source, target, {.name = "south"}, 1),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("lies inside")));
  }
  EXPECT_FALSE(fs::exists(source / "copy"));
  EXPECT_OK(RescanCohort(source, folder.path() / "real-copy", {.name = "south"}, 1));
}

TEST(RescanCohort, NamesAFolderThatIsNotThere) {
  const TemporaryDirectory folder;

  EXPECT_THAT(RescanCohort(folder.path() / "nothing", folder.path() / "copy", {.name = "south"}, 1),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("nothing")));
}

}  // namespace
}  // namespace isoscan
