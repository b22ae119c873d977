// Training that ends because it gains no more.

#include "tests/support/status_matchers.h"
#include "tests/unit/server/rounds/federation_in_memory.h"

namespace isoscan {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using Kind = Assignment::Kind;

TinyStudy WithPatience(const std::string& rounds_table) {
  return {.sites = {"berlin", "charite"}, .rounds = 10, .rounds_table = rounds_table};
}

/// Lets both sites do what they are asked until the study is over; the number of rounds of
/// training.
int RoundsUntilTheEnd(FederationInMemory& federation, bool restart) {
  int rounds = 0;
  while (federation.Status().phase == StudyPhase::kRunning) {
    for (const std::string site : {"berlin", "charite"}) {
      const std::vector<Assignment> asked = federation.coordinator().AssignmentsOf(site);
      EXPECT_THAT(asked, testing::Not(IsEmpty()));
      for (const Assignment& assignment : asked) {
        if (assignment.kind == Kind::kTrain) {
          rounds = assignment.round;
          EXPECT_OK(federation.Train(site));
        } else if (assignment.kind == Kind::kScore) {
          EXPECT_EQ(assignment.round, rounds + 1);
          EXPECT_EQ(assignment.model_digest, federation.NewestModel());
          EXPECT_OK(federation.Score(site));
        } else {
          EXPECT_EQ(assignment.round, rounds + 1);
          EXPECT_OK(federation.coordinator().SubmitScores(site, "tiny", Kind::kLocalOnly,
                                                          FederationInMemory::Scores()));
        }
        if (restart) federation.Restart();
      }
    }
    EXPECT_OK(federation.coordinator().Advance());
    if (restart) federation.Restart();
  }
  return rounds;
}

// The model of round 4 is as good as that of round 2, and no better: it is judged with round 5.
const std::vector<double> kPeakAtTwo = {0.1, 0.5, 0.6, 0.55, 0.6, 0.7, 0.8, 0.8, 0.8, 0.8, 0.8};

TEST(EarlyEnd, ComesAfterAsManyRoundsWithoutAGainAsTheStudySays) {
  FederationInMemory federation;
  federation.set_dice(kPeakAtTwo);
  TinyStudy study = WithPatience("patience = 2");
  study.local_only = true;
  federation.CreateAndStart(study);

  EXPECT_EQ(RoundsUntilTheEnd(federation, /*restart=*/false), 5);

  EXPECT_EQ(federation.Status().phase, StudyPhase::kFinished);
  EXPECT_THAT(federation.Status().early_end,
              HasSubstr("2 models without a gain of more than 0 over the 0.6000 of round 2"));
  EXPECT_THAT(federation.coordinator().StudiesOf("berlin").at(0).early_end, IsEmpty())
      << "it has a score over all sites";
  ASSERT_OK_AND_ASSIGN(const StudyRecord record, federation.coordinator().Record("tiny"));
  ASSERT_THAT(record.rounds, SizeIs(5));
  EXPECT_THAT(record.rounds[3].ends_training, IsEmpty());
  EXPECT_EQ(record.rounds[4].ends_training, federation.Status().early_end);
  ASSERT_OK_AND_ASSIGN(const BestModel best, federation.coordinator().Best("tiny"));
  EXPECT_EQ(best.model.round, 5) << "what ends the training is not the last word";
  EXPECT_DOUBLE_EQ(best.score, 0.7);
}

TEST(EarlyEnd, IsTheSameWhateverIsRestarted) {
  FederationInMemory federation;
  federation.set_dice(kPeakAtTwo);
  federation.CreateAndStart(WithPatience("patience = 2"));

  EXPECT_EQ(RoundsUntilTheEnd(federation, /*restart=*/true), 5);
}

TEST(EarlyEnd, LetsNobodyTrainAnyMore) {
  FederationInMemory federation;
  federation.set_dice({0.5, 0.4, 0.3});
  federation.CreateAndStart(WithPatience("patience = 1"));
  for (int round = 1; round <= 2; ++round) {
    ASSERT_OK(federation.Train("berlin"));
    ASSERT_OK(federation.Train("charite"));
    ASSERT_OK(federation.coordinator().Advance());
  }

  EXPECT_TRUE(federation.Status().final_scores);
  EXPECT_THAT(federation.Train("berlin"), StatusIs(absl::StatusCode::kFailedPrecondition,
                                                   HasSubstr("collects its final scores")));
  EXPECT_THAT(federation.StagedFiles(), IsEmpty());
}

TEST(EarlyEnd, TakesASmallGainForNone) {
  FederationInMemory federation;
  // Each model gains 0.01, and in two rounds 0.02.
  federation.set_dice({0.1, 0.11, 0.12, 0.13, 0.14, 0.15, 0.16, 0.17, 0.18, 0.19, 0.2});
  federation.CreateAndStart(WithPatience("patience = 2\nleast_gain = 0.015"));
  EXPECT_EQ(RoundsUntilTheEnd(federation, /*restart=*/false), 10)
      << "two rounds without that gain never follow each other";

  FederationInMemory hasty;
  hasty.set_dice({0.1, 0.11, 0.12});
  hasty.CreateAndStart(WithPatience("patience = 1\nleast_gain = 0.015"));
  EXPECT_EQ(RoundsUntilTheEnd(hasty, /*restart=*/false), 2);
}

TEST(EarlyEnd, NeverComesToAStudyWithoutPatience) {
  FederationInMemory federation;
  federation.set_dice(std::vector<double>(11, 0.5));
  federation.CreateAndStart(WithPatience(""));

  EXPECT_EQ(RoundsUntilTheEnd(federation, /*restart=*/false), 10);
  EXPECT_THAT(federation.Status().early_end, IsEmpty());
}

TEST(EarlyEnd, IsDecidedAnewWhereTheLastUpdateIsReplaced) {
  FederationInMemory federation;
  federation.CreateAndStart(WithPatience("patience = 1"));
  federation.set_dice({0.5, 0.4});
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.Train("charite"));
  ASSERT_OK(federation.coordinator().Advance());
  ASSERT_OK(federation.Train("berlin"));
  federation.set_dice({0.5, 0.9, 0.9});

  ASSERT_OK_AND_ASSIGN(const SiteUpdate better, federation.Upload("berlin", "tiny", 1));
  ASSERT_OK(federation.coordinator().SubmitUpdate("berlin", better));
  ASSERT_OK(federation.Train("charite"));
  ASSERT_OK(federation.coordinator().Advance());

  EXPECT_FALSE(federation.Status().final_scores) << "the scores that count are the new ones";
}

}  // namespace
}  // namespace isoscan
