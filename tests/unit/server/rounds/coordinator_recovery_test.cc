#include <fstream>
#include <functional>

#include "tests/support/status_matchers.h"
#include "tests/unit/server/rounds/failing_journal.h"
#include "tests/unit/server/rounds/federation_in_memory.h"

namespace isoscan {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

// Every step of a study of two rounds, final scores and all.
std::vector<std::function<absl::Status(FederationInMemory&)>> StepsOfAStudy() {
  using Steps = std::vector<std::function<absl::Status(FederationInMemory&)>>;
  const TinyStudy study{.sites = {"berlin", "charite"}, .rounds = 2};
  const auto advance = [](FederationInMemory& federation) {
    return federation.coordinator().Advance();
  };
  const auto for_both = [&](Steps& steps, auto act) {
    for (const std::string& site : study.sites) {
      steps.push_back([=](FederationInMemory& federation) { return act(federation, site); });
    }
  };
  Steps steps;
  steps.push_back([=](FederationInMemory& federation) {
    return federation.coordinator().CreateStudy(study.toml()).status();
  });
  for_both(steps, [](FederationInMemory& federation, const std::string& site) {
    return federation.Approve(site);
  });
  steps.push_back([](FederationInMemory& federation) {
    return federation.coordinator().StartStudy("tiny").status();
  });
  for (int round = 1; round <= 2; ++round) {
    for_both(steps, [](FederationInMemory& federation, const std::string& site) {
      return federation.Upload(site).status();
    });
    for_both(steps, [](FederationInMemory& federation, const std::string& site) {
      return federation.Train(site);
    });
    steps.push_back(advance);
  }
  for_both(steps, [](FederationInMemory& federation, const std::string& site) {
    return federation.Score(site);
  });
  steps.push_back(advance);
  return steps;
}

TEST(CoordinatorRecovery, EndsWithTheSameModelsAfterARestartAtEveryStep) {
  const auto steps = StepsOfAStudy();
  FederationInMemory undisturbed;
  for (const auto& step : steps) ASSERT_OK(step(undisturbed));
  ASSERT_EQ(undisturbed.Status().phase, StudyPhase::kFinished);

  for (std::size_t killed_after = 0; killed_after < steps.size(); ++killed_after) {
    FederationInMemory federation;
    for (std::size_t step = 0; step < steps.size(); ++step) {
      ASSERT_OK(steps[step](federation)) << "step " << step;
      if (step == killed_after) federation.Restart();
    }
    EXPECT_EQ(federation.NewestModel(), undisturbed.NewestModel()) << "after " << killed_after;
    EXPECT_EQ(federation.Status().phase, StudyPhase::kFinished) << "after " << killed_after;
    ASSERT_OK_AND_ASSIGN(const StudyRecord record, federation.coordinator().Record("tiny"));
    EXPECT_THAT(record.rounds, SizeIs(2));
    EXPECT_THAT(record.scores, SizeIs(6));
    EXPECT_THAT(federation.StagedFiles(), IsEmpty());
  }
}

TEST(CoordinatorRecovery, AsksTheSameAfterARestart) {
  FederationInMemory federation;
  federation.CreateAndStart({.sites = {"berlin", "charite"}, .rounds = 1, .local_only = true});
  ASSERT_OK(federation.Train("berlin"));
  const auto before = federation.AskedOf("charite");
  federation.Restart();
  EXPECT_EQ(federation.AskedOf("charite"), before);
  EXPECT_EQ(federation.AskedOf("berlin"), std::nullopt);
  ASSERT_OK(federation.Train("charite"));
  ASSERT_OK(federation.coordinator().Advance());
  ASSERT_OK(federation.Score("berlin"));

  federation.Restart();

  ASSERT_THAT(federation.coordinator().AssignmentsOf("berlin"), SizeIs(1));
  EXPECT_EQ(federation.AskedOf("berlin")->kind, Assignment::Kind::kLocalOnly);
  EXPECT_THAT(federation.coordinator().AssignmentsOf("charite"), SizeIs(2));
}

TEST(CoordinatorRecovery, SetsAStudyAsideThatItCannotReadAndGoesOnWithTheOthers) {
  FederationInMemory federation;
  federation.CreateAndStart({.sites = {"berlin"}, .rounds = 1});
  Study old;
  old.name = "old";
  old.toml = "name = \"old\"\n[preprocessing]\nnormalization = \"masked_instance\"\n";
  ASSERT_OK(federation.journal().CreateStudy(old, {}, {}));

  federation.Restart();

  EXPECT_OK(federation.Train("berlin"));
  EXPECT_THAT(federation.coordinator().Studies(), SizeIs(1));
  EXPECT_THAT(federation.coordinator().CreateStudy(TinyStudy{.name = "old"}.toml()),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("set aside")));
}

TEST(CoordinatorRecovery, RemovesUploadsThatAKilledServerLeftBehind) {
  FederationInMemory federation;
  federation.CreateAndStart({.sites = {"berlin"}, .rounds = 2});
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.coordinator().Advance());
  const auto stale = federation.folder() / "uploads/berlin/tiny/round-1";
  std::filesystem::create_directories(stale);
  std::ofstream(stale / std::string(64, 'a')) << "left behind";
  ASSERT_OK(federation.Upload("berlin"));

  federation.Restart();

  EXPECT_FALSE(std::filesystem::exists(stale));
  EXPECT_THAT(federation.StagedFiles(), SizeIs(1)) << "the open round's uploads stay";
}

TEST(CoordinatorRecovery, RemovesModelsThatAKilledServerWasWriting) {
  FederationInMemory federation;
  federation.CreateAndStart({.sites = {"berlin"}});
  const auto models = federation.folder() / "models";
  std::ofstream(models / "tiny.draft.tmp-0a1b2c3d") << "half a model";
  std::ofstream(models / "tiny.draft") << "a model without a name";

  federation.Restart();

  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(models), {}), 2)
      << "the initial model stays, with its block sums";
}

TEST(CoordinatorRecovery, AsksAgainForAnUpdateWhoseFileWasDamaged) {
  FederationInMemory federation;
  federation.CreateAndStart({.sites = {"berlin", "charite"}, .rounds = 1});
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.Train("charite"));
  for (const std::string& file : federation.StagedFiles()) {
    if (file.find("berlin") != std::string::npos) {
      std::filesystem::resize_file(federation.folder() / file, 100);
    }
  }
  federation.Restart();

  ASSERT_OK(federation.coordinator().Advance());

  EXPECT_EQ(federation.AskedOf("berlin")->kind, Assignment::Kind::kTrain);
  EXPECT_EQ(federation.AskedOf("charite"), std::nullopt);
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.coordinator().Advance());
  EXPECT_EQ(federation.Status().round, 2);
}

TEST(CoordinatorRecovery, TellsSitesToWaitWhateverIsWrongWithItsJournal) {
  FederationInMemory federation;
  federation.CreateAndStart({.sites = {"berlin", "charite"}, .rounds = 1});
  ASSERT_OK_AND_ASSIGN(const SiteUpdate update, federation.Upload("berlin"));
  FailingJournal journal(federation.journal());
  ASSERT_OK_AND_ASSIGN(const auto coordinator, Coordinator::Open(journal, federation.clock(),
                                                                 federation.folder() / "models",
                                                                 federation.folder() / "uploads"));
  SiteUpdate of_another_round = update;
  of_another_round.round = 2;

  for (int code = 1; code <= static_cast<int>(absl::StatusCode::kUnauthenticated); ++code) {
    journal.failure = absl::Status(static_cast<absl::StatusCode>(code), "/srv/journal.db: broken");
    const absl::StatusCode expected = absl::IsResourceExhausted(journal.failure)
                                          ? absl::StatusCode::kResourceExhausted
                                          : absl::StatusCode::kUnavailable;
    for (const absl::Status& answer : {coordinator->SubmitUpdate("berlin", update),
                                       coordinator->SubmitUpdate("berlin", of_another_round),
                                       coordinator->Withdraw("berlin", "tiny")}) {
      EXPECT_THAT(answer, StatusIs(expected, Not(HasSubstr("/srv")))) << journal.failure;
    }
  }

  journal.failure = absl::OkStatus();
  ASSERT_OK(coordinator->SubmitUpdate("berlin", update));
  EXPECT_EQ(coordinator->AssignmentsOf("berlin").size(), 0U) << "and nothing was lost";
}

TEST(CoordinatorRecovery, TriesAgainLaterWhenTheModelCannotBeWritten) {
  FederationInMemory federation;
  federation.CreateAndStart({.sites = {"berlin"}, .rounds = 1});
  ASSERT_OK(federation.Train("berlin"));
  const auto models = federation.folder() / "models";
  std::filesystem::rename(models, federation.folder() / "elsewhere");

  EXPECT_FALSE(federation.coordinator().Advance().ok());
  EXPECT_EQ(federation.coordinator().NextDeadline(),
            federation.clock().Now() + std::chrono::seconds(5));

  std::filesystem::rename(federation.folder() / "elsewhere", models);
  ASSERT_OK(federation.coordinator().Advance());
  EXPECT_EQ(federation.Status().round, 1) << "not yet";
  federation.clock().Advance(std::chrono::seconds(5));
  ASSERT_OK(federation.coordinator().Advance());
  EXPECT_EQ(federation.Status().round, 2);
}

}  // namespace
}  // namespace isoscan
