#include "client/simulation/tissue_maps.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <limits>

#include "client/imaging/image_file.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using ::testing::HasSubstr;

constexpr Geometry kGrid{.size = {6, 5, 4}};

Volume Filled(float value) { return {.geometry = kGrid, .voxels = std::vector<float>(120, value)}; }

TEST(HeadClasses, SharesGiveTheIntensityBack) {
  const HeadClasses classes{.brain = {50, 85, 110}, .outside = {3, 64, 137}};
  for (float intensity = 50; intensity <= 110; ++intensity) {
    const TissueShares shares = classes.SharesOf(intensity, true);

    EXPECT_NEAR(50 * shares[0] + 85 * shares[1] + 110 * shares[2], intensity, 1e-4);
    EXPECT_NEAR(shares[0] + shares[1] + shares[2], 1, 1e-6);
    // Classes that do not touch in intensity never mix.
    EXPECT_EQ(shares[0] * shares[2], 0);
  }
  EXPECT_EQ(classes.SharesOf(20, true)[IndexOf(Tissue::kCsf)], 1);
  EXPECT_EQ(classes.SharesOf(200, true)[IndexOf(Tissue::kWhite)], 1);
  EXPECT_EQ(classes.SharesOf(64, false)[IndexOf(Tissue::kMuscle)], 1);
  EXPECT_EQ(classes.SharesOf(1, false), TissueShares{});  // Air.
}

TEST(ClassifyHead, FindsTheTissuesOfAHead) {
  Volume head = Filled(0);
  Volume brain = Filled(0);
  const float intensities[] = {40, 80, 120, 2, 60, 200};
  for (std::size_t i = 0; i < 120; ++i) {
    head.voxels[i] = intensities[i % 6] + static_cast<float>(i % 2);
    brain.voxels[i] = i % 6 < 3 ? 1.0F : 0.0F;
  }

  const auto classes = ClassifyHead(head, brain);

  ASSERT_OK(classes);
  EXPECT_NEAR(classes->brain[0], 40, 1.5);
  EXPECT_NEAR(classes->brain[1], 81, 1.5);
  EXPECT_NEAR(classes->brain[2], 120, 1.5);
  EXPECT_NEAR(classes->outside[0], 3, 1.5);
  EXPECT_NEAR(classes->outside[2], 201, 1.5);
}

TEST(ClassifyHead, FindsTheTissuesOfTheDefaultHead) {
  const std::filesystem::path folder = "/usr/share/mricron/templates";
  if (!std::filesystem::exists(folder / "ch2.nii.gz")) GTEST_SKIP() << "needs mricron-data";
  ASSERT_OK_AND_ASSIGN(const Volume head, ReadVolume(folder / "ch2.nii.gz"));
  ASSERT_OK_AND_ASSIGN(const Volume brain, ReadVolume(folder / "ch2bet.nii.gz"));

  ASSERT_OK_AND_ASSIGN(const HeadClasses classes, ClassifyHead(head, brain));

  EXPECT_NEAR(classes.brain[0], 52, 0.5);
  EXPECT_NEAR(classes.brain[1], 85, 0.5);
  EXPECT_NEAR(classes.brain[2], 110, 0.5);
  std::array<double, 3> volumes{};
  double voxels = 0;
  for (std::size_t i = 0; i < head.voxels.size(); ++i) {
    if (brain.voxels[i] <= 0) continue;
    const TissueShares shares = classes.SharesOf(head.voxels[i], true);
    for (std::size_t tissue = 0; tissue < 3; ++tissue) {
      volumes[tissue] += static_cast<double>(shares[tissue]);
    }
    ++voxels;
  }
  EXPECT_NEAR(volumes[0] / voxels, 0.13, 0.005);
  EXPECT_NEAR(volumes[1] / voxels, 0.45, 0.005);
  EXPECT_NEAR(volumes[2] / voxels, 0.42, 0.005);
}

TEST(ClassifyHead, RefusesABrainWithoutTissues) {
  EXPECT_THAT(ClassifyHead(Filled(7), Filled(1)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("inside the brain")));
}

TEST(ReadTissue, ReadsLabelsAsBidsNumbersThem) {
  const TemporaryDirectory folder;
  LabelMap labels{.geometry = kGrid, .voxels = std::vector<std::uint8_t>(120)};
  for (std::size_t i = 0; i < 12; ++i) labels.voxels[i] = static_cast<std::uint8_t>(i);
  ASSERT_OK(WriteLabelMap(folder.path() / "dseg.nii", labels));

  const auto tissue = ReadTissue({(folder.path() / "dseg.nii").string()}, kGrid);

  ASSERT_OK(tissue);
  EXPECT_EQ(tissue->at(0), TissueShares{});
  EXPECT_EQ(tissue->at(1)[IndexOf(Tissue::kGrey)], 1);
  EXPECT_EQ(tissue->at(2)[IndexOf(Tissue::kWhite)], 1);
  EXPECT_EQ(tissue->at(3)[IndexOf(Tissue::kCsf)], 1);
  EXPECT_EQ(tissue->at(4), TissueShares{});  // Bone.
  EXPECT_EQ(tissue->at(7)[IndexOf(Tissue::kLesion)], 1);
  EXPECT_EQ(tissue->at(11)[IndexOf(Tissue::kGrey)], 1);  // Cerebellum.
}

TEST(ReadTissue, ReadsMapsAndNeverFillsAVoxelTwice) {
  const TemporaryDirectory folder;
  Volume grey = Filled(0.6F);
  grey.voxels[1] = std::numeric_limits<float>::quiet_NaN();
  ASSERT_OK(WriteVolume(folder.path() / "gm.nii", grey));
  ASSERT_OK(WriteVolume(folder.path() / "wm.nii", Filled(0.9F)));
  const std::string gm = "grey=" + (folder.path() / "gm.nii").string();
  const std::string wm = "white=" + (folder.path() / "wm.nii").string();

  const auto tissue = ReadTissue({gm, wm}, kGrid);

  ASSERT_OK(tissue);
  EXPECT_NEAR(tissue->at(0)[IndexOf(Tissue::kGrey)], 0.4, 1e-6);
  EXPECT_NEAR(tissue->at(0)[IndexOf(Tissue::kWhite)], 0.6, 1e-6);
  EXPECT_NEAR(tissue->at(1)[IndexOf(Tissue::kWhite)], 0.9, 1e-6);
  EXPECT_THAT(ReadTissue({"bone=" + wm}, kGrid),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("csf, grey, white")));
  EXPECT_THAT(ReadTissue({gm, wm}, {.size = {5, 6, 4}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("another grid")));
}

}  // namespace
}  // namespace isoscan
