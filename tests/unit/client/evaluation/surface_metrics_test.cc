#include "client/evaluation/surface_metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "client/evaluation/label_extents.h"
#include "client/evaluation/nearest_points.h"
#include "client/evaluation/surface_areas.h"
#include "tests/unit/client/evaluation/masks.h"
#include <omp.h>

namespace isoscan {
namespace {

constexpr SurfaceDefinition kDefinitions[] = {SurfaceDefinition::kElements,
                                              SurfaceDefinition::kVoxels};

void ExpectSame(const LabelScore& score, const LabelScore& expected) {
  EXPECT_EQ(score.hd_mm, expected.hd_mm);
  EXPECT_EQ(score.hd95_mm, expected.hd95_mm);
  EXPECT_EQ(score.assd_mm, expected.assd_mm);
  EXPECT_EQ(score.nsd, expected.nsd);
}

TEST(SurfaceMetrics, OfEqualMasksArePerfect) {
  LabelMap labels = EmptyMap({20, 18, 16}, {1, 0.5, 3});
  Fill(labels, {3, 4, 5}, {9, 12, 11}, 1);
  for (const SurfaceDefinition definition : kDefinitions) {
    const LabelScore score = ScoreLabels(labels, labels, 1, {.definition = definition})[0];
    EXPECT_EQ(score.outcome(), ScoreOutcome::kScored);
    EXPECT_EQ(score.hd_mm, 0);
    EXPECT_EQ(score.hd95_mm, 0);
    EXPECT_EQ(score.assd_mm, 0);
    EXPECT_EQ(score.nsd, std::vector<double>{1});
    EXPECT_EQ(score.volume_error_ml(), 0);
  }
}

// docs/evaluation.md: the worst value for a miss and a false alarm, and no value for nothing.
TEST(SurfaceMetrics, OfAMissAndAFalseAlarmAreTheWorstThereAre) {
  const LabelMap nothing = EmptyMap({30, 40, 10}, {1, 1, 5});
  LabelMap something = nothing;
  Fill(something, {1, 1, 1}, {3, 3, 3}, 2);
  const double diagonal = std::sqrt(30 * 30 + 40 * 40 + 50 * 50);
  for (const SurfaceDefinition definition : kDefinitions) {
    const SurfaceOptions options{.definition = definition, .tolerances_mm = {1, 100}};
    const LabelScore miss = ScoreLabels(something, nothing, 2, options)[1];
    EXPECT_EQ(miss.outcome(), ScoreOutcome::kMiss);
    EXPECT_EQ(miss.dice(), 0);
    EXPECT_DOUBLE_EQ(miss.hd_mm, diagonal);
    EXPECT_DOUBLE_EQ(miss.hd95_mm, diagonal);
    EXPECT_DOUBLE_EQ(miss.assd_mm, diagonal);
    EXPECT_EQ(miss.nsd, (std::vector<double>{0, 0}));
    EXPECT_DOUBLE_EQ(miss.volume_error_ml(), -0.04);
    EXPECT_DOUBLE_EQ(miss.relative_volume_error(), -1);

    const LabelScore alarm = ScoreLabels(nothing, something, 2, options)[1];
    EXPECT_EQ(alarm.outcome(), ScoreOutcome::kFalseAlarm);
    EXPECT_DOUBLE_EQ(alarm.hd95_mm, diagonal);
    EXPECT_EQ(alarm.nsd, (std::vector<double>{0, 0}));
    EXPECT_DOUBLE_EQ(alarm.volume_error_ml(), 0.04);
    EXPECT_TRUE(std::isnan(alarm.relative_volume_error()));

    const LabelScore nowhere = ScoreLabels(something, something, 2, options)[0];
    EXPECT_EQ(nowhere.outcome(), ScoreOutcome::kBothEmpty);
    EXPECT_TRUE(std::isnan(nowhere.dice()));
    EXPECT_TRUE(std::isnan(nowhere.hd95_mm));
    EXPECT_TRUE(std::isnan(nowhere.nsd[0]));
    EXPECT_TRUE(std::isnan(nowhere.volume_error_ml()));
  }
}

// As in the fairness report; its distances are what they are.
TEST(SurfaceMetrics, OfAPredictionThatLiesElsewhereAreMeasuredThoughItIsAMiss) {
  LabelMap reference = EmptyMap({30, 12, 12});
  LabelMap predicted = reference;
  Fill(reference, {2, 4, 4}, {6, 8, 8}, 1);
  Fill(predicted, {12, 4, 4}, {16, 8, 8}, 1);
  for (const SurfaceDefinition definition : kDefinitions) {
    const LabelScore score = ScoreLabels(reference, predicted, 1, {.definition = definition})[0];
    EXPECT_EQ(score.outcome(), ScoreOutcome::kMiss);
    EXPECT_TRUE(score.measured());
    EXPECT_EQ(score.hd_mm, 10);
    EXPECT_EQ(score.nsd, std::vector<double>{0});
  }
}

TEST(SurfaceMetrics, DoNotDependOnWhichMaskIsTheReference) {
  RandomStream random(3, "symmetry");
  const LabelMap left = RandomBoxes({40, 30, 20}, {0.8, 1, 2}, 4, 1, random);
  const LabelMap right = RandomBoxes({40, 30, 20}, {0.8, 1, 2}, 4, 1, random);
  for (const SurfaceDefinition definition : kDefinitions) {
    const SurfaceOptions options{.definition = definition, .tolerances_mm = {0.5, 1, 4}};
    ExpectSame(ScoreLabels(left, right, 1, options)[0], ScoreLabels(right, left, 1, options)[0]);
  }
}

// Against a sort of all distances, where they are many and lie close to each other.
TEST(SurfaceMetrics, TakeThePercentileOfTheArea) {
  RandomStream random(7, "percentile");
  const std::array<double, 3> spacing_mm{0.83, 1.17, 2.31};
  for (int turn = 0; turn < 20; ++turn) {
    LabelMap left = RandomBoxes({90, 50, 40}, spacing_mm, 2, 1, random);
    LabelMap right = RandomBoxes({90, 50, 40}, spacing_mm, 2, 1, random);
    const VoxelBox box = FindExtents(left, right)[1].box;
    const NearestPoints nearest(spacing_mm);
    std::array<Surface, 2> surfaces{
        SurfaceOf(VoxelsOf(left, 1, box), SurfaceDefinition::kElements, nearest.margin()),
        SurfaceOf(VoxelsOf(right, 1, box), SurfaceDefinition::kElements, nearest.margin())};
    const std::array<double, 256> areas = SurfaceAreas(spacing_mm);
    double expected = 0;
    for (std::size_t side = 0; side < 2; ++side) {
      const std::vector<double> squared_mm =
          nearest.SquaredDistances(surfaces[side], surfaces[1 - side]);
      std::vector<std::pair<double, double>> sorted;
      double area = 0;
      for (std::size_t i = 0; i < squared_mm.size(); ++i) {
        sorted.emplace_back(squared_mm[i], areas[surfaces[side].points[i].code]);
        area += sorted.back().second;
      }
      std::sort(sorted.begin(), sorted.end());
      double below = 0;
      std::size_t i = 0;
      while (below + sorted[i].second < 0.95 * area) below += sorted[i++].second;
      expected = std::max(expected, std::sqrt(sorted[i].first));
    }
    EXPECT_EQ(ScoreLabels(left, right, 1)[0].hd95_mm, expected);
  }
}

TEST(SurfaceMetrics, GrowWithTheSpacing) {
  RandomStream random(4, "scale");
  LabelMap left = RandomBoxes({40, 30, 20}, {0.8, 1, 2}, 4, 1, random);
  const LabelMap right = RandomBoxes({40, 30, 20}, {0.8, 1, 2}, 4, 1, random);
  const LabelScore small = ScoreLabels(left, right, 1, {.tolerances_mm = {1.3}})[0];
  for (double& mm : left.geometry.spacing_mm) mm *= 4;
  const LabelScore large = ScoreLabels(left, right, 1, {.tolerances_mm = {5.2}})[0];

  EXPECT_DOUBLE_EQ(large.hd_mm, 4 * small.hd_mm);
  EXPECT_DOUBLE_EQ(large.hd95_mm, 4 * small.hd95_mm);
  EXPECT_DOUBLE_EQ(large.assd_mm, 4 * small.assd_mm);
  EXPECT_NEAR(large.nsd[0], small.nsd[0], 1e-12);
}

TEST(SurfaceMetrics, DoNotDependOnWhereInTheImageTheMasksLie) {
  LabelMap left = EmptyMap({90, 40, 40}, {0.8, 1, 2});
  LabelMap right = left;
  LabelMap moved_left = left;
  LabelMap moved_right = left;
  Fill(left, {0, 0, 0}, {20, 8, 7}, 1);
  Fill(right, {2, 0, 1}, {19, 10, 6}, 1);
  Fill(moved_left, {50, 30, 20}, {70, 38, 27}, 1);
  Fill(moved_right, {52, 30, 21}, {69, 40, 26}, 1);
  for (const SurfaceDefinition definition : kDefinitions) {
    const SurfaceOptions options{.definition = definition};
    ExpectSame(ScoreLabels(left, right, 1, options)[0],
               ScoreLabels(moved_left, moved_right, 1, options)[0]);
  }
}

// Many labels go side by side, a few with all threads on each: the bits are the same.
TEST(SurfaceMetrics, DoNotDependOnThreadsOrOnOtherLabels) {
  RandomStream random(5, "threads");
  const LabelMap left = RandomBoxes({90, 80, 70}, {0.8, 1, 2}, 40, 12, random);
  const LabelMap right = RandomBoxes({90, 80, 70}, {0.8, 1, 2}, 40, 12, random);
  const int threads = omp_get_max_threads();
  for (const SurfaceDefinition definition : kDefinitions) {
    const SurfaceOptions options{.definition = definition, .tolerances_mm = {0.5, 1, 4}};
    omp_set_num_threads(1);
    const std::vector<LabelScore> alone = ScoreLabels(left, right, 12, options);
    omp_set_num_threads(3);
    const std::vector<LabelScore> together = ScoreLabels(left, right, 12, options);
    const std::vector<LabelScore> first = ScoreLabels(left, right, 1, options);
    omp_set_num_threads(threads);
    int compared = 0;
    for (std::size_t label = 0; label < 12; ++label) {
      if (alone[label].outcome() == ScoreOutcome::kBothEmpty) continue;
      ExpectSame(together[label], alone[label]);
      compared += alone[label].measured() ? 1 : 0;
    }
    ASSERT_GE(compared, 8) << "enough for labels to go side by side";
    ASSERT_TRUE(alone[0].measured());
    ExpectSame(first[0], alone[0]);
  }
}

// 0.4 mm in single precision is a little more than 0.4 mm.
TEST(SurfaceMetrics, TakeADistanceOfTheToleranceAsWithinIt) {
  LabelMap left = EmptyMap({30, 12, 12}, {0.4f, 0.4f, 0.4f});
  LabelMap right = left;
  Fill(left, {2, 2, 2}, {10, 10, 10}, 1);
  Fill(right, {2, 2, 2}, {13, 10, 10}, 1);
  ASSERT_GT(3 * left.geometry.spacing_mm[0], 1.2);
  for (const SurfaceDefinition definition : kDefinitions) {
    const SurfaceOptions options{.definition = definition, .tolerances_mm = {1.19, 1.2}};
    const std::vector<double> nsd = ScoreLabels(left, right, 1, options)[0].nsd;
    EXPECT_LT(nsd[0], 0.95);
    EXPECT_EQ(nsd[1], 1);
  }
}

}  // namespace
}  // namespace isoscan
