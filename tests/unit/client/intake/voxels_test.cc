#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "client/imaging/image_file.h"
#include "client/imaging/orientation.h"
#include "client/intake/case_sight.h"
#include "client/intake/intake.h"
#include "client/intake/joined_labels.h"
#include "client/intake/mask_advice.h"
#include "common/process/resources.h"
#include "tests/support/peak_memory.h"
#include "tests/unit/client/cohort/cohort_on_disk.h"
#include <omp.h>

namespace isoscan {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::Eq;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Ne;

/// A case of one image and, where given, one label file with labels 1 and 2.
class OneCase {
 public:
  CaseSight Look(const Volume& image) { return Look(image, nullptr, {}); }
  CaseSight Look(const Volume& image, const LabelMap& labels,
                 std::pair<std::string, std::string> names = {"one", "two"}) {
    return Look(image, &labels, std::move(names));
  }

 private:
  CaseSight Look(const Volume& image, const LabelMap* labels,
                 std::pair<std::string, std::string> names) {
    cohort_.Image("image.nii.gz", image);
    ScanFiles files;
    files.name = "case";
    files.images.push_back({.path = cohort_.path() / "image.nii.gz", .channel = "T1w"});
    if (labels != nullptr) {
      cohort_.Labels("labels.nii.gz", *labels);
      ScanFiles::LabelFile& file = files.labels.emplace_back();
      file.path = cohort_.path() / "labels.nii.gz";
      file.names = {{1, names.first}, {2, names.second}};
      file.closed = true;
    }
    CaseSight sight = LookAtHeaders(std::move(files));
    LookAtVoxels(sight);
    return sight;
  }

  CohortOnDisk cohort_;
};

/// The same patient with the axes stored in another order and direction.
template <typename Image>
Image Turned(const Image& image) {
  const Geometry& from = image.geometry;
  Image turned;
  turned.geometry = from;
  turned.geometry.size = {from.size[2], from.size[0], from.size[1]};
  turned.geometry.spacing_mm = {from.spacing_mm[2], from.spacing_mm[0], from.spacing_mm[1]};
  for (std::size_t row = 0; row < 3; ++row) {
    turned.geometry.direction[row] = {-from.direction[row][2], from.direction[row][0],
                                      from.direction[row][1]};
  }
  turned.geometry.origin_mm = PhysicalPoint(from, {0, 0, static_cast<double>(from.size[2] - 1)});
  for (std::int64_t y = 0; y < from.size[1]; ++y) {
    for (std::int64_t x = 0; x < from.size[0]; ++x) {
      for (std::int64_t z = from.size[2] - 1; z >= 0; --z) {
        turned.voxels.push_back(
            image.voxels[static_cast<std::size_t>((z * from.size[1] + y) * from.size[0] + x)]);
      }
    }
  }
  return turned;
}

TEST(LookAtVoxels, SeesTheSameWhateverTheOrderThatVoxelsAreStoredIn) {
  const Geometry grid = ObliqueGeometry({13, 11, 7});
  const Volume image = SmoothVolume(grid);
  const LabelMap labels = BoxLabels(grid);
  OneCase here;

  const CaseSight straight = here.Look(image, labels);
  const CaseSight turned = here.Look(Turned(image), Turned(labels));

  EXPECT_THAT(straight.findings, IsEmpty());
  EXPECT_THAT(turned.findings, IsEmpty());
  EXPECT_NE(straight.images[0].orientation, turned.images[0].orientation);
  EXPECT_EQ(straight.images[0].digest, turned.images[0].digest);
  EXPECT_EQ(straight.label_digest, turned.label_digest);
  EXPECT_THAT(straight.images[0].picture,
              testing::Pointwise(testing::NanSensitiveDoubleNear(1e-9), turned.images[0].picture));
  for (std::size_t label = 0; label < 2; ++label) {
    EXPECT_EQ(straight.labels[label].voxels, turned.labels[label].voxels);
    for (std::size_t axis = 0; axis < 3; ++axis) {
      EXPECT_NEAR(straight.labels[label].centre_mm[axis], turned.labels[label].centre_mm[axis],
                  1e-4);
    }
  }
}

TEST(LookAtVoxels, CountsLabelsInVoxelsAndMillilitres) {
  const Geometry grid = ObliqueGeometry({13, 11, 7});
  const LabelMap labels = BoxLabels(grid);
  const auto ones = std::count(labels.voxels.begin(), labels.voxels.end(), 1);

  const CaseSight sight = OneCase().Look(SmoothVolume(grid), labels);

  ASSERT_EQ(sight.labels.size(), 2u);
  EXPECT_EQ(sight.labels[0].name, "one");
  EXPECT_EQ(sight.labels[0].voxels, ones);
  EXPECT_NEAR(sight.labels[0].millilitres, static_cast<double>(ones) * 0.8 * 1.1 * 2.9 / 1000,
              1e-6);
}

TEST(ReadLabels, PutsThePartOverTheWholeInAnyOrderOfFiles) {
  const Geometry grid = ObliqueGeometry({13, 11, 7});
  LabelMap whole{.geometry = grid, .voxels = std::vector<std::uint8_t>(13 * 11 * 7, 1)};
  LabelMap part{.geometry = grid, .voxels = std::vector<std::uint8_t>(13 * 11 * 7)};
  part.voxels[100] = 1;
  CohortOnDisk cohort;
  cohort.Image("image.nii.gz", SmoothVolume(grid));
  cohort.Labels("whole.nii.gz", whole);
  cohort.Labels("part.nii.gz", part);
  for (const bool part_first : {false, true}) {
    ScanFiles files;
    files.images.push_back({.path = cohort.path() / "image.nii.gz", .channel = "T1w"});
    for (const bool is_part : {part_first, !part_first}) {
      ScanFiles::LabelFile& file = files.labels.emplace_back();
      file.path = cohort.path() / (is_part ? "part.nii.gz" : "whole.nii.gz");
      file.names = {{1, is_part ? "part" : "whole"}};
    }
    CaseSight sight = LookAtHeaders(std::move(files));

    const JoinedLabels joined = ReadLabels(sight, CanonicalGeometry(grid));

    const auto of_part = static_cast<std::uint8_t>(joined.names[0] == "part" ? 1 : 2);
    std::int64_t voxels_of_part = 0;
    std::vector<std::uint8_t> slice;
    for (std::int64_t z = 0; z < grid.size[2]; ++z) {
      joined.slices.Read(z, slice);
      voxels_of_part += std::count(slice.begin(), slice.end(), of_part);
    }
    EXPECT_EQ(voxels_of_part, 1) << part_first;
  }
}

TEST(LookAtVoxels, QuarantinesACaseOfWhichAMaskWouldEraseLabels) {
  const Geometry grid = ObliqueGeometry({13, 11, 7});
  LabelMap mask = BoxLabels(grid);
  CohortOnDisk cohort;
  cohort.Image("image.nii.gz", SmoothVolume(grid));
  cohort.Labels("labels.nii.gz", mask);
  const auto looked_at = [&](bool zero_outside) {
    cohort.Labels("mask.nii.gz", mask);
    ScanFiles files;
    files.images.push_back({.path = cohort.path() / "image.nii.gz", .channel = "T1w"});
    ScanFiles::LabelFile& file = files.labels.emplace_back();
    file.path = cohort.path() / "labels.nii.gz";
    file.names = {{1, "one"}, {2, "two"}};
    files.mask = cohort.path() / "mask.nii.gz";
    files.zero_outside_mask = zero_outside;
    CaseSight sight = LookAtHeaders(std::move(files));
    LookAtVoxels(sight);
    return sight;
  };
  EXPECT_FALSE(looked_at(true).quarantined()) << "the mask holds every label";

  *std::find(mask.voxels.begin(), mask.voxels.end(), 1) = 0;

  EXPECT_FALSE(looked_at(false).quarantined()) << "nothing is erased";
  const CaseSight erased = looked_at(true);
  ASSERT_TRUE(erased.quarantined());
  EXPECT_EQ(erased.findings.back().fault, Fault::kMask);
  EXPECT_THAT(erased.findings.back().reason, HasSubstr("1 labelled voxels lie outside the mask"));
}

TEST(LookAtVoxels, TellsTheDigestOfAnotherVoxelApart) {
  Volume image = SmoothVolume(ObliqueGeometry({9, 8, 7}));
  OneCase here;
  const std::string before = here.Look(image).images[0].digest;
  image.voxels[100] += 0.01f;

  EXPECT_THAT(here.Look(image).images[0].digest, Ne(before));
}

TEST(LookAtHeaders, NamesTheAxesAndHowObliqueTheyAre) {
  const Geometry grid = ObliqueGeometry({5, 5, 5});
  Volume image = NumberedVolume(grid);
  OneCase here;
  const CaseSight oblique = here.Look(image);
  EXPECT_EQ(oblique.images[0].orientation, "LPS");
  EXPECT_THAT(oblique.images[0].oblique_degrees, DoubleNear(15.4, 0.1));

  image.geometry.direction = {{{0, -1, 0}, {0, 0, -1}, {1, 0, 0}}};
  const CaseSight straight = here.Look(image);
  EXPECT_EQ(straight.images[0].orientation, "SRA");
  EXPECT_THAT(straight.images[0].oblique_degrees, DoubleNear(0, 0.05));
}

/// BoxLabels: label 2 has the greater x. In LPS that is the patient's left.
TEST(LookAtVoxels, ComparesTheNamesOfLabelsWithTheSideThatTheyLieOn) {
  Geometry grid;
  grid.size = {12, 10, 8};
  const Volume image = SmoothVolume(grid);
  const LabelMap labels = BoxLabels(grid);
  OneCase here;

  for (const auto& [right, left] :
       std::vector<std::pair<std::string, std::string>>{{"Right-Hippocampus", "Left-Hippocampus"},
                                                        {"hippocampus_R", "hippocampus_L"},
                                                        {"hippocampusRight", "hippocampusLeft"},
                                                        {"rh.cortex", "lh.cortex"}}) {
    EXPECT_THAT(here.Look(image, labels, {right, left}).findings, IsEmpty()) << left;
    const CaseSight wrong = here.Look(image, labels, {left, right});
    ASSERT_EQ(wrong.findings.size(), 1u) << left;
    EXPECT_EQ(wrong.findings[0].fault, Fault::kLeftRight);
    EXPECT_TRUE(wrong.findings[0].quarantines);
  }
  // No pair, no side.
  EXPECT_THAT(here.Look(image, labels, {"left_lung", "right_kidney"}).findings, IsEmpty());
  EXPECT_THAT(here.Look(image, labels, {"lesion", "rim"}).findings, IsEmpty());
}

Volume BallInAir(float air_noise) {
  Geometry grid;
  grid.size = {40, 40, 40};
  Volume volume{.geometry = grid, .voxels = {}};
  for (int i = 0; i < 64000; ++i) {
    const double r = std::hypot(i % 40 - 20, i / 40 % 40 - 20, i / 1600 - 20);
    const float noise = air_noise * static_cast<float>(i * 7919 % 101) / 101;
    volume.voxels.push_back(r < 15 ? 100.0f + static_cast<float>(i % 13) : noise);
  }
  return volume;
}

TEST(LookAtVoxels, TellsCropsHeadsInAirAndStrippedOnesApart) {
  Geometry grid;
  grid.size = {20, 20, 20};
  OneCase here;

  EXPECT_EQ(here.Look(SmoothVolume(grid)).images[0].extent, Extent::kCrop);
  EXPECT_EQ(here.Look(BallInAir(/*air_noise=*/6)).images[0].extent, Extent::kInAir);
  EXPECT_EQ(here.Look(BallInAir(/*air_noise=*/0)).images[0].extent, Extent::kSkullStripped);
}

TEST(AdviseMask, FollowsWhatTheMasksHoldOfTheLabels) {
  const Volume ball = BallInAir(/*air_noise=*/6);
  LabelMap inside{.geometry = ball.geometry, .voxels = {}};
  LabelMap outside = inside;
  for (int i = 0; i < 64000; ++i) {
    const double r = std::hypot(i % 40 - 20, i / 40 % 40 - 20, i / 1600 - 20);
    inside.voxels.push_back(r < 5 ? 1 : 0);
    outside.voxels.push_back(r > 17 && r < 19 ? 1 : 0);
  }
  OneCase here;

  const CaseSight held = here.Look(ball, inside);
  ASSERT_TRUE(held.otsu.has_value());
  EXPECT_EQ(held.otsu->labelled, 1);
  EXPECT_THAT(held.otsu->all, DoubleNear(0.22, 0.02));
  EXPECT_EQ(AdviseMask({&held}).mask, "otsu");
  CaseSight partly = held;
  partly.otsu->labelled = 0.9;
  EXPECT_EQ(AdviseMask({&partly}).mask, "threshold") << "otsu cuts a tenth of the labels";
  partly.threshold->labelled = 0.9;
  EXPECT_EQ(AdviseMask({&partly}).mask, "whole");
  const CaseSight cut = here.Look(ball, outside);
  EXPECT_EQ(cut.otsu->labelled, 0);
  EXPECT_EQ(AdviseMask({&cut}).mask, "whole");
}

// A program's 174 MB, of which 115 are libraries, leave 335 MB of the mark for this case (1.3 times
// its its own size and 100 MB), and the volume itself is 315.
TEST(SlowLookAtVoxels, TakesOneVolumesMemoryForALargeCaseWithLabels) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizer's own memory counts";
#endif
  constexpr double kLimitBytes = 337e6;
  const CohortOnDisk cohort;
  ScanFiles files;
  files.name = "large";
  files.images.push_back({.path = cohort.path() / "image.nii", .channel = "T1w"});
  files.labels.emplace_back().path = cohort.path() / "labels.nii.gz";
  {
    Volume image;
    image.geometry.size = {512, 512, 300};
    image.voxels.reserve(static_cast<std::size_t>(image.geometry.voxels()));
    LabelMap labels{.geometry = image.geometry, .voxels = {}};
    labels.voxels.reserve(image.voxels.capacity());
    for (std::int64_t i = 0; i < image.geometry.voxels(); ++i) {
      const std::int64_t x = i % 512 - 256;
      const std::int64_t y = i / 512 % 512 - 256;
      const std::int64_t z = i / (512 * 512) - 150;
      const std::int64_t square = x * x + y * y + 3 * z * z;
      const auto noise = static_cast<float>(i * 7919 % 101) / 101;
      image.voxels.push_back(square < 240 * 240 ? 100.0f + 20 * noise : 6 * noise);
      labels.voxels.push_back(square < 100 * 100 ? static_cast<std::uint8_t>(1 + (x & 31) / 8) : 0);
    }
    cohort.Image("image.nii", image);
    cohort.Labels("labels.nii.gz", labels);
  }
  const auto look = [&files](bool voxels) {
    omp_set_num_threads(1);  // Other threads of the pool did not come along with fork().
    GiveFreedMemoryBack();
    CaseSight sight = LookAtHeaders(files);
    if (!voxels) return sight.findings.empty();
    LookAtVoxels(sight);
    return sight.findings.empty() && sight.labels.size() == 4 && sight.otsu.has_value();
  };

  const std::int64_t before = PeakMemoryOf([&look] { return look(/*voxels=*/false); });
  const std::int64_t peak = PeakMemoryOf([&look] { return look(/*voxels=*/true); });

  EXPECT_GT(before, 0);
  EXPECT_GT(peak, 0);
  EXPECT_LT(static_cast<double>(peak - before), kLimitBytes);
  RecordProperty("bytes", std::to_string(peak - before));
}

TEST(InspectVoxels, NeverTakesMoreThanItsBudgetAndNamesWhatIsTooLarge) {
  OneCase here;
  std::vector<CaseSight> sights;
  sights.push_back(here.Look(SmoothVolume(ObliqueGeometry({9, 8, 7}))));
  sights.push_back(sights.front());
  sights[1].bytes = std::int64_t{1} << 50;

  const ReadingPlan plan = PlanReading(sights, /*threads=*/4, std::int64_t{1} << 40);
  ASSERT_OK(InspectVoxels(sights, plan, {}, [](std::int64_t, std::int64_t) {}));

  EXPECT_EQ(plan.threads, 2);
  EXPECT_EQ(plan.bytes, 2 * sights[0].bytes);
  EXPECT_THAT(sights[0].findings, IsEmpty());
  ASSERT_EQ(sights[1].findings.size(), 1u);
  EXPECT_EQ(sights[1].findings[0].fault, Fault::kMemory);
  EXPECT_THAT(sights[1].findings[0].reason, HasSubstr("takes 1048576.0 GiB"));
  EXPECT_THAT(sights[1].findings[0].reason, HasSubstr("1024.0 GiB can be had"));
}

TEST(InspectVoxels, StopsWhenItIsAskedTo) {
  std::vector<CaseSight> sights(1);
  std::stop_source stop;
  stop.request_stop();

  EXPECT_THAT(InspectVoxels(sights, {}, stop.get_token(), [](std::int64_t, std::int64_t) {}),
              StatusIs(absl::StatusCode::kCancelled));
}

}  // namespace
}  // namespace isoscan
