// Rounds that ask some of the sites only.

#include "tests/support/status_matchers.h"
#include "tests/unit/server/rounds/federation_in_memory.h"

namespace isoscan {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using Outcome = ParticipationRecord::Outcome;

TinyStudy TwoOfFive(int rounds) {
  return {.sites = {"berlin", "charite", "leipzig", "mainz", "st-marys"},
          .rounds = rounds,
          .rounds_table = "sites_per_round = 2"};
}

std::vector<std::string> AskedNow(FederationInMemory& federation) {
  std::vector<std::string> asked;
  for (const SiteStatus& site : federation.Status().sites) {
    if (federation.AskedOf(site.site).has_value()) asked.push_back(site.site);
  }
  return asked;
}

/// Leads the study to its end, and tells whom each round asked and which model came out last.
std::vector<std::vector<std::string>> RunToTheEnd(FederationInMemory& federation, bool restart) {
  std::vector<std::vector<std::string>> asked;
  while (federation.Status().phase == StudyPhase::kRunning) {
    if (restart) federation.Restart();
    asked.push_back(AskedNow(federation));
    for (const std::string& site : asked.back()) {
      const bool trains = federation.AskedOf(site)->kind == Assignment::Kind::kTrain;
      EXPECT_OK(trains ? federation.Train(site) : federation.Score(site));
      if (restart) federation.Restart();
    }
    EXPECT_OK(federation.coordinator().Advance());
  }
  asked.push_back({federation.NewestModel()});
  return asked;
}

TEST(Sampling, AsksSomeSitesInEachRoundAndEverySiteInTheEnd) {
  FederationInMemory federation;
  federation.CreateAndStart(TwoOfFive(6));
  EXPECT_EQ(federation.Status().sites[0].activity, "not asked in round 1");

  const auto asked = RunToTheEnd(federation, /*restart=*/false);

  ASSERT_THAT(asked, SizeIs(8));
  for (std::size_t round = 0; round < 6; ++round) EXPECT_THAT(asked[round], SizeIs(2));
  EXPECT_THAT(asked[6], SizeIs(5)) << "every site scores the final model";
  EXPECT_NE(asked[0], asked[1]);
  ASSERT_OK_AND_ASSIGN(const StudyRecord record, federation.coordinator().Record("tiny"));
  for (const RoundRecord& round : record.rounds) {
    std::vector<std::string> contributed;
    for (const ParticipationRecord& site : round.sites) {
      EXPECT_TRUE(site.declared);
      if (site.outcome == Outcome::kContributed) {
        contributed.push_back(site.site);
      } else {
        EXPECT_EQ(site.outcome, Outcome::kNotAsked);
        EXPECT_EQ(site.reason, "not drawn for this round");
      }
    }
    EXPECT_EQ(contributed, asked[static_cast<std::size_t>(round.round) - 1]);
  }
}

TEST(Sampling, AsksTheSameSitesWhateverIsRestarted) {
  FederationInMemory undisturbed;
  undisturbed.CreateAndStart(TwoOfFive(4));
  FederationInMemory disturbed;
  disturbed.CreateAndStart(TwoOfFive(4));

  EXPECT_EQ(RunToTheEnd(disturbed, /*restart=*/true), RunToTheEnd(undisturbed, /*restart=*/false));
}

TEST(Sampling, TakesNothingFromASiteThatItDidNotAsk) {
  FederationInMemory federation;
  federation.CreateAndStart(TwoOfFive(1));
  ASSERT_EQ(federation.AskedOf("berlin"), std::nullopt);

  const auto refused =
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("asks other sites than berlin"));
  EXPECT_THAT(federation.Train("berlin"), refused);
  EXPECT_THAT(federation.coordinator().ReportProgress("berlin", "tiny", 1, "training", 1, 2),
              refused);
  EXPECT_THAT(federation.StagedFiles(), IsEmpty());
}

TEST(Sampling, AsksALateSiteFromTheNextDrawOn) {
  FederationInMemory federation;
  federation.CreateAndStart({.sites = {}, .rounds = 20, .rounds_table = "sites_per_round = 1"},
                            {"berlin"});
  ASSERT_OK(federation.Approve("charite"));
  EXPECT_EQ(federation.AskedOf("charite"), std::nullopt) << "the round's only place is taken";

  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.coordinator().Advance());
  int of_charite = 0;
  while (federation.Status().round <= 20) {
    const std::vector<std::string> asked = AskedNow(federation);
    ASSERT_THAT(asked, SizeIs(1));
    of_charite += asked.front() == "charite";
    ASSERT_OK(federation.Train(asked.front()));
    ASSERT_OK(federation.coordinator().Advance());
  }
  EXPECT_GT(of_charite, 2);
  ASSERT_OK_AND_ASSIGN(const StudyRecord record, federation.coordinator().Record("tiny"));
  ASSERT_THAT(record.rounds[0].sites, SizeIs(2));
  EXPECT_EQ(record.rounds[0].sites[1].outcome, Outcome::kNotAsked);
  EXPECT_FALSE(record.rounds[0].sites[1].declared);
  EXPECT_TRUE(record.rounds[0].sites[0].declared);
}

TEST(Sampling, GivesALateSiteAPlaceThatNobodyHas) {
  FederationInMemory federation;
  federation.CreateAndStart({.sites = {}, .rounds_table = "sites_per_round = 2"}, {"berlin"});

  ASSERT_OK(federation.Approve("charite"));
  ASSERT_OK(federation.Approve("mainz"));

  EXPECT_THAT(AskedNow(federation), testing::ElementsAre("berlin", "charite"));
  federation.Restart();
  EXPECT_THAT(AskedNow(federation), testing::ElementsAre("berlin", "charite"));
}

TEST(Sampling, AsksAnotherWhereOneWithdraws) {
  FederationInMemory federation;
  federation.CreateAndStart(TwoOfFive(2));
  const std::vector<std::string> first = AskedNow(federation);
  ASSERT_OK(federation.Train(first[0]));

  ASSERT_OK(federation.coordinator().Withdraw(first[0], "tiny"));
  ASSERT_OK(federation.coordinator().Withdraw(first[1], "tiny"));

  const std::vector<std::string> instead = AskedNow(federation);
  ASSERT_THAT(instead, SizeIs(2)) << "the round would wait for ever for nobody";
  EXPECT_NE(instead, first);
  federation.Restart();
  EXPECT_EQ(AskedNow(federation), instead);
  for (const std::string& site : instead) ASSERT_OK(federation.Train(site));
  ASSERT_OK(federation.coordinator().Advance());
  EXPECT_EQ(federation.Status().round, 2);
  ASSERT_OK_AND_ASSIGN(const StudyRecord record, federation.coordinator().Record("tiny"));
  for (const ParticipationRecord& site : record.rounds[0].sites) {
    if (site.site != first[0]) continue;
    EXPECT_EQ(site.outcome, Outcome::kLeftOut) << "it was asked";
    EXPECT_EQ(site.reason, "has withdrawn from the study");
  }
}

TEST(Sampling, DoesNotWaitAgainForADeadSiteThatWasNotAskedMeanwhile) {
  FederationInMemory federation;
  federation.CreateAndStart(
      {.rounds = 40, .quorum = "policy = \"at_least\"", .rounds_table = "sites_per_round = 2"});
  // st-marys is never heard of. Its limit passes once; rounds that ask it close without it then.
  int waited = 0;
  for (int round = 1; round <= 40; ++round) {
    for (const std::string& site : AskedNow(federation)) {
      if (site != "st-marys") {
        ASSERT_OK(federation.Train(site));
      }
    }
    ASSERT_OK(federation.coordinator().Advance());
    if (federation.Status().round == round) {
      ++waited;
      federation.clock().Advance(std::chrono::minutes(30));
      ASSERT_OK(federation.coordinator().Advance());
    }
    ASSERT_EQ(federation.Status().round, round + 1);
  }

  EXPECT_EQ(waited, 1);
}

}  // namespace
}  // namespace isoscan
