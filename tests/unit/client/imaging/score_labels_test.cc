#include "client/imaging/score_labels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "client/imaging/resampling.h"
#include "tests/unit/client/imaging/phantom.h"
#include <omp.h>

namespace isoscan {
namespace {

using ::testing::ElementsAre;

constexpr std::int64_t kClasses = 4;

/// One volume per class, none of which is greatest everywhere.
std::vector<Volume> ScoresOn(const Geometry& grid) {
  std::vector<Volume> scores;
  for (std::int64_t label = 0; label < kClasses; ++label) {
    Volume& score = scores.emplace_back(SmoothVolume(grid));
    for (float& voxel : score.voxels) {
      voxel = std::sin(voxel * static_cast<float>(label + 1) * 0.05f);
    }
  }
  return scores;
}

std::vector<float> Joined(const std::vector<Volume>& scores) {
  std::vector<float> joined;
  for (const Volume& score : scores) {
    joined.insert(joined.end(), score.voxels.begin(), score.voxels.end());
  }
  return joined;
}

/// Coarser and finer along each axis, the grid itself, and a part of it that begins elsewhere.
std::vector<Geometry> Targets(const Geometry& from) {
  std::vector<Geometry> targets{from, WithSpacing(from, {0.5, 1.7, 1.1}),
                                WithSpacing(from, {2.1, 0.6, 7.3}), WithSpacing(from, {0, 0, 0.9})};
  Geometry& part = targets.emplace_back(from);
  part.size = {7, 5, 3};
  part.origin_mm = PhysicalPoint(from, {1.3, 2.4, 1.6});
  return targets;
}

TEST(ScoreLabels, AreTheGreatestOfTheClassesResampledAsAWhole) {
  const Geometry from = ObliqueGeometry({12, 10, 6});
  const std::vector<Volume> scores = ScoresOn(from);
  for (const Geometry& to : Targets(from)) {
    const LabelMap labels = ArgMaxResampled(Joined(scores), kClasses, from, to);

    std::vector<Volume> resampled;
    for (const Volume& score : scores) {
      resampled.push_back(Resample(score, to, ImageInterpolation::kLinear));
    }
    ASSERT_EQ(labels.geometry, to);
    std::array<std::int64_t, kClasses> voxels{};
    for (std::size_t i = 0; i < labels.voxels.size(); ++i) {
      std::uint8_t greatest = 0;
      for (std::uint8_t label = 1; label < kClasses; ++label) {
        if (resampled[label].voxels[i] > resampled[greatest].voxels[i]) greatest = label;
      }
      ++voxels[greatest];
      ASSERT_EQ(labels.voxels[i], greatest) << "voxel " << i;
    }
    EXPECT_GE(std::count_if(voxels.begin(), voxels.end(), [](auto count) { return count > 0; }), 2)
        << "the test would be trivial";
  }
}

TEST(ScoreLabels, AreTheSameForEveryNumberOfThreads) {
  const Geometry from = ObliqueGeometry({80, 70, 9});
  const Geometry to = WithSpacing(from, {0.7, 0.9, 1.3});
  const std::vector<float> scores = Joined(ScoresOn(from));
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const LabelMap one = ArgMaxResampled(scores, kClasses, from, to);
  omp_set_num_threads(3);
  const LabelMap three = ArgMaxResampled(scores, kClasses, from, to);
  omp_set_num_threads(threads);

  EXPECT_EQ(one.voxels, three.voxels);
}

TEST(ScoreLabels, GiveATieToTheLowerLabel) {
  Geometry voxel;
  voxel.size = {1, 1, 1};

  EXPECT_THAT(ArgMaxResampled({0.5f, 0.5f, 0.1f}, 3, voxel, voxel).voxels, ElementsAre(0));
  EXPECT_THAT(ArgMaxResampled({0.1f, 0.5f, 0.5f}, 3, voxel, voxel).voxels, ElementsAre(1));
}

}  // namespace
}  // namespace isoscan
