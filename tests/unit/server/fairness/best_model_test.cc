#include "server/fairness/best_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace isoscan {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using By = RoundsPlan::BestBy;

int BestRound(const ModelRanking& ranking) {
  return ranking.best() == nullptr ? -1 : ranking.best()->round;
}

/// Scores of round 0, 1, ... of a site with so many cases.
void Add(GlobalModelScores& scores, const std::string& site, std::int64_t cases,
         const std::vector<double>& means) {
  for (std::size_t round = 0; round < means.size(); ++round) {
    scores[static_cast<int>(round)][site] = {.cases = cases, .mean = means[round]};
  }
}

TEST(BestModel, IsByTheRuleThatTheStudyNames) {
  GlobalModelScores scores;
  Add(scores, "large", 9, {0.1, 0.9, 0.8});
  Add(scores, "small", 1, {0.1, 0.2, 0.5});

  const ModelRanking by_cases = RankModels(By::kCases, scores, 2);
  const ModelRanking by_worst = RankModels(By::kWorstSite, scores, 2);

  EXPECT_EQ(BestRound(by_cases), 1);
  EXPECT_DOUBLE_EQ(by_cases.best()->score, 0.83);
  EXPECT_EQ(BestRound(by_worst), 2);
  EXPECT_DOUBLE_EQ(by_worst.best()->score, 0.5);
  EXPECT_THAT(by_cases.judges, ElementsAre("large", "small"));
}

TEST(BestModel, IsTheEarlierOfEquals) {
  GlobalModelScores scores;
  Add(scores, "a", 3, {0.2, 0.7, 0.7, 0.6});

  EXPECT_EQ(BestRound(RankModels(By::kCases, scores, 3)), 1);
  EXPECT_EQ(BestRound(RankModels(By::kWorstSite, scores, 3)), 1);
}

TEST(BestModel, LeavesAsideWhatAJudgeHasNotScored) {
  GlobalModelScores scores;
  Add(scores, "north", 2, {0.1, 0.9, 0.5, 0.6});
  Add(scores, "late", 2, {0, 0, 0.5, 0.6});
  scores[0].erase("late");
  scores[1].erase("late");

  const ModelRanking ranking = RankModels(By::kCases, scores, 3);

  ASSERT_THAT(ranking.models, SizeIs(2));
  EXPECT_EQ(BestRound(ranking), 3) << "round 1 was scored by one site";
}

TEST(BestModel, IsNotJudgedByASiteThatIsGone) {
  GlobalModelScores scores;
  Add(scores, "north", 2, {0.1, 0.5, 0.6});
  Add(scores, "gone", 2, {0.1, 0.9});

  const ModelRanking ranking = RankModels(By::kCases, scores, 2);

  EXPECT_THAT(ranking.judges, ElementsAre("north"));
  EXPECT_THAT(ranking.models, SizeIs(3));
  EXPECT_EQ(BestRound(ranking), 2);
}

TEST(BestModel, DoesNotCountScoresThatAreStillComingIn) {
  GlobalModelScores scores;
  Add(scores, "north", 2, {0.1, 0.5, 0.9});
  Add(scores, "south", 2, {0.1, 0.5});

  const ModelRanking ranking = RankModels(By::kCases, scores, 1);

  EXPECT_THAT(ranking.judges, ElementsAre("north", "south"));
  EXPECT_EQ(BestRound(ranking), 1);
}

TEST(BestModel, GoesBackToTheNewestModelThatAnybodyScored) {
  GlobalModelScores scores;
  Add(scores, "north", 2, {0.1, 0.5});

  EXPECT_EQ(BestRound(RankModels(By::kCases, scores, 7)), 1) << "no final score ever came";
  EXPECT_EQ(RankModels(By::kCases, {}, 7).best(), nullptr);
  EXPECT_EQ(RankModels(By::kCases, scores, -1).best(), nullptr);
}

TEST(BestModel, IsNeverOneWithoutAnyDice) {
  GlobalModelScores scores;
  Add(scores, "empty", 0, {std::nan(""), std::nan("")});
  EXPECT_THAT(RankModels(By::kCases, scores, 1).models, IsEmpty());
  EXPECT_THAT(RankModels(By::kWorstSite, scores, 1).models, IsEmpty());

  Add(scores, "north", 1, {0.5, 0.25});
  EXPECT_EQ(BestRound(RankModels(By::kWorstSite, scores, 1)), 0);
}

TEST(BestModel, DoesNotDependOnTheOrderInWhichScoresArrive) {
  std::vector<ModelScoresRecord> records;
  for (int round = 0; round < 5; ++round) {
    for (const char* site : {"a", "b", "c"}) {
      ModelScoresRecord record;
      record.after_round = round;
      record.site = site;
      for (int i = 0; i < 7; ++i) {
        record.cases.push_back({i, "", {{1.0 / (1 + i + round + site[0] - 'a'), 1, 1, 1}}});
      }
      records.push_back(std::move(record));
    }
  }
  GlobalModelScores in_order;
  AddScores(records, 1, in_order);
  const ModelRanking expected = RankModels(By::kCases, in_order, 4);
  std::mt19937 random(1);
  for (int i = 0; i < 10; ++i) {
    std::shuffle(records.begin(), records.end(), random);
    GlobalModelScores shuffled;
    for (const ModelScoresRecord& record : records) AddScores({record}, 1, shuffled);
    AddScores(records, 1, shuffled);  // As after a restart.
    const ModelRanking ranking = RankModels(By::kCases, shuffled, 4);
    for (std::size_t model = 0; model < 5; ++model) {
      EXPECT_EQ(ranking.models.at(model).score, expected.models.at(model).score);
    }
  }
}

TEST(BestModel, IsNotJudgedByWhatSitesTrainedForThemselves) {
  ModelScoresRecord own;
  own.model = ModelScoresRecord::Model::kLocalOnly;
  own.site = "north";
  own.cases = {{0, "", {{1, 1, 1, 1}}}};
  GlobalModelScores scores;

  AddScores({own}, 1, scores);

  EXPECT_THAT(scores, IsEmpty());
}

ModelRanking Judged(const std::vector<double>& scores) {
  ModelRanking ranking;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    ranking.models.push_back({.round = static_cast<int>(i), .score = scores[i]});
  }
  return ranking;
}

TEST(WhyTrainingEnds, CountsTheModelsSinceTheLastGain) {
  RoundsPlan plan;
  plan.patience = 2;

  EXPECT_EQ(WhyTrainingEnds(plan, {}), "");
  EXPECT_EQ(WhyTrainingEnds(plan, Judged({0.5})), "");
  EXPECT_EQ(WhyTrainingEnds(plan, Judged({0.5, 0.4})), "");
  EXPECT_THAT(WhyTrainingEnds(plan, Judged({0.5, 0.4, 0.5})), HasSubstr("2 models without"));
  EXPECT_EQ(WhyTrainingEnds(plan, Judged({0.5, 0.4, 0.6})), "");
  EXPECT_THAT(WhyTrainingEnds(plan, Judged({0.5, 0.4, 0.6, 0.6, 0.6})),
              HasSubstr("over the 0.6000 of round 2"));
  plan.patience = 0;
  EXPECT_EQ(WhyTrainingEnds(plan, Judged({0.5, 0.4, 0.3, 0.2})), "");
}

TEST(WhyTrainingEnds, DoesNotCountModelsThatCouldNotBeCompared) {
  RoundsPlan plan;
  plan.patience = 3;
  // A judge was away while models 3 to 7 were scored.
  ModelRanking ranking = Judged({0.5, 0.6, 0.7});
  ranking.models.push_back({.round = 8, .score = 0.69});

  EXPECT_EQ(WhyTrainingEnds(plan, ranking), "");
}

TEST(WhyTrainingEnds, AddsSmallGainsUp) {
  RoundsPlan plan;
  plan.patience = 2;
  plan.least_gain = 0.05;

  EXPECT_EQ(WhyTrainingEnds(plan, Judged({0.5, 0.54, 0.58, 0.62, 0.66})), "");
  EXPECT_NE(WhyTrainingEnds(plan, Judged({0.5, 0.52, 0.54})), "");
}

TEST(NewestScoredModel, IsThatOfTheRoundBeforeUntilTheStudyHasFinished) {
  StudyRecord record;
  EXPECT_EQ(NewestScoredModel(record), -1);
  record.rounds.resize(1);
  record.rounds[0].round = 1;
  EXPECT_EQ(NewestScoredModel(record), 0);
  record.finished = true;
  EXPECT_EQ(NewestScoredModel(record), 1) << "a study of one round";
}

}  // namespace
}  // namespace isoscan
