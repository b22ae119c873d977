#include "client/simulation/simulated_cohort.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "client/imaging/image_file.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

Anatomy HalfAndHalf() {
  Anatomy anatomy{.image = {.geometry = {.size = {20, 20, 20}}, .voxels = {}},
                  .labels = {.geometry = {.size = {20, 20, 20}}, .voxels = {}}};
  for (int i = 0; i < 8000; ++i) {
    anatomy.image.voxels.push_back(i % 20 < 10 ? 1.0F : 5.0F);
    anatomy.labels.voxels.push_back(i % 20 < 10 ? 1 : 2);
  }
  return anatomy;
}

const std::vector<AtlasLabel> kLabels{{.name = "left", .values = {1}},
                                      {.name = "right", .values = {2}}};

TEST(SimulatedCohort, IsABidsDatasetWithAMaskForEveryLabel) {
  const TemporaryDirectory folder;

  ASSERT_OK(WriteSimulatedCohort(folder.path() / "north", HalfAndHalf(), kLabels,
                                 {.name = "north", .scale = 2}, {}, 2, 1));

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

  ASSERT_OK(
      WriteSimulatedCohort(folder.path() / "small", HalfAndHalf(), kLabels, scanner, {}, 1, 1));
  ASSERT_OK(
      WriteSimulatedCohort(folder.path() / "large", HalfAndHalf(), kLabels, scanner, {}, 3, 1));

  const auto small = ReadVolume(folder.path() / "small/sub-0001/anat/sub-0001_T1w.nii.gz");
  const auto large = ReadVolume(folder.path() / "large/sub-0001/anat/sub-0001_T1w.nii.gz");
  ASSERT_OK(small);
  ASSERT_OK(large);
  EXPECT_EQ(small->voxels, large->voxels);
}

TEST(SimulatedCohort, NeverWritesIntoAFolderThatHasSomething) {
  const TemporaryDirectory folder;
  std::ofstream(folder.path() / "precious.txt") << "keep";

  EXPECT_THAT(
      WriteSimulatedCohort(folder.path(), HalfAndHalf(), kLabels, {.name = "north"}, {}, 1, 1),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("not empty")));
}

TEST(RescanCohort, ChangesImagesAndNoLabel) {
  const TemporaryDirectory folder;
  ASSERT_OK(WriteSimulatedCohort(folder.path() / "real", HalfAndHalf(), kLabels, {.name = "north"},
                                 {}, 1, 1));

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

TEST(RescanCohort, NamesAFolderThatIsNotThere) {
  const TemporaryDirectory folder;

  EXPECT_THAT(RescanCohort(folder.path() / "nothing", folder.path() / "copy", {.name = "south"}, 1),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("nothing")));
}

}  // namespace
}  // namespace isoscan
