#include "client/evaluation/score_summary.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/client/evaluation/masks.h"

namespace isoscan {
namespace {

// A row of 10 mm with the label in its first voxels.
LabelMap RowWith(std::int64_t voxels) {
  LabelMap row = EmptyMap({10, 1, 1});
  Fill(row, {0, 0, 0}, {voxels, 1, 1}, 1);
  return row;
}

LabelScore ScoreOf(std::int64_t expected, std::int64_t found) {
  return ScoreLabels(RowWith(expected), RowWith(found), 1,
                     {.definition = SurfaceDefinition::kVoxels, .tolerances_mm = {0.5}})[0];
}

TEST(ScoreSummary, NeverAveragesAMissOrAFalseAlarmAway) {
  const LabelSummary summary =
      Summarize({ScoreOf(4, 4), ScoreOf(4, 0), ScoreOf(0, 2), ScoreOf(0, 0), ScoreOf(4, 5)});

  EXPECT_EQ(summary.cases, 5);
  EXPECT_EQ(summary.scored, 2);
  EXPECT_EQ(summary.misses, 1);
  EXPECT_EQ(summary.false_alarms, 1);
  EXPECT_EQ(summary.both_empty, 1);
  const double diagonal = std::sqrt(102);
  EXPECT_DOUBLE_EQ(summary.hd_mm.mean, (0 + diagonal + diagonal + 1) / 4);
  EXPECT_DOUBLE_EQ(summary.hd_mm.median, (1 + diagonal) / 2);
  EXPECT_DOUBLE_EQ(summary.hd_mm.mean_where_measured, 0.5);
  EXPECT_DOUBLE_EQ(summary.dice.mean, (1 + 0 + 0 + 8.0 / 9) / 4);
  EXPECT_DOUBLE_EQ(summary.nsd[0].mean, (1 + 0 + 0 + 8.0 / 9) / 4);
  EXPECT_DOUBLE_EQ(summary.volume_error_ml.mean, (0 - 0.004 + 0.002 + 0.001) / 4);
  EXPECT_DOUBLE_EQ(summary.relative_volume_error.mean, (0 - 1 + 0.25) / 3);
}

TEST(ScoreSummary, OfNothingButEmptyMasksIsCountedAndUndefined) {
  const LabelSummary summary = Summarize({ScoreOf(0, 0), ScoreOf(0, 0)});

  EXPECT_EQ(summary.both_empty, 2);
  EXPECT_TRUE(std::isnan(summary.dice.mean));
  EXPECT_TRUE(std::isnan(summary.hd95_mm.median));
  EXPECT_EQ(summary.nsd.size(), 1u);
}

}  // namespace
}  // namespace isoscan
