// Who is waited for, for how long, and who is left out.

#include "tests/support/status_matchers.h"
#include "tests/unit/server/rounds/federation_in_memory.h"

namespace isoscan {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr char kTwoOfThree[] = "policy = \"at_least\"\nminimum_sites = 2";

TEST(Quorum, ClosesWithoutASiteThatHasFallenSilent) {
  FederationInMemory federation;
  federation.CreateAndStart({.quorum = kTwoOfThree});
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.Train("charite"));
  federation.clock().Advance(minutes(29));
  ASSERT_OK(federation.coordinator().Advance());
  EXPECT_EQ(federation.Status().round, 1);
  EXPECT_EQ(federation.coordinator().NextDeadline(), federation.clock().Now() + minutes(1));

  federation.clock().Advance(minutes(1));
  ASSERT_OK(federation.coordinator().Advance());

  EXPECT_EQ(federation.Status().round, 2);
  ASSERT_OK_AND_ASSIGN(const StudyRecord record, federation.coordinator().Record("tiny"));
  const ParticipationRecord& left_out = record.rounds[0].sites[2];
  EXPECT_EQ(left_out.outcome, ParticipationRecord::Outcome::kLeftOut);
  EXPECT_EQ(left_out.reason, "no progress for 30 minutes, silent since 00:00 UTC");
}

TEST(Quorum, WaitsForASiteThatShowsProgress) {
  FederationInMemory federation;
  federation.CreateAndStart({.quorum = kTwoOfThree});
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.Train("charite"));
  for (int step = 0; step < 10; ++step) {
    federation.clock().Advance(minutes(20));
    ASSERT_OK(federation.coordinator().ReportProgress("st-marys", "tiny", 1, "training", step, 10));
    ASSERT_OK(federation.coordinator().Advance());
  }
  EXPECT_EQ(federation.Status().round, 1);
  EXPECT_EQ(federation.Status().sites[2].activity, "training");
  EXPECT_EQ(federation.Status().sites[2].step, 9);

  ASSERT_OK(federation.Train("st-marys"));
  ASSERT_OK(federation.coordinator().Advance());

  EXPECT_EQ(federation.Status().round, 2);
}

TEST(Quorum, WaitsForASiteWhoseBytesGoOverTheWire) {
  FederationInMemory federation;
  federation.CreateAndStart({.quorum = kTwoOfThree});
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.Train("charite"));
  for (int part = 0; part < 10; ++part) {
    federation.clock().Advance(minutes(20));
    federation.coordinator().NoteTransfer("st-marys", "tiny");
    ASSERT_OK(federation.coordinator().Advance());
  }
  EXPECT_EQ(federation.Status().round, 1);

  federation.coordinator().NoteTransfer("st-marys", "no such study");
  federation.clock().Advance(minutes(31));
  ASSERT_OK(federation.coordinator().Advance());

  EXPECT_EQ(federation.Status().round, 2);
}

TEST(Quorum, GivesUpASiteWhoseWorkHangs) {
  FederationInMemory federation;
  federation.CreateAndStart({.quorum = kTwoOfThree});
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.Train("charite"));
  for (int report = 0; report < 4; ++report) {
    ASSERT_OK(federation.coordinator().ReportProgress("st-marys", "tiny", 1, "training", 5, 10));
    ASSERT_OK(federation.coordinator().Advance());
    federation.clock().Advance(minutes(10));
  }
  ASSERT_OK(federation.coordinator().Advance());

  EXPECT_EQ(federation.Status().round, 2) << "the same step for 40 minutes is no progress";
}

TEST(Quorum, PaysOnceForADeadSiteAndAsksItAgainWhenItComesBack) {
  FederationInMemory federation;
  federation.CreateAndStart({.rounds = 4, .quorum = kTwoOfThree});
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.Train("charite"));
  federation.clock().Advance(minutes(30));
  ASSERT_OK(federation.coordinator().Advance());
  ASSERT_EQ(federation.Status().round, 2);
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.Train("charite"));
  ASSERT_OK(federation.coordinator().Advance());
  ASSERT_EQ(federation.Status().round, 3) << "nobody waits another 30 minutes for a dead site";

  federation.coordinator().SetConnected("st-marys", true);
  EXPECT_EQ(federation.AskedOf("st-marys")->round, 3);
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.Train("charite"));
  ASSERT_OK(federation.coordinator().Advance());
  EXPECT_EQ(federation.Status().round, 3) << "a site that is back is waited for";
  ASSERT_OK(federation.Train("st-marys"));
  ASSERT_OK(federation.coordinator().Advance());

  EXPECT_EQ(federation.Status().round, 4);
  EXPECT_TRUE(federation.Status().sites[2].connected);
}

TEST(Quorum, OfAllWaitsForASilentSiteAndSaysSo) {
  FederationInMemory federation;
  federation.CreateAndStart({});
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.Train("charite"));
  EXPECT_THAT(federation.Status().waiting_for, IsEmpty());
  int changes = 0;
  federation.coordinator().Observe([&] { ++changes; });
  federation.clock().Advance(minutes(31));

  ASSERT_OK(federation.coordinator().Advance());
  EXPECT_EQ(changes, 1) << "that a site is silent is news";
  ASSERT_OK(federation.coordinator().Advance());
  EXPECT_EQ(changes, 1);

  EXPECT_EQ(federation.Status().round, 1);
  EXPECT_EQ(federation.Status().waiting_for,
            "round 1 waits for st-marys (silent since 00:00 UTC); "
            "round 1 still needs the update of st-marys");
  EXPECT_EQ(federation.Status().sites[2].activity, "silent since 00:00 UTC");
  EXPECT_EQ(federation.coordinator().NextDeadline(),
            federation.clock().Now() + hours(24) - minutes(31));
  ASSERT_OK(federation.Train("st-marys"));
  ASSERT_OK(federation.coordinator().Advance());
  EXPECT_EQ(federation.Status().round, 2);
}

TEST(Quorum, LeavesOutWhoHasNotFinishedByTheDeadline) {
  FederationInMemory federation;
  federation.CreateAndStart({.quorum = kTwoOfThree});
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.Train("charite"));
  federation.clock().Advance(hours(24));
  ASSERT_OK(federation.coordinator().ReportProgress("st-marys", "tiny", 1, "training", 1, 10));

  ASSERT_OK(federation.coordinator().Advance());

  ASSERT_OK_AND_ASSIGN(const StudyRecord record, federation.coordinator().Record("tiny"));
  ASSERT_THAT(record.rounds, SizeIs(1));
  EXPECT_EQ(record.rounds[0].sites[2].reason, "no update by the deadline of 24 hours");
  EXPECT_EQ(federation.AskedOf("st-marys")->round, 2);
}

TEST(Quorum, KeepsARoundOpenPastItsDeadlineUntilItIsComplete) {
  FederationInMemory federation;
  federation.CreateAndStart({.quorum = kTwoOfThree});
  ASSERT_OK(federation.Train("berlin"));
  federation.clock().Advance(hours(25));

  ASSERT_OK(federation.coordinator().Advance());
  EXPECT_EQ(federation.Status().round, 1);
  EXPECT_THAT(federation.Status().waiting_for,
              AllOf(HasSubstr("past its deadline of 24 hours"),
                    HasSubstr("still needs updates of at least 2 sites (1 so far)")));
  EXPECT_EQ(federation.coordinator().NextDeadline(), std::nullopt) << "only a site can help now";
  ASSERT_OK(federation.Train("charite"));
  ASSERT_OK(federation.coordinator().Advance());

  EXPECT_EQ(federation.Status().round, 2);
}

TEST(Quorum, GivesTheDeadlineAnewAfterAPause) {
  FederationInMemory federation;
  federation.CreateAndStart({.quorum = kTwoOfThree});
  ASSERT_OK(federation.coordinator().PauseStudy("tiny"));
  federation.clock().Advance(hours(100));
  ASSERT_OK(federation.coordinator().ResumeStudy("tiny"));
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.Train("charite"));

  ASSERT_OK(federation.coordinator().Advance());
  EXPECT_EQ(federation.Status().round, 1);
  federation.Restart();
  ASSERT_OK(federation.coordinator().Advance());
  EXPECT_EQ(federation.Status().round, 1);
}

TEST(Quorum, StartsTheClocksOfSilenceAnewWithTheServer) {
  FederationInMemory federation;
  federation.CreateAndStart({.quorum = kTwoOfThree});
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.Train("charite"));
  federation.clock().Advance(hours(2));

  federation.Restart();
  ASSERT_OK(federation.coordinator().Advance());

  EXPECT_EQ(federation.Status().round, 1) << "the server was away, not the site";
}

TEST(Quorum, EndsAStudyWithoutTheScoresOfASilentSite) {
  FederationInMemory federation;
  federation.CreateAndStart({.sites = {"berlin", "charite"}, .rounds = 1});
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.Train("charite"));
  ASSERT_OK(federation.coordinator().Advance());
  federation.clock().Advance(minutes(40));
  ASSERT_OK(federation.coordinator().Advance());
  EXPECT_EQ(federation.Status().phase, StudyPhase::kRunning) << "no score at all is here";
  EXPECT_THAT(federation.Status().waiting_for,
              HasSubstr("the final scores wait for berlin (silent since 00:00 UTC) and charite"));

  ASSERT_OK(federation.Score("berlin"));
  ASSERT_OK(federation.coordinator().Advance());

  EXPECT_EQ(federation.Status().phase, StudyPhase::kFinished);
  EXPECT_EQ(federation.AskedOf("charite")->kind, Assignment::Kind::kStudyEnded);
}

TEST(Quorum, LetsADeclaredSiteThatNeverApprovedMissTheRounds) {
  FederationInMemory federation;
  federation.CreateAndStart({.quorum = kTwoOfThree}, {"berlin", "charite"});
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.Train("charite"));

  ASSERT_OK(federation.coordinator().Advance());

  ASSERT_OK_AND_ASSIGN(const StudyRecord record, federation.coordinator().Record("tiny"));
  ASSERT_THAT(record.rounds, SizeIs(1));
  EXPECT_EQ(record.rounds[0].sites[2].reason, "had not approved the study");
}

}  // namespace
}  // namespace isoscan
