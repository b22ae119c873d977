#include "client/training/patch_sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "client/training/patch_loader.h"

namespace isoscan {
namespace {

Study SmallStudy() {
  Study study;
  study.seed = 3;
  study.channels = {"T1w"};
  study.labels = {"a", "b"};
  study.training.patch_size = {4, 6, 8};
  study.training.batch_size = 3;
  study.training.intensity_augmentation = 0;
  return study;
}

/// Voxel (z, y, x) holds 1 + its number, so that every value tells where it came from.
PreparedCase NumberedCase(std::int64_t depth, std::int64_t height, std::int64_t width) {
  PreparedCase numbered;
  numbered.grid.size = {width, height, depth};
  const auto voxels = static_cast<std::size_t>(numbered.grid.voxels());
  std::vector<float> image(voxels);
  std::iota(image.begin(), image.end(), 1.0F);
  numbered.image = std::move(image);
  numbered.labels = std::vector<std::uint8_t>(voxels);
  return numbered;
}

std::size_t Voxels(const Triple& patch) {
  return static_cast<std::size_t>(patch[0] * patch[1] * patch[2]);
}

TEST(PatchSampler, GivesTheSameBatchForTheSameStepWhoeverAsksAndWhen) {
  Study study = SmallStudy();
  study.training.intensity_augmentation = 1;
  study.training.mirror_axes = {0, 1, 2};
  const std::vector<PreparedCase> cases{NumberedCase(9, 10, 11), NumberedCase(5, 7, 8)};
  const PatchSampler first(study, cases, "st-marys", 2);
  const PatchSampler second(study, cases, "st-marys", 2);

  for (std::int64_t step = 0; step < 5; ++step) first.Sample(step);

  EXPECT_EQ(first.Sample(7).images, second.Sample(7).images);
  EXPECT_NE(first.Sample(7).images, first.Sample(8).images);
  EXPECT_NE(first.Sample(7).images, PatchSampler(study, cases, "st-marys", 3).Sample(7).images);
  EXPECT_NE(first.Sample(7).images, PatchSampler(study, cases, "guys", 2).Sample(7).images);
}

TEST(PatchSampler, GivesPartsOfABatchAsTheyAreInTheWhole) {
  Study study = SmallStudy();
  study.training.batch_size = 7;
  study.training.intensity_augmentation = 1;
  const std::vector<PreparedCase> cases{NumberedCase(9, 10, 11), NumberedCase(5, 7, 8)};
  const PatchSampler sampler(study, cases, "st-marys", 2);
  const PatchBatch whole = sampler.Sample(3);

  for (const int ranks : {1, 2, 3, 7}) {
    PatchBatch joined;
    std::int64_t next = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const PatchRange part = PartOfBatch(7, rank, ranks);
      EXPECT_EQ(part.first, next);
      EXPECT_GE(part.count, 7 / ranks);
      next += part.count;
      const PatchBatch patches = sampler.Sample(3, part);
      joined.images.insert(joined.images.end(), patches.images.begin(), patches.images.end());
      joined.labels.insert(joined.labels.end(), patches.labels.begin(), patches.labels.end());
    }
    EXPECT_EQ(joined.images, whole.images) << ranks;
    EXPECT_EQ(joined.labels, whole.labels) << ranks;
  }
}

TEST(PatchSampler, CutsConnectedPartsOfACase) {
  const Study study = SmallStudy();
  const std::vector<PreparedCase> cases{NumberedCase(9, 10, 11)};
  const PatchSampler sampler(study, cases, "st-marys", 1);
  std::set<float> corners;

  for (std::int64_t step = 0; step < 2000; ++step) {
    const PatchBatch batch = sampler.Sample(step);
    const float corner = batch.images.front();
    corners.insert(corner);
    for (std::int64_t z = 0; z < 4; ++z) {
      for (std::int64_t y = 0; y < 6; ++y) {
        for (std::int64_t x = 0; x < 8; ++x) {
          ASSERT_EQ(batch.images[static_cast<std::size_t>((z * 6 + y) * 8 + x)],
                    corner + static_cast<float>((z * 10 + y) * 11 + x));
        }
      }
    }
  }
  EXPECT_EQ(corners.size(), std::size_t{6 * 5 * 4});  // every place comes up
}

TEST(PatchSampler, SurroundsASmallCaseWithZeros) {
  const Study study = SmallStudy();
  const std::vector<PreparedCase> cases{NumberedCase(3, 6, 5)};
  const PatchSampler sampler(study, cases, "st-marys", 1);

  const PatchBatch batch = sampler.Sample(0);

  const auto inside = std::count_if(batch.images.begin(), batch.images.end(),
                                    [](float value) { return value != 0; });
  EXPECT_EQ(inside, 3 * 3 * 6 * 5);  // the whole case in each of three patches
}

TEST(PatchSampler, CentresTheForcedPatchesOnALabel) {
  Study study = SmallStudy();
  study.training.foreground_fraction = 0.33;
  PreparedCase one_voxel = NumberedCase(40, 40, 40);
  std::vector<std::uint8_t> labels(one_voxel.labels.size());
  labels[static_cast<std::size_t>((20 * 40 + 21) * 40 + 22)] = 2;
  one_voxel.labels = std::move(labels);
  const std::vector<PreparedCase> cases{one_voxel};
  const PatchSampler sampler(study, cases, "st-marys", 1);
  const std::size_t voxels = Voxels(study.training.patch_size);
  const std::size_t centre = (2 * 6 + 3) * 8 + 4;

  int by_chance = 0;
  for (std::int64_t step = 0; step < 20; ++step) {
    const PatchBatch batch = sampler.Sample(step);
    EXPECT_EQ(batch.labels[2 * voxels + centre], 2);
    by_chance += static_cast<int>(std::count(
        batch.labels.begin(), batch.labels.begin() + 2 * static_cast<std::ptrdiff_t>(voxels), 2));
  }
  EXPECT_LT(by_chance, 5);
}

TEST(PatchSampler, CentresASinglePatchOnALabelAsOftenAsThePlanSays) {
  Study study = SmallStudy();
  study.training.batch_size = 1;
  study.training.foreground_fraction = 0.5;
  PreparedCase one_voxel = NumberedCase(40, 40, 40);
  std::vector<std::uint8_t> labels(one_voxel.labels.size());
  labels[32'000] = 1;
  one_voxel.labels = std::move(labels);
  const std::vector<PreparedCase> cases{one_voxel};
  const PatchSampler sampler(study, cases, "st-marys", 1);

  int hits = 0;
  for (std::int64_t step = 0; step < 400; ++step) {
    const PatchBatch batch = sampler.Sample(step);
    hits += static_cast<int>(std::count(batch.labels.begin(), batch.labels.end(), 1));
  }
  EXPECT_NEAR(hits / 400.0, 0.5, 0.1);
}

TEST(PatchSampler, MirrorsImageAndLabelsTogetherOnTheDeclaredAxesOnly) {
  Study study = SmallStudy();
  study.training.patch_size = {4, 6, 8};
  study.training.mirror_axes = {1, 2};
  PreparedCase whole = NumberedCase(4, 6, 8);
  std::vector<std::uint8_t> labels(whole.labels.size());
  for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::uint8_t>(i % 3);
  whole.labels = std::move(labels);
  const std::vector<PreparedCase> cases{whole};
  const PatchSampler sampler(study, cases, "st-marys", 1);

  std::set<float> corners;
  for (std::int64_t step = 0; step < 40; ++step) {
    const PatchBatch batch = sampler.Sample(step);
    corners.insert(batch.images.front());
    for (std::size_t i = 0; i < batch.labels.size(); ++i) {
      ASSERT_EQ(batch.labels[i], static_cast<int>(batch.images[i] - 1) % 3);
    }
  }
  EXPECT_EQ(corners, (std::set<float>{1, 8, 41, 48}));
}

TEST(PatchSampler, TurnsAndScalesPatchesAboutTheSamePlaceOnlyAsNnunetDoes) {
  Study study = SmallStudy();
  study.training.intensity_augmentation = 0;
  const std::vector<PreparedCase> cases{NumberedCase(30, 30, 30)};
  const PatchSampler plain(study, cases, "st-marys", 1);
  study.training.augmentation = TrainingPlan::Augmentation::kNnunet;
  const PatchSampler nnunet(study, cases, "st-marys", 1);
  const std::size_t voxels = Voxels(study.training.patch_size);

  int changed = 0;
  int compared = 0;
  for (std::int64_t step = 0; step < 100; ++step) {
    const PatchBatch before = plain.Sample(step);
    const PatchBatch after = nnunet.Sample(step);
    for (std::size_t first = 0; first < before.images.size(); first += voxels) {
      const std::span<const float> left(before.images.data() + first, voxels);
      const std::span<const float> right(after.images.data() + first, voxels);
      if (std::ranges::equal(left, right)) continue;
      ++changed;
      // Numbers rise evenly, so the mean is that of the place, unless the turned patch reaches
      // beyond the case.
      const auto corner = static_cast<std::int64_t>(left.front()) - 1;
      const std::array<std::int64_t, 3> middle{corner / 900 + 2, corner / 30 % 30 + 3,
                                               corner % 30 + 4};
      if (std::ranges::any_of(middle, [](std::int64_t at) { return at < 9 || at > 20; })) continue;
      ++compared;
      const auto mean = [](std::span<const float> values) {
        double sum = 0;
        for (const float value : values) sum += value;
        return sum / static_cast<double>(values.size());
      };
      EXPECT_NEAR(mean(left), mean(right), 1);
    }
  }
  EXPECT_NEAR(changed / 300.0, 0.36, 0.1);
  EXPECT_GT(compared, 5);
}

TEST(PatchSampler, MirrorsATurnedPatchAsAWhole) {
  Study study = SmallStudy();
  study.training.augmentation = TrainingPlan::Augmentation::kNnunet;
  const std::vector<PreparedCase> cases{NumberedCase(12, 14, 16)};
  const PatchSampler plain(study, cases, "st-marys", 1);
  study.training.mirror_axes = {2};
  const PatchSampler mirrored(study, cases, "st-marys", 1);
  const auto width = static_cast<std::ptrdiff_t>(study.training.patch_size[2]);

  int turned_round = 0;
  for (std::int64_t step = 0; step < 60; ++step) {
    const std::vector<float> before = plain.Sample(step).images;
    const std::vector<float> after = mirrored.Sample(step).images;
    for (auto row = before.begin(); row < before.end(); row += width) {
      std::vector<float> reversed(row, row + width);
      std::ranges::reverse(reversed);
      const auto other = after.begin() + (row - before.begin());
      const auto close = [](float left, float right) { return std::abs(left - right) < 0.01F; };
      const bool same = std::equal(row, row + width, other, close);
      const bool other_way = std::equal(reversed.begin(), reversed.end(), other, close);
      ASSERT_TRUE(same || other_way);
      turned_round += other_way && !same ? 1 : 0;
    }
  }
  EXPECT_GT(turned_round, 0);
}

TEST(PatchLoader, GivesTheBatchOfEachStepHoweverManyAreMadeAhead) {
  Study study = SmallStudy();
  study.training.intensity_augmentation = 1;
  study.training.augmentation = TrainingPlan::Augmentation::kNnunet;
  const std::vector<PreparedCase> cases{NumberedCase(9, 10, 11), NumberedCase(5, 7, 8)};
  const PatchSampler sampler(study, cases, "st-marys", 2);

  const auto make = [&](std::int64_t step) { return sampler.Sample(step); };
  for (const std::int64_t ahead : {1, 3, 20}) {
    PatchLoader<PatchBatch> loader(make, 5, 15, ahead);
    for (std::int64_t step = 5; step < 15; ++step) {
      EXPECT_EQ(loader.Next().images, sampler.Sample(step).images) << step;
    }
  }
  // One that is not emptied ends, too.
  PatchLoader<PatchBatch> unused(make, 0, 1000, 4);
}

TEST(BatchesAhead, KeepsToItsMemoryButForOneBatch) {
  Study study = SmallStudy();
  EXPECT_EQ(BatchesAhead(study), 4);
  study.training.patch_size = {256, 256, 256};
  study.training.batch_size = 4;  // 320 MiB
  EXPECT_EQ(BatchesAhead(study), 3);
  study.training.batch_size = 64;
  EXPECT_EQ(BatchesAhead(study), 1);
}

TEST(PatchSampler, MirrorsTheZerosAroundASmallCaseToo) {
  Study study = SmallStudy();
  study.training.mirror_axes = {2};
  const std::vector<PreparedCase> cases{NumberedCase(4, 6, 5)};
  const PatchSampler sampler(study, cases, "st-marys", 1);

  std::set<std::vector<float>> rows;
  for (std::int64_t step = 0; step < 20; ++step) {
    const PatchBatch batch = sampler.Sample(step);
    rows.insert({batch.images.begin(), batch.images.begin() + 8});
  }
  EXPECT_EQ(rows,
            (std::set<std::vector<float>>{{0, 1, 2, 3, 4, 5, 0, 0}, {0, 0, 5, 4, 3, 2, 1, 0}}));
}

}  // namespace
}  // namespace isoscan
