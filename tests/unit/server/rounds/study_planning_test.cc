// A draft, from its creation to the study that is planned from its sites' fingerprints.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/planning/planned_study.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/server/rounds/federation_in_memory.h"

namespace isoscan {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr char kDraft[] = R"(name = "tiny"
channels = ["T1w"]
labels = ["ball", "rim"]
sites = ["berlin", "charite"]
[planning]
memory_gb = 0.05
)";

Fingerprint FingerprintOf(std::int64_t cases, std::int64_t size = 16) {
  Fingerprint fingerprint = Fingerprint::Empty(1, 3);
  const std::vector<float> intensities = {1, 2, 3};
  for (std::int64_t i = 0; i < cases; ++i) {
    EXPECT_OK(fingerprint.AddCase({.spacing_mm = {2, 2, 2},
                                   .size = {size, size + i % 3, size},
                                   .foreground = {intensities}}));
  }
  return Disclosed(fingerprint);
}

class StudyPlanning : public testing::Test {
 protected:
  StudyPlanning() {
    EXPECT_OK(coordinator().CreateStudy(kDraft));
    draft_digest_ = federation_.Status().digest;
  }

  Coordinator& coordinator() { return federation_.coordinator(); }
  absl::Status ApproveDraft(const std::string& site, std::optional<Fingerprint> fingerprint) {
    SiteRecord cohort = FederationInMemory::CohortOf(site);
    if (fingerprint.has_value()) cohort.training_cases = fingerprint->cases;
    cohort.fingerprint = std::move(fingerprint);
    return coordinator().Approve(site, "tiny", draft_digest_, cohort);
  }

  FederationInMemory federation_;
  std::string draft_digest_;
};

TEST_F(StudyPlanning, PutsThePlanInThePlaceOfTheDraftForEverySiteToApprove) {
  ASSERT_OK(ApproveDraft("berlin", FingerprintOf(6)));
  EXPECT_THAT(federation_.Status().waiting_for, HasSubstr("charite"));
  ASSERT_OK(ApproveDraft("charite", FingerprintOf(9)));
  EXPECT_THAT(federation_.Status().waiting_for, HasSubstr("study plan tiny"));
  EXPECT_THAT(coordinator().StartStudy("tiny"),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("tiny is a draft")));

  ASSERT_OK_AND_ASSIGN(const StudyStatus planned, coordinator().PlanStudy("tiny"));

  ASSERT_OK_AND_ASSIGN(const Study draft, ParseStudy(kDraft, "draft"));
  ASSERT_OK_AND_ASSIGN(const Study expected, PlannedStudy(draft, {{"berlin", FingerprintOf(6)},
                                                                  {"charite", FingerprintOf(9)}}));
  EXPECT_EQ(planned.toml, expected.toml);
  EXPECT_EQ(planned.digest, expected.digest);
  for (const SiteStatus& site : planned.sites) EXPECT_FALSE(site.approved) << site.site;
  EXPECT_THAT(coordinator().StartStudy("tiny"), StatusIs(StatusCode::kFailedPrecondition));
  ASSERT_OK(federation_.Approve("berlin"));
  ASSERT_OK(federation_.Approve("charite"));
  ASSERT_OK(coordinator().StartStudy("tiny"));
  ASSERT_OK(federation_.Train("berlin"));
  ASSERT_OK(federation_.Train("charite"));
  ASSERT_OK(coordinator().Advance());
  EXPECT_EQ(federation_.Status().round, 2);
}

TEST_F(StudyPlanning, ChangesNothingTheSecondTime) {
  ASSERT_OK(ApproveDraft("berlin", FingerprintOf(6)));
  ASSERT_OK(ApproveDraft("charite", FingerprintOf(9)));
  ASSERT_OK_AND_ASSIGN(const StudyStatus planned, coordinator().PlanStudy("tiny"));
  ASSERT_OK(federation_.Approve("berlin"));

  for (const bool restarted : {false, true}) {
    if (restarted) federation_.Restart();
    ASSERT_OK_AND_ASSIGN(const StudyStatus again, coordinator().PlanStudy("tiny"));
    EXPECT_EQ(again.digest, planned.digest);
    EXPECT_TRUE(again.sites[0].approved) << "an approval of the plan is not void";
    ASSERT_OK_AND_ASSIGN(const StudyStatus created, coordinator().CreateStudy(kDraft));
    EXPECT_EQ(created.digest, planned.digest) << "the draft's text again";
  }
}

TEST_F(StudyPlanning, IsTheSameAfterARestart) {
  ASSERT_OK(ApproveDraft("berlin", FingerprintOf(6)));
  ASSERT_OK(ApproveDraft("charite", FingerprintOf(9)));

  federation_.Restart();
  ASSERT_OK_AND_ASSIGN(const StudyStatus planned, coordinator().PlanStudy("tiny"));

  ASSERT_OK_AND_ASSIGN(const Study draft, ParseStudy(kDraft, "draft"));
  ASSERT_OK_AND_ASSIGN(const Study expected, PlannedStudy(draft, {{"berlin", FingerprintOf(6)},
                                                                  {"charite", FingerprintOf(9)}}));
  EXPECT_EQ(planned.digest, expected.digest);
  federation_.Restart();
  EXPECT_EQ(federation_.Status().digest, expected.digest);
  EXPECT_THAT(*coordinator().Models("tiny"), SizeIs(1));
}

TEST_F(StudyPlanning, KeepsOneModelAndNoFingerprint) {
  ASSERT_OK(ApproveDraft("berlin", FingerprintOf(6)));
  ASSERT_OK(ApproveDraft("charite", FingerprintOf(9)));
  ASSERT_OK(coordinator().PlanStudy("tiny"));

  ASSERT_OK_AND_ASSIGN(const auto model, coordinator().ModelOfRound("tiny", 0));
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(federation_.folder() / "models")) {
    files.push_back(entry.path().string());
  }
  EXPECT_THAT(files, testing::UnorderedElementsAre(model.string(), model.string() + ".sums"));
  ASSERT_OK_AND_ASSIGN(const auto studies, federation_.journal().Studies());
  EXPECT_THAT(studies[0].participants, IsEmpty());
  EXPECT_EQ(studies[0].draft_digest, draft_digest_);
}

TEST_F(StudyPlanning, NeedsTheDeclaredSites) {
  ASSERT_OK(ApproveDraft("berlin", FingerprintOf(6)));

  EXPECT_THAT(coordinator().PlanStudy("tiny"),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("charite")));
  EXPECT_THAT(coordinator().PlanStudy("absent"), StatusIs(StatusCode::kNotFound));
  ASSERT_OK(coordinator().StopStudy("tiny"));
  EXPECT_THAT(coordinator().PlanStudy("tiny"),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("has been stopped")));
}

TEST_F(StudyPlanning, LeavesOutASiteThatHasWithdrawn) {
  ASSERT_OK(ApproveDraft("berlin", FingerprintOf(6)));
  ASSERT_OK(ApproveDraft("charite", FingerprintOf(9, 40)));
  ASSERT_OK(coordinator().Withdraw("charite", "tiny"));
  federation_.Restart();
  ASSERT_OK_AND_ASSIGN(const auto studies, federation_.journal().Studies());
  EXPECT_FALSE(studies[0].participants[1].cohort.fingerprint.has_value());

  ASSERT_OK_AND_ASSIGN(const StudyStatus planned, coordinator().PlanStudy("tiny"));

  EXPECT_THAT(planned.toml, HasSubstr("from 6 training cases"));
  EXPECT_TRUE(planned.sites[1].withdrawn);
  ASSERT_OK(federation_.Approve("berlin"));
  EXPECT_OK(coordinator().StartStudy("tiny").status());
}

TEST_F(StudyPlanning, TellsASiteThatApprovesTheDraftTooLate) {
  ASSERT_OK(ApproveDraft("berlin", FingerprintOf(6)));
  ASSERT_OK(ApproveDraft("charite", FingerprintOf(9)));
  ASSERT_OK(coordinator().PlanStudy("tiny"));

  EXPECT_THAT(ApproveDraft("charite", FingerprintOf(9)),
              StatusIs(StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("has been planned"), HasSubstr("study show tiny"))));
}

TEST_F(StudyPlanning, IsNotPossibleWhereAllSitesAreSmall) {
  ASSERT_OK(ApproveDraft("berlin", FingerprintOf(4)));
  ASSERT_OK(ApproveDraft("charite", FingerprintOf(3)));

  EXPECT_THAT(coordinator().PlanStudy("tiny"),
              StatusIs(StatusCode::kFailedPrecondition,
                       HasSubstr("none of 2 sites has the 5 training cases")));
  EXPECT_EQ(federation_.Status().digest, draft_digest_);
}

TEST_F(StudyPlanning, RefusesAFingerprintThatCannotBe) {
  const auto refuses = [this](std::optional<Fingerprint> fingerprint, const std::string& reason) {
    EXPECT_THAT(
        ApproveDraft("berlin", std::move(fingerprint)),
        StatusIs(StatusCode::kInvalidArgument, AllOf(HasSubstr("berlin"), HasSubstr(reason))));
  };
  refuses(std::nullopt, "sent no fingerprint");
  Fingerprint hostile = FingerprintOf(6);
  hostile.spacing_mm[1].Add(2);
  refuses(hostile, "a distribution of 7 cases, expected 6");
  hostile = FingerprintOf(6);
  hostile.intensities[0].moments.mean = NAN;
  refuses(hostile, "mean nan");
  hostile = FingerprintOf(6);
  hostile.classes = 2;
  refuses(hostile, "2 classes, expected 1 and 3");
  hostile = FingerprintOf(6);
  hostile.cases = 4;
  refuses(hostile, "distributions of 6 of its 4 training cases");

  SiteRecord cohort = FederationInMemory::CohortOf("berlin");
  cohort.fingerprint = FingerprintOf(6);  // Of 10 training cases.
  EXPECT_THAT(coordinator().Approve("berlin", "tiny", draft_digest_, cohort),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("a fingerprint of 6 cases, it has 10 training cases")));
}

TEST(StudyPlanningOfOthers, AsksForNoFingerprint) {
  FederationInMemory federation;
  ASSERT_OK_AND_ASSIGN(const StudyStatus status,
                       federation.coordinator().CreateStudy(TinyStudy().toml()));
  SiteRecord cohort = FederationInMemory::CohortOf("berlin");
  cohort.fingerprint = FingerprintOf(10);

  EXPECT_THAT(federation.coordinator().Approve("berlin", "tiny", status.digest, cohort),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("berlin sent a fingerprint, which tiny does not ask for")));
  ASSERT_OK_AND_ASSIGN(const StudyStatus same, federation.coordinator().PlanStudy("tiny"));
  EXPECT_EQ(same.digest, status.digest);
}

}  // namespace
}  // namespace isoscan
