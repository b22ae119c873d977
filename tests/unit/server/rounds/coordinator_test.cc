#include "server/rounds/coordinator.h"

#include <algorithm>
#include <array>

#include "common/study/initial_weights.h"
#include "common/weights/safetensors.h"
#include "common/weights/sha256.h"
#include "server/rounds/model_folder.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/server/rounds/federation_in_memory.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using Kind = Assignment::Kind;

TEST(Coordinator, LeadsThreeSitesThroughAStudy) {
  FederationInMemory federation;
  Coordinator& coordinator = federation.coordinator();
  const std::array<std::string, 3> sites = {"berlin", "charite", "st-marys"};
  federation.CreateAndStart({.rounds = 2, .local_only = true});

  for (int round = 1; round <= 2; ++round) {
    for (const std::string& site : sites) {
      const std::optional<Assignment> asked = federation.AskedOf(site);
      ASSERT_TRUE(asked.has_value());
      EXPECT_EQ(asked->kind, Kind::kTrain);
      EXPECT_EQ(asked->round, round);
      EXPECT_EQ(asked->model_digest, federation.NewestModel());
      ASSERT_OK(federation.Train(site));
      EXPECT_EQ(federation.AskedOf(site), std::nullopt);
    }
    ASSERT_OK(coordinator.Advance());
  }
  EXPECT_EQ(federation.Status().round, 3);
  for (const std::string& site : sites) {
    const std::vector<Assignment> asked = coordinator.AssignmentsOf(site);
    ASSERT_THAT(asked, SizeIs(2));
    EXPECT_EQ(asked[0].kind, Kind::kScore);
    EXPECT_EQ(asked[0].model_digest, federation.NewestModel());
    EXPECT_EQ(asked[1].kind, Kind::kLocalOnly);
    EXPECT_EQ(asked[1].model_digest, coordinator.Models("tiny")->front().digest);
    ASSERT_OK(federation.Score(site));
    ASSERT_OK(
        coordinator.SubmitScores(site, "tiny", Kind::kLocalOnly, FederationInMemory::Scores(0.7)));
  }
  ASSERT_OK(coordinator.Advance());

  EXPECT_EQ(federation.Status().phase, StudyPhase::kFinished);
  EXPECT_EQ(federation.AskedOf("berlin")->kind, Kind::kStudyEnded);
  EXPECT_THAT(federation.StagedFiles(), IsEmpty());
  EXPECT_EQ(coordinator.NextDeadline(), std::nullopt);
}

TEST(Coordinator, StartsAStudyFromTheWeightsThatItNamesOrNotAtAll) {
  FederationInMemory federation;
  Coordinator& coordinator = federation.coordinator();
  ASSERT_OK_AND_ASSIGN(Study study, ParseStudy(TinyStudy().toml(), "study.toml"));
  study.seed = 77;
  const NamedTensors weights = InitialWeights(study);
  NamedTensors others = weights;
  others.begin()->second.values[0] += 1;
  const auto named = [](const std::string& digest) {
    std::string text = TinyStudy().toml();
    const std::string table = "[network]\n";
    return text.insert(text.find(table) + table.size(), "initial_weights = \"" + digest + "\"\n");
  };
  const ModelFolder models(federation.folder() / "models");

  EXPECT_THAT(coordinator.CreateStudy(named(WeightsDigest(weights))),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("isoscan-server import")));
  ASSERT_OK_AND_ASSIGN(const std::string digest, models.Import(weights));
  ASSERT_OK(coordinator.CreateStudy(named(digest)));

  EXPECT_EQ(digest, WeightsDigest(weights));
  ASSERT_OK_AND_ASSIGN(const SafetensorsFile first,
                       SafetensorsFile::Open(models.PathOf(federation.NewestModel())));
  EXPECT_EQ(first.ReadAll(), weights);
  EXPECT_EQ(first.metadata().at("round"), "0");
  EXPECT_NE(federation.NewestModel(), digest);
  // Something else under that name, which only somebody with access to the folder can have put
  // there.
  const std::string other = WeightsDigest(others);
  ASSERT_OK(WriteSafetensors(models.PathOf(other), weights, {}));
  std::string text = named(other);
  text.replace(text.find("\"tiny\""), 6, "\"huge\"");
  EXPECT_THAT(coordinator.CreateStudy(text), StatusIs(absl::StatusCode::kInvalidArgument,
                                                      AllOf(HasSubstr(other), HasSubstr(digest))));
}

TEST(Coordinator, RecordsWhatTheReportIsMadeOf) {
  FederationInMemory federation;
  Coordinator& coordinator = federation.coordinator();
  federation.CreateAndStart({.sites = {"berlin", "charite"}, .rounds = 2});
  for (int round = 1; round <= 2; ++round) {
    federation.clock().Advance(std::chrono::minutes(5));
    ASSERT_OK(federation.Train("berlin"));
    ASSERT_OK(federation.Train("charite"));
    ASSERT_OK(coordinator.Advance());
  }
  ASSERT_OK(federation.Score("berlin"));
  ASSERT_OK(federation.Score("charite"));
  ASSERT_OK(coordinator.Advance());

  ASSERT_OK_AND_ASSIGN(const StudyRecord record, coordinator.Record("tiny"));

  EXPECT_TRUE(record.finished);
  EXPECT_EQ(record.ended, federation.clock().Now());
  ASSERT_THAT(record.sites, SizeIs(2));
  EXPECT_EQ(record.sites[1].name, "charite");
  EXPECT_EQ(record.sites[1].training_cases, 20);
  EXPECT_THAT(record.sites[1].raw.counts, ElementsAre(1, 2, 3));
  ASSERT_THAT(record.rounds, SizeIs(2));
  EXPECT_EQ(record.rounds[1].closed - record.rounds[1].opened, std::chrono::minutes(5));
  EXPECT_EQ(record.rounds[1].model_digest, federation.NewestModel());
  ASSERT_THAT(record.rounds[0].sites, SizeIs(2));
  EXPECT_DOUBLE_EQ(record.rounds[0].sites[0].weight, 1.0 / 3);
  EXPECT_DOUBLE_EQ(record.rounds[0].sites[1].weight, 2.0 / 3);
  EXPECT_EQ(record.rounds[0].sites[0].mean_loss, 0.25);
  // Scores that travel with the update of round r are of the model after round r - 1.
  ASSERT_THAT(record.scores, SizeIs(6));
  for (const ModelScoresRecord& scores : record.scores) {
    EXPECT_DOUBLE_EQ(scores.cases.front().labels.front().dice,
                     scores.after_round == 2 ? 0.9 : 0.1 * (scores.after_round + 1));
    EXPECT_EQ(scores.cases.back().cohort, "3T");
  }
}

TEST(Coordinator, NamesTheBestModelByTheScoresThatCameAfterIt) {
  FederationInMemory federation;
  Coordinator& coordinator = federation.coordinator();
  federation.CreateAndStart({.sites = {"berlin", "charite"}, .rounds = 1});
  EXPECT_THAT(coordinator.Best("tiny"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no model of tiny")));
  ASSERT_OK(federation.Train("berlin"));
  EXPECT_THAT(coordinator.Best("tiny"), StatusIs(absl::StatusCode::kFailedPrecondition));
  ASSERT_OK(federation.Train("charite"));
  ASSERT_OK(coordinator.Advance());

  // Round 1 is closed, and with its updates came the scores of model 0.
  ASSERT_OK_AND_ASSIGN(BestModel best, coordinator.Best("tiny"));
  EXPECT_EQ(best.model.round, 0);
  EXPECT_DOUBLE_EQ(best.score, 0.1);
  ASSERT_OK(federation.Score("berlin"));
  ASSERT_OK_AND_ASSIGN(best, coordinator.Best("tiny"));
  EXPECT_EQ(best.model.round, 0) << "the final scores are not complete";
  ASSERT_OK(federation.Score("charite"));
  ASSERT_OK(coordinator.Advance());

  ASSERT_OK_AND_ASSIGN(best, coordinator.Best("tiny"));
  EXPECT_EQ(best.model.round, 1);
  EXPECT_EQ(best.model.digest, federation.NewestModel());
  EXPECT_DOUBLE_EQ(best.score, 0.9);
  EXPECT_THAT(best.ranking.judges, ElementsAre("berlin", "charite"));
  EXPECT_THAT(best.ranking.models, SizeIs(2));
}

TEST(Coordinator, GivesTheSameModelForAnyOrderOfSubmission) {
  std::vector<std::string> sites = {"berlin", "charite", "st-marys"};
  std::vector<std::string> digests;
  do {
    FederationInMemory federation;
    federation.CreateAndStart({.rounds = 2});
    for (int round = 1; round <= 2; ++round) {
      for (const std::string& site : sites) ASSERT_OK(federation.Train(site));
      ASSERT_OK(federation.coordinator().Advance());
    }
    digests.push_back(federation.NewestModel());
  } while (std::next_permutation(sites.begin(), sites.end()));

  ASSERT_THAT(digests, SizeIs(6));
  EXPECT_THAT(digests, testing::Each(digests.front()));
}

TEST(Coordinator, KeepsEveryGlobalModelUnderItsDigest) {
  FederationInMemory federation;
  Coordinator& coordinator = federation.coordinator();
  federation.CreateAndStart({.sites = {"berlin"}, .rounds = 1});
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(coordinator.Advance());

  ASSERT_OK_AND_ASSIGN(const std::vector<GlobalModelRecord> models, coordinator.Models("tiny"));
  ASSERT_THAT(models, SizeIs(2));
  for (const GlobalModelRecord& model : models) {
    ASSERT_OK_AND_ASSIGN(const auto path, coordinator.ModelOfRound("tiny", model.round));
    EXPECT_THAT(Sha256OfFile(path), IsOkAndHolds(model.digest));
    EXPECT_EQ(static_cast<std::int64_t>(std::filesystem::file_size(path)), model.bytes);
    ASSERT_OK_AND_ASSIGN(const SafetensorsFile file, SafetensorsFile::Open(path));
    EXPECT_EQ(file.metadata().at("study"), "tiny");
    EXPECT_EQ(file.metadata().at("study_digest"), federation.Status().digest);
    EXPECT_EQ(file.metadata().at("round"), std::to_string(model.round));
    EXPECT_OK(CheckHarmonization("the model", file.metadata(), HarmonizationPlan()));
  }
  EXPECT_THAT(coordinator.ModelOfRound("tiny", 2),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no model of round 2")));
}

TEST(Coordinator, TakesTheSameStudyTwiceAndAnotherOfThisNameNever) {
  FederationInMemory federation;
  TinyStudy study;
  ASSERT_OK(federation.coordinator().CreateStudy(study.toml()));

  EXPECT_OK(federation.coordinator().CreateStudy(study.toml()));
  study.rounds = 7;
  EXPECT_THAT(federation.coordinator().CreateStudy(study.toml()),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("another study tiny")));
  EXPECT_THAT(federation.coordinator().CreateStudy("name = 1"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("study.toml")));
}

TEST(Coordinator, StartsOnlyWhenTheQuorumHasApproved) {
  FederationInMemory federation;
  ASSERT_OK(federation.coordinator().CreateStudy(TinyStudy().toml()));
  ASSERT_OK(federation.Approve("charite"));

  EXPECT_THAT(federation.coordinator().StartStudy("tiny"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("the approvals of berlin and st-marys")));
  EXPECT_EQ(federation.Status().waiting_for, "the approvals of berlin and st-marys");
  ASSERT_OK(federation.Approve("berlin"));
  ASSERT_OK(federation.Approve("st-marys"));
  EXPECT_OK(federation.coordinator().StartStudy("tiny"));
  EXPECT_THAT(federation.coordinator().StartStudy("tiny"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("was started before")));
  EXPECT_THAT(federation.coordinator().StartStudy("other"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("other")));
}

TEST(Coordinator, AsksASiteThatComesLateFromTheOpenRoundOn) {
  FederationInMemory federation;
  federation.CreateAndStart({.sites = {}, .rounds = 3}, {"berlin"});
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.coordinator().Advance());

  ASSERT_OK(federation.Approve("charite"));

  EXPECT_EQ(federation.AskedOf("charite")->round, 2);
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.coordinator().Advance());
  EXPECT_EQ(federation.Status().round, 2) << "a site that is at work is waited for";
  ASSERT_OK(federation.Train("charite"));
  ASSERT_OK(federation.coordinator().Advance());
  ASSERT_OK_AND_ASSIGN(const StudyRecord record, federation.coordinator().Record("tiny"));
  ASSERT_THAT(record.rounds, SizeIs(2));
  EXPECT_THAT(record.rounds[0].sites, SizeIs(1));
  EXPECT_THAT(record.rounds[1].sites, SizeIs(2));
}

TEST(Coordinator, ShowsADeclaredStudyToItsSitesAlone) {
  FederationInMemory federation;
  federation.Create({.sites = {"berlin", "charite"}});

  EXPECT_THAT(federation.coordinator().StudiesOf("stranger"), IsEmpty());
  EXPECT_THAT(federation.Approve("stranger"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("none of them")));
  const std::vector<StudyStatus> seen = federation.coordinator().StudiesOf("berlin");
  ASSERT_THAT(seen, SizeIs(1));
  ASSERT_THAT(seen[0].sites, SizeIs(1));
  EXPECT_EQ(seen[0].sites[0].site, "berlin");
  EXPECT_EQ(seen[0].waiting_for, "") << "it would name other sites";
}

TEST(Coordinator, RefusesAnApprovalThatFitsNoStudy) {
  FederationInMemory federation;
  federation.Create({.sites = {}}, {"berlin"});
  const std::string digest = federation.Status().digest;
  SiteRecord cohort = FederationInMemory::CohortOf("charite");

  EXPECT_THAT(federation.coordinator().Approve("charite", "tiny", std::string(64, '0'), cohort),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("read the study again")));
  cohort.held_out_cases = 0;
  EXPECT_THAT(federation.coordinator().Approve("charite", "tiny", digest, cohort),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("0 held-out cases")));
  cohort = FederationInMemory::CohortOf("charite");
  cohort.training_cases = 0;
  EXPECT_THAT(federation.coordinator().Approve("charite", "tiny", digest, cohort),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("0 training cases")));
  EXPECT_THAT(federation.coordinator().Approve("../etc", "tiny", digest, cohort),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no site name")));

  ASSERT_OK(federation.coordinator().StartStudy("tiny"));
  SiteRecord more = FederationInMemory::CohortOf("berlin");
  EXPECT_OK(federation.coordinator().Approve("berlin", "tiny", digest, more));
  more.training_cases = 1000;
  EXPECT_THAT(federation.coordinator().Approve("berlin", "tiny", digest, more),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("cannot declare 1000")));
  ASSERT_OK(federation.coordinator().StopStudy("tiny"));
  EXPECT_THAT(federation.Approve("charite"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("has been stopped")));
}

TEST(Coordinator, ForgetsTheScoresThatAWithdrawnSiteTrainedAloneFor) {
  FederationInMemory federation;
  federation.CreateAndStart({.sites = {"berlin", "charite"}, .rounds = 1, .local_only = true});
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.Train("charite"));
  ASSERT_OK(federation.coordinator().Advance());
  ASSERT_OK(federation.coordinator().SubmitScores("berlin", "tiny", Assignment::Kind::kLocalOnly,
                                                  FederationInMemory::Scores()));

  ASSERT_OK(federation.coordinator().Withdraw("berlin", "tiny"));

  ASSERT_OK_AND_ASSIGN(const StudyRecord record, federation.coordinator().Record("tiny"));
  for (const ModelScoresRecord& scores : record.scores) {
    EXPECT_EQ(scores.model, ModelScoresRecord::Model::kGlobal);
  }
}

TEST(Coordinator, ForgetsTheOpenRoundsUpdateOfASiteThatWithdraws) {
  FederationInMemory federation;
  federation.CreateAndStart({.rounds = 2});
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.Train("charite"));

  ASSERT_OK(federation.coordinator().Withdraw("berlin", "tiny"));
  EXPECT_OK(federation.coordinator().Withdraw("berlin", "tiny"));

  EXPECT_EQ(federation.AskedOf("berlin"), std::nullopt);
  ASSERT_OK(federation.Train("st-marys"));
  ASSERT_OK(federation.coordinator().Advance());
  ASSERT_OK_AND_ASSIGN(const StudyRecord record, federation.coordinator().Record("tiny"));
  ASSERT_THAT(record.rounds, SizeIs(1)) << "the quorum waits for no site that has withdrawn";
  EXPECT_THAT(record.rounds[0].sites[0].reason, HasSubstr("withdrawn"));
  EXPECT_EQ(record.rounds[0].sites[0].weight, 0);
  EXPECT_THAT(record.scores, SizeIs(2));
  EXPECT_TRUE(record.sites[0].withdrawn);

  ASSERT_OK(federation.Approve("berlin"));
  EXPECT_EQ(federation.AskedOf("berlin")->round, 2) << "a site may come back";
}

TEST(Coordinator, NeverMakesAModelOfNothing) {
  FederationInMemory federation;
  federation.CreateAndStart({.sites = {"berlin"}, .rounds = 1});
  ASSERT_OK(federation.coordinator().Withdraw("berlin", "tiny"));
  federation.clock().Advance(std::chrono::hours(100));

  ASSERT_OK(federation.coordinator().Advance());

  EXPECT_EQ(federation.Status().round, 1);
  EXPECT_THAT(federation.Status().waiting_for, HasSubstr("the update of any site"));
}

TEST(Coordinator, AsksNothingWhilePausedAndKeepsWhatArrives) {
  FederationInMemory federation;
  Coordinator& coordinator = federation.coordinator();
  federation.CreateAndStart({.sites = {"berlin", "charite"}, .rounds = 1});
  ASSERT_OK(coordinator.PauseStudy("tiny"));

  EXPECT_EQ(federation.AskedOf("berlin"), std::nullopt);
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.Train("charite"));
  federation.clock().Advance(std::chrono::hours(100));
  ASSERT_OK(coordinator.Advance());
  EXPECT_EQ(federation.Status().round, 1);
  EXPECT_THAT(coordinator.PauseStudy("tiny"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("paused already")));

  ASSERT_OK(coordinator.ResumeStudy("tiny"));
  EXPECT_THAT(federation.Status().waiting_for, IsEmpty()) << "clocks start anew";
  ASSERT_OK(coordinator.Advance());
  EXPECT_EQ(federation.Status().round, 2);
}

TEST(Coordinator, TellsSitesOfAStoppedStudyThatItHasEnded) {
  FederationInMemory federation;
  Coordinator& coordinator = federation.coordinator();
  federation.CreateAndStart({.sites = {"berlin", "charite"}});
  ASSERT_OK(federation.Train("berlin"));

  ASSERT_OK(coordinator.StopStudy("tiny"));

  EXPECT_EQ(federation.AskedOf("berlin")->kind, Kind::kStudyEnded);
  EXPECT_THAT(federation.StagedFiles(), IsEmpty());
  EXPECT_THAT(federation.Train("charite"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("has been stopped")));
  EXPECT_THAT(coordinator.ResumeStudy("tiny"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("has been stopped")));
  ASSERT_OK_AND_ASSIGN(const StudyRecord record, coordinator.Record("tiny"));
  EXPECT_FALSE(record.finished);
  EXPECT_THAT(record.scores, SizeIs(1)) << "scores so far stay";
}

TEST(Coordinator, RunsTwoStudiesAtOnce) {
  FederationInMemory federation;
  federation.CreateAndStart({.name = "first", .sites = {"berlin", "charite"}, .rounds = 2});
  federation.CreateAndStart({.name = "second", .sites = {"berlin", "st-marys"}, .rounds = 1});

  EXPECT_THAT(federation.coordinator().AssignmentsOf("berlin"), SizeIs(2));
  ASSERT_OK(federation.Train("berlin", "second"));
  ASSERT_OK(federation.Train("st-marys", "second"));
  ASSERT_OK(federation.coordinator().Advance());

  EXPECT_EQ(federation.Status("second").round, 2);
  EXPECT_EQ(federation.Status("first").round, 1);
  EXPECT_THAT(federation.Train("st-marys", "first"), StatusIs(absl::StatusCode::kNotFound));
}

TEST(Coordinator, TellsObserversOfEveryChangeAndOfNothingElse) {
  FederationInMemory federation;
  int changes = 0;
  federation.coordinator().Observe([&] {
    ++changes;
    // An observer may ask: no lock is held.
    federation.Status();
  });
  federation.CreateAndStart({.sites = {"berlin"}, .rounds = 1});
  EXPECT_EQ(changes, 3) << "created, approved, started";

  ASSERT_OK(federation.coordinator().Advance());
  EXPECT_EQ(changes, 3);
  ASSERT_OK(federation.Train("berlin"));
  EXPECT_EQ(changes, 4);
  ASSERT_OK(federation.coordinator().Advance());
  EXPECT_EQ(changes, 5);
}

}  // namespace
}  // namespace isoscan
