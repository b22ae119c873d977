#include "client/simulation/anatomy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "client/imaging/image_file.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using ::testing::HasSubstr;

/// A bright ball of radius 6 mm, marked 42 in the atlas, in a dark box.
struct BallAtlas {
  Volume image{.geometry = {.size = {40, 36, 32}, .origin_mm = {-10, 5, 7}}, .voxels = {}};
  LabelMap atlas{.geometry = image.geometry, .voxels = {}};

  BallAtlas() {
    for (int z = 0; z < 32; ++z) {
      for (int y = 0; y < 36; ++y) {
        for (int x = 0; x < 40; ++x) {
          const bool inside = std::hypot(x - 20, y - 18, z - 16) < 6;
          image.voxels.push_back(inside ? 100.0F : 10.0F);
          atlas.voxels.push_back(inside ? 42 : 0);
        }
      }
    }
  }
};

class AnatomyTest : public ::testing::Test {
 protected:
  AnatomyTest() {
    EXPECT_OK(WriteVolume(image_, ball_.image));
    EXPECT_OK(WriteLabelMap(atlas_, ball_.atlas));
  }

  TemporaryDirectory folder_;
  std::filesystem::path image_ = folder_.path() / "head.nii.gz";
  std::filesystem::path atlas_ = folder_.path() / "atlas.nii.gz";
  BallAtlas ball_;
};

std::int64_t LabelledVoxels(const LabelMap& labels) {
  return std::count(labels.voxels.begin(), labels.voxels.end(), std::uint8_t{1});
}

TEST_F(AnatomyTest, KeepsTheLabelsAndTheirMargin) {
  const auto anatomy = LoadAnatomy(image_, atlas_, {{.name = "ball", .values = {42}}}, 4);

  ASSERT_OK(anatomy);
  // Radius below 6 mm around a voxel: 11 voxels; 4 on each side.
  EXPECT_THAT(anatomy->image.geometry.size, ::testing::ElementsAre(19, 19, 19));
  EXPECT_EQ(LabelledVoxels(anatomy->labels),
            std::count(ball_.atlas.voxels.begin(), ball_.atlas.voxels.end(), std::uint8_t{42}));
}

TEST_F(AnatomyTest, RefusesALabelThatTheAtlasDoesNotHave) {
  EXPECT_THAT(LoadAnatomy(image_, atlas_, {{.name = "cube", .values = {7}}}, 4),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("cube")));
}

TEST_F(AnatomyTest, PatientWithoutDisplacementIsTheAnatomyOnACoarserGrid) {
  const auto anatomy = LoadAnatomy(image_, atlas_, {{.name = "ball", .values = {42}}}, 6);
  ASSERT_OK(anatomy);

  const Anatomy patient =
      MakePatient(*anatomy, {.displacement_mm = 0, .spacing_mm = 2}, RandomStream(1, "patient"));

  EXPECT_THAT(patient.image.geometry.spacing_mm, ::testing::ElementsAre(2, 2, 2));
  EXPECT_NEAR(static_cast<double>(LabelledVoxels(patient.labels)) * 8,
              static_cast<double>(LabelledVoxels(anatomy->labels)),
              // A ball of three voxels' radius is known to one part in six.
              0.17 * static_cast<double>(LabelledVoxels(anatomy->labels)));
}

TEST_F(AnatomyTest, PatientsDifferButKeepTheirSize) {
  const auto anatomy = LoadAnatomy(image_, atlas_, {{.name = "ball", .values = {42}}}, 8);
  ASSERT_OK(anatomy);
  const PatientVariation variation{.displacement_mm = 2, .spacing_mm = 1};

  const Anatomy first = MakePatient(*anatomy, variation, RandomStream(1, "patient", 1));
  const Anatomy again = MakePatient(*anatomy, variation, RandomStream(1, "patient", 1));
  const Anatomy second = MakePatient(*anatomy, variation, RandomStream(1, "patient", 2));

  EXPECT_EQ(first.image.voxels, again.image.voxels);
  EXPECT_NE(first.labels.voxels, second.labels.voxels);
  const auto size = static_cast<double>(LabelledVoxels(anatomy->labels));
  EXPECT_NEAR(static_cast<double>(LabelledVoxels(first.labels)), size, 0.5 * size);
  EXPECT_NEAR(static_cast<double>(LabelledVoxels(second.labels)), size, 0.5 * size);
}

TEST_F(AnatomyTest, LabelsFollowTheImage) {
  const auto anatomy = LoadAnatomy(image_, atlas_, {{.name = "ball", .values = {42}}}, 8);
  ASSERT_OK(anatomy);

  const Anatomy patient =
      MakePatient(*anatomy, {.displacement_mm = 2, .spacing_mm = 1}, RandomStream(5, "patient"));

  std::int64_t disagree = 0;
  for (std::size_t i = 0; i < patient.image.voxels.size(); ++i) {
    const bool bright = patient.image.voxels[i] > 55;
    disagree += bright != (patient.labels.voxels[i] == 1) ? 1 : 0;
  }
  // Only on the border, where a voxel is half of each.
  EXPECT_LT(disagree, LabelledVoxels(patient.labels) / 5);
}

}  // namespace
}  // namespace isoscan
