#include "server/fairness/fairness_statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/unit/server/fairness/example_study.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::DoubleNear;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsNan;

StudyRecord TwoSites() {
  StudyRecord record;
  record.study.labels = {"tumour"};
  record.finished = true;
  for (const char* name : {"north", "south"}) {
    SiteRecord site;
    site.name = name;
    site.held_out_cases = 2;
    record.sites.push_back(site);
  }
  return record;
}

ModelScoresRecord OneLabel(const std::string& site, int round, const std::vector<double>& dice) {
  std::vector<std::vector<LabelScoreRecord>> cases;
  for (const double value : dice) cases.push_back({LabelScore(value)});
  return GlobalScores(site, round, std::move(cases));
}

// numpy.quantile([1, 2, 4, 8], [0, .25, .5, .9, 1]) == [1, 1.75, 3, 6.8, 8]
TEST(Quantile, InterpolatesLinearlyAsNumPyDoes) {
  const std::vector<double> values{1, 2, 4, 8};

  EXPECT_DOUBLE_EQ(Quantile(values, 0), 1);
  EXPECT_DOUBLE_EQ(Quantile(values, 0.25), 1.75);
  EXPECT_DOUBLE_EQ(Quantile(values, 0.5), 3);
  EXPECT_DOUBLE_EQ(Quantile(values, 0.9), 6.8);
  EXPECT_DOUBLE_EQ(Quantile(values, 1), 8);
}

TEST(Quantile, OfNothingIsNoNumber) { EXPECT_THAT(Quantile({}, 0.5), IsNan()); }

TEST(Describe, MatchesHandComputedValuesInAnyOrder) {
  const Distribution dice = Describe({0.9, 0.1, 0.5, 0.7});

  EXPECT_EQ(dice.n, 4);
  EXPECT_DOUBLE_EQ(dice.mean, 0.55);
  EXPECT_DOUBLE_EQ(dice.median, 0.6);
  EXPECT_DOUBLE_EQ(dice.lower_quartile, 0.4);
  EXPECT_DOUBLE_EQ(dice.upper_quartile, 0.75);
  EXPECT_DOUBLE_EQ(dice.lowest, 0.1);
  EXPECT_DOUBLE_EQ(dice.highest, 0.9);
}

TEST(Outcome, TellsMissesFalseAlarmsAndEmptyLabelsApart) {
  EXPECT_EQ(OutcomeOf(LabelScore(0.5)), LabelOutcome::kScored);
  EXPECT_EQ(OutcomeOf(Miss()), LabelOutcome::kMiss);
  EXPECT_EQ(OutcomeOf(FalseAlarm()), LabelOutcome::kFalseAlarm);
  EXPECT_EQ(OutcomeOf(BothEmpty()), LabelOutcome::kBothEmpty);
}

TEST(Outcome, AMissIsAlsoAPredictionThatLiesElsewhere) {
  const LabelScoreRecord elsewhere{
      .dice = 0, .reference_voxels = 10, .predicted_voxels = 30, .common_voxels = 0};

  EXPECT_EQ(OutcomeOf(elsewhere), LabelOutcome::kMiss);
}

TEST(Outcome, ADiceThatCannotBeIsNeverUsed) {
  for (const double dice : {std::numeric_limits<double>::quiet_NaN(), -0.1, 1.5,
                            std::numeric_limits<double>::infinity()}) {
    const LabelScoreRecord score{
        .dice = dice, .reference_voxels = 10, .predicted_voxels = 10, .common_voxels = 5};
    EXPECT_EQ(OutcomeOf(score), LabelOutcome::kUnusable) << dice;
  }
}

TEST(ModelStatistics, MissesAndFalseAlarmsCountAsZeroAndEmptyLabelsAreNeverAveraged) {
  const ModelStatistics model = Summarize(
      GlobalScores("north", 1, {{LabelScore(0.8)}, {Miss()}, {BothEmpty()}, {FalseAlarm()}}).cases,
      1);

  EXPECT_EQ(model.labels[0].dice.n, 3);
  EXPECT_NEAR(model.labels[0].dice.mean, 0.8 / 3, 1e-15);
  EXPECT_EQ(model.labels[0].misses, 1);
  EXPECT_EQ(model.labels[0].false_alarms, 1);
  EXPECT_EQ(model.labels[0].both_empty, 1);
  EXPECT_EQ(model.unscored_cases, 1);
  EXPECT_THAT(model.cases[2].dice, IsNan());
}

TEST(ModelStatistics, ScoreOfASiteIsTheMeanOverCasesOfTheMeanOverTheirLabels) {
  const ModelStatistics model = Summarize(
      GlobalScores("north", 1, {{LabelScore(0.6), BothEmpty()}, {LabelScore(0.8), LabelScore(0.4)}})
          .cases,
      2);

  EXPECT_DOUBLE_EQ(model.cases[0].dice, 0.6);
  EXPECT_DOUBLE_EQ(model.cases[1].dice, 0.6);
  EXPECT_DOUBLE_EQ(model.dice.mean, 0.6);  // Over labels alone it would be another number.
  EXPECT_DOUBLE_EQ(model.labels[0].dice.mean, 0.7);
}

TEST(ModelStatistics, OrderOfCasesDoesNotMatter) {
  std::vector<CaseScoreRecord> cases =
      OneLabel("north", 1, {0.3, 0.9, 0.5, 0.7, 0.2, 0.8, 0.3}).cases;
  const ModelStatistics forwards = Summarize(cases, 1);
  std::reverse(cases.begin(), cases.end());
  const ModelStatistics backwards = Summarize(cases, 1);

  EXPECT_EQ(forwards.dice.mean, backwards.dice.mean);
  ASSERT_EQ(forwards.lowest.size(), kLowestCases);
  std::vector<int> lowest;
  for (std::size_t i = 0; i < kLowestCases; ++i) {
    EXPECT_EQ(forwards.lowest[i].case_index, backwards.lowest[i].case_index);
    lowest.push_back(forwards.lowest[i].case_index);
  }
  EXPECT_THAT(lowest, ElementsAre(4, 0, 6, 2, 3));
}

TEST(Comparison, PairsCasesByIndexAndLeavesOutThoseWithoutAPartner) {
  const ModelStatistics federated = Summarize(OneLabel("north", 3, {0.8, 0.6, 0.9}).cases, 1);
  ModelScoresRecord alone = OneLabel("north", 0, {0.7, 0.7});
  std::reverse(alone.cases.begin(), alone.cases.end());

  const PairedDifference joining = Compare(federated, Summarize(alone.cases, 1));

  EXPECT_EQ(joining.difference.n, 2);
  EXPECT_NEAR(joining.difference.mean, 0, 1e-15);
  EXPECT_NEAR(joining.difference.highest, 0.1, 1e-15);
  EXPECT_EQ(joining.better, 1);
  EXPECT_EQ(joining.worse, 1);
}

TEST(StudyStatistics, FindsWorstBestAndGapOfTheFinalModel) {
  StudyRecord record = TwoSites();
  record.scores = {OneLabel("north", 0, {0.1, 0.1}), OneLabel("south", 0, {0.0, 0.2}),
                   OneLabel("north", 1, {0.9, 0.7}), OneLabel("south", 1, {0.5})};

  ASSERT_OK_AND_ASSIGN(const StudyStatistics study, Summarize(record));

  EXPECT_EQ(study.scored_round, 1);
  EXPECT_EQ(study.sites[*study.best].site.name, "north");
  EXPECT_EQ(study.sites[*study.worst].site.name, "south");
  EXPECT_NEAR(study.gap, 0.3, 1e-15);
  EXPECT_EQ(study.cases, 3);
  EXPECT_NEAR(study.mean_over_cases, 0.7, 1e-15);
  EXPECT_NEAR(study.mean_over_sites, 0.65, 1e-15);
  EXPECT_DOUBLE_EQ(study.sites[0].before->dice.mean, 0.1);
}

TEST(StudyStatistics, OrderOfScoresAndSitesDoesNotMatter) {
  StudyRecord record = ExampleStudy({.sites = 5});
  ASSERT_OK_AND_ASSIGN(const StudyStatistics straight, Summarize(record));
  std::reverse(record.scores.begin(), record.scores.end());
  std::reverse(record.sites.begin(), record.sites.end());
  ASSERT_OK_AND_ASSIGN(const StudyStatistics reversed, Summarize(record));

  EXPECT_EQ(straight.gap, reversed.gap);
  EXPECT_EQ(straight.worst, reversed.worst);
  EXPECT_EQ(straight.mean_over_cases, reversed.mean_over_cases);
}

TEST(StudyStatistics, ARunningStudyIsNotJudgedByAModelThatOnlySomeHaveScored) {
  StudyRecord record = TwoSites();
  record.finished = false;
  record.scores = {OneLabel("north", 1, {0.5}), OneLabel("south", 1, {0.4}),
                   OneLabel("north", 2, {0.6})};

  ASSERT_OK_AND_ASSIGN(const StudyStatistics running, Summarize(record));
  EXPECT_EQ(running.scored_round, 1);

  record.finished = true;
  ASSERT_OK_AND_ASSIGN(const StudyStatistics finished, Summarize(record));
  EXPECT_EQ(finished.scored_round, 2);
  EXPECT_FALSE(finished.sites[1].after.has_value());
  EXPECT_THAT(finished.sites[1].mean_by_round,
              ElementsAre(IsNan(), DoubleNear(0.4, 1e-15), IsNan()));
}

TEST(StudyStatistics, WithoutATrainedModelThereIsNothingToRank) {
  StudyRecord record = TwoSites();
  record.scores = {OneLabel("north", 0, {0.1})};

  ASSERT_OK_AND_ASSIGN(const StudyStatistics study, Summarize(record));

  EXPECT_FALSE(study.scored_round.has_value());
  EXPECT_FALSE(study.worst.has_value());
  EXPECT_THAT(study.gap, IsNan());
}

TEST(StudyStatistics, ASiteWhoseEveryLabelIsEmptyIsNeitherBestNorWorst) {
  StudyRecord record = TwoSites();
  record.scores = {OneLabel("north", 1, {0.7}), GlobalScores("south", 1, {{BothEmpty()}})};

  ASSERT_OK_AND_ASSIGN(const StudyStatistics study, Summarize(record));

  EXPECT_EQ(study.worst, study.best);
  EXPECT_EQ(study.gap, 0);
  EXPECT_EQ(study.cases, 1);
}

TEST(StudyStatistics, MarksSitesWithFewerThanTenHeldOutCases) {
  StudyRecord record = TwoSites();
  record.sites[0].held_out_cases = 9;
  record.sites[1].held_out_cases = 10;

  ASSERT_OK_AND_ASSIGN(const StudyStatistics study, Summarize(record));

  EXPECT_TRUE(study.sites[0].too_few);
  EXPECT_FALSE(study.sites[1].too_few);
}

TEST(StudyStatistics, AddsUpTimesOfTheRoundsThatASiteContributedTo) {
  StudyRecord record = TwoSites();
  RoundRecord round;
  round.round = 1;
  round.opened = Time{std::chrono::seconds(1000)};
  round.closed = Time{std::chrono::seconds(1100)};
  round.model_digest = "d";
  round.seconds_aggregating = 2;
  ParticipationRecord north;
  north.site = "north";
  north.seconds_training = 60;
  north.seconds_scoring = 8;
  ParticipationRecord south;
  south.site = "south";
  south.outcome = ParticipationRecord::Outcome::kLeftOut;
  round.sites = {north, south};
  record.rounds = {round};

  ASSERT_OK_AND_ASSIGN(const StudyStatistics study, Summarize(record));

  EXPECT_EQ(study.rounds, 1);
  EXPECT_EQ(study.sites[0].time.training, 60);
  EXPECT_EQ(study.sites[0].time.waiting, 30);
  EXPECT_EQ(study.sites[1].contributed_rounds, 0);
  EXPECT_EQ(study.sites[1].time.waiting, 0);
}

TEST(StudyStatistics, RefusesScoresOfAnotherNumberOfLabels) {
  StudyRecord record = TwoSites();
  record.scores = {GlobalScores("south", 1, {{LabelScore(0.5), LabelScore(0.5)}})};

  EXPECT_THAT(Summarize(record),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("south sent 2 label scores for its case 0"),
                             HasSubstr("the study has 1 labels"))));
}

}  // namespace
}  // namespace isoscan
