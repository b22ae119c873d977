#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/status/status_macros.h"
#include "common/study/initial_weights.h"
#include "common/study/schedule.h"
#include "common/weights/safetensors.h"
#include "common/weights/sha256.h"
#include "server/aggregation/round_aggregate.h"
#include "tests/support/file_content.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/server/rounds/federation_in_memory.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::Each;
using testing::HasSubstr;
using testing::Key;
using testing::Not;
using testing::SizeIs;

/// What differs from a plain mean in rounds of a real coordinator with a journal and files.
class Strategies : public testing::Test {
 protected:
  NamedTensors Model(int round) {
    const auto path = federation_.coordinator().ModelOfRound("tiny", round);
    EXPECT_OK(path);
    const auto file = SafetensorsFile::Open(*path);
    EXPECT_OK(file);
    return file->ReadAll();
  }
  Study Parsed() {
    const auto study = ParseStudy(federation_.Status().toml, "tiny");
    EXPECT_OK(study);
    return *study;
  }
  /// Hands these tensors in as the site's update of the open round.
  absl::Status Submit(const std::string& site, const NamedTensors& tensors,
                      std::int64_t steps = 1) {
    const StudyStatus status = federation_.Status();
    const auto metadata = WeightsMetadataOf(Parsed(), status.round);
    const std::string digest = Sha256Of(EncodeSafetensors(tensors, metadata));
    ASSIGN_OR_RETURN(
        const std::filesystem::path path,
        federation_.coordinator().UploadPath(site, "tiny", status.round, digest, 1000));
    RETURN_IF_ERROR(WriteSafetensors(path, tensors, metadata));
    SiteUpdate update;
    update.study = "tiny";
    update.round = status.round;
    update.weights_digest = digest;
    update.training_cases = FederationInMemory::CohortOf(site).training_cases;
    update.steps = steps;
    return federation_.coordinator().SubmitUpdate(site, update);
  }

  FederationInMemory federation_;
};

// FedBN: what stays at the sites is in no model of the server, and in no update.
TEST_F(Strategies, LocalLayersNeverReachTheServer) {
  federation_.CreateAndStart(
      {.sites = {"berlin", "charite"}, .network = "local_layers = [\"norm\"]"});
  EXPECT_THAT(Model(0), Each(Key(Not(HasSubstr(".norm.")))));

  EXPECT_THAT(Submit("berlin", InitialWeights(Parsed())),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("norm")));
  ASSERT_OK(federation_.Train("berlin"));
  federation_.Restart();
  ASSERT_OK(federation_.Train("charite"));
  ASSERT_OK(federation_.coordinator().Advance());

  EXPECT_EQ(federation_.Status().round, 2);
  EXPECT_EQ(ShapesOf(Model(1)), ShapesOf(Model(0)));
  EXPECT_NE(Model(1), Model(0));
}

// --- FedNova
// ---------------------------------------------------------------------------------------

// 10 cases of berlin and 30 of st-marys, one pass each: 10 and 30 steps.
TEST_F(Strategies, FedNovaWeighsWhatSitesChangeByTheirSteps) {
  federation_.CreateAndStart({.sites = {"berlin", "st-marys"},
                              .rounds = 1,
                              .training = "passes_per_round = 1\nmomentum = 0.99",
                              .aggregation = "fednova"});
  const NamedTensors start = Model(0);
  const auto moved = [&](float by) {
    NamedTensors tensors = start;
    for (auto& [name, tensor] : tensors) {
      for (float& value : tensor.values) value += by;
    }
    return tensors;
  };
  EXPECT_THAT(Submit("berlin", moved(1), 30),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("berlin took 30 steps, the study asks for 10")));
  ASSERT_OK(Submit("berlin", moved(1), 10));
  federation_.Restart();  // The steps are in the journal.
  ASSERT_OK(Submit("st-marys", moved(4), 30));
  ASSERT_OK(federation_.coordinator().Advance());

  const TrainingPlan plan = Parsed().training;
  const double of_berlin = EffectiveSteps(plan, {.first = 0, .count = 10, .total = 10});
  const double of_st_marys = EffectiveSteps(plan, {.first = 0, .count = 30, .total = 30});
  const double expected =
      (0.25 * of_berlin + 0.75 * of_st_marys) * (0.25 * 1 / of_berlin + 0.75 * 4 / of_st_marys);
  EXPECT_GT(std::abs(expected - 3.25), 0.1) << "as a plain mean would be";
  const auto& [name, tensor] = *start.begin();
  EXPECT_NEAR(Model(1).at(name).values[0] - tensor.values[0], expected, 1e-5);
}

// --- SCAFFOLD
// --------------------------------------------------------------------------------------

TEST_F(Strategies, ScaffoldsControlVariatesAreTheMeanOverAllSitesAndLast) {
  federation_.CreateAndStart({.sites = {"berlin", "charite", "st-marys"},
                              .quorum = "policy = \"at_least\"\nminimum_sites = 2",
                              .training = "steps_per_round = 1\nmomentum = 0",
                              .aggregation = "scaffold"});
  const NamedTensors start = Model(0);
  const std::string name = "encoder.stages.0.0.convs.0.conv.bias";
  const std::string control = "control." + name;
  ASSERT_TRUE(start.contains(control));
  EXPECT_THAT(start.at(control).values, Each(0));
  EXPECT_THAT(Submit("berlin", InitialWeights(Parsed())),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("control.")));
  const auto with = [&](float weight, float change) {
    NamedTensors tensors = start;
    for (float& value : tensors.at(name).values) value = weight;
    for (float& value : tensors.at(control).values) value = change;
    return tensors;
  };

  // charite (20 of 60 cases) is silent: its control variates have not changed.
  ASSERT_OK(Submit("berlin", with(1, 6)));
  ASSERT_OK(Submit("st-marys", with(3, 12)));
  federation_.clock().Advance(std::chrono::minutes(31));
  ASSERT_OK(federation_.coordinator().Advance());

  EXPECT_EQ(federation_.Status().round, 2);
  EXPECT_FLOAT_EQ(Model(1).at(name).values[0], 2.5F);
  EXPECT_FLOAT_EQ(Model(1).at(control).values[0], 6.0F / 6 + 12.0F / 2);
  federation_.Restart();
  ASSERT_OK(Submit("berlin", with(1, 6)));
  ASSERT_OK(Submit("charite", with(1, -3)));
  ASSERT_OK(Submit("st-marys", with(1, 0)));
  ASSERT_OK(federation_.coordinator().Advance());
  EXPECT_FLOAT_EQ(Model(2).at(control).values[0], 7 + 6.0F / 6 - 3.0F / 3);
}

// A round that asks one of two sites alike moves c by half of what that site's has changed: the
// paper's |S| / N.
TEST_F(Strategies, ScaffoldsControlVariatesCountTheSitesThatARoundDoesNotAsk) {
  federation_.CreateAndStart({.sites = {"leipzig", "mainz"},
                              .training = "steps_per_round = 1\nmomentum = 0",
                              .aggregation = "scaffold",
                              .rounds_table = "sites_per_round = 1"});
  const std::string site = federation_.AskedOf("mainz").has_value() ? "mainz" : "leipzig";
  NamedTensors tensors = Model(0);
  const std::string name = "encoder.stages.0.0.convs.0.conv.bias";
  for (float& value : tensors.at(name).values) value = 5;
  for (float& value : tensors.at("control." + name).values) value = 20;

  ASSERT_OK(Submit(site, tensors));
  ASSERT_OK(federation_.coordinator().Advance());

  EXPECT_EQ(federation_.Status().round, 2);
  EXPECT_FLOAT_EQ(Model(1).at(name).values[0], 5) << "the mean of those that were asked";
  EXPECT_FLOAT_EQ(Model(1).at("control." + name).values[0], 10);
}

// --- The server's own optimisers, fair and robust aggregation
// --------------------------------------------------------------------------------------------------

/// Seven sites, so that every rule has enough of them; what comes out of a study of three rounds.
class EveryAggregation : public testing::TestWithParam<StrategyPlan::Kind> {
 protected:
  static constexpr int kRounds = 3;
  static TinyStudy TheStudy() {
    return {.sites = {"a", "b", "c", "d", "e", "f", "g"},
            .rounds = kRounds,
            .training = "steps_per_round = 1\nmomentum = 0",
            .aggregation = std::string(ToString(GetParam()))};
  }
  static std::map<std::string, double> Losses() {
    return {{"a", -0.9}, {"b", 0.4}, {"c", 0.1}, {"d", 2}, {"e", -1}, {"f", 0}, {"g", 0.3}};
  }
  static ServerState StateOf(FederationInMemory& federation) {
    const auto studies = federation.journal().Studies();
    EXPECT_OK(studies);
    return studies.ok() ? studies->at(0).state : ServerState();
  }
  static std::size_t StatesOnDisk(const FederationInMemory& federation) {
    std::size_t states = 0;
    for (const auto& entry : std::filesystem::directory_iterator(federation.folder() / "models")) {
      if (entry.path().extension() == ".state") ++states;
    }
    return states;
  }
  /// Digests of models and states of the rounds; `between` is called after every step.
  static std::vector<std::string> Run(FederationInMemory& federation,
                                      const std::function<void()>& between) {
    std::vector<std::string> digests;
    const TinyStudy study = TheStudy();
    federation.CreateAndStart(study);
    federation.set_loss_before(Losses());
    for (int round = 1; round <= kRounds; ++round) {
      for (const std::string& site : study.sites) {
        EXPECT_OK(federation.Train(site));
        between();
      }
      EXPECT_OK(federation.coordinator().Advance());
      between();
      EXPECT_EQ(federation.Status().round, round + 1);
      const ServerState state = StateOf(federation);
      digests.push_back(federation.NewestModel() + " " + state.digest);
      for (const auto& [site, weight] : state.site_weights) {
        digests.push_back(fmt::format("{} {} {}", round, site, weight));
      }
      EXPECT_EQ(StatesOnDisk(federation), HasState({.kind = GetParam()}) ? 1 : 0);
    }
    for (const std::string& site : study.sites) EXPECT_OK(federation.Score(site));
    EXPECT_OK(federation.coordinator().Advance());
    EXPECT_EQ(federation.Status().phase, StudyPhase::kFinished);
    EXPECT_EQ(StateOf(federation), ServerState());
    EXPECT_EQ(StatesOnDisk(federation), 0);
    return digests;
  }
};

INSTANTIATE_TEST_SUITE_P(All, EveryAggregation, testing::ValuesIn(StrategyKinds()),
                         [](const auto& kind) { return std::string(ToString(kind.param)); });

TEST_P(EveryAggregation, EndsInTheSameBitsWithARestartAfterEveryStep) {
  FederationInMemory undisturbed;
  const std::vector<std::string> expected = Run(undisturbed, [] {});
  FederationInMemory restarted;
  const std::vector<std::string> found = Run(restarted, [&] { restarted.Restart(); });

  EXPECT_EQ(found, expected);
  EXPECT_EQ(std::set<std::string>(expected.begin(), expected.end()).size(), expected.size())
      << "no round gives what another gave";
  ASSERT_OK_AND_ASSIGN(const StudyRecord record, restarted.coordinator().Record("tiny"));
  ASSERT_THAT(record.rounds, SizeIs(kRounds));
  for (const RoundRecord& round : record.rounds) {
    double sum = 0;
    for (const ParticipationRecord& site : round.sites) {
      EXPECT_EQ(site.weight > 0, site.reason.empty()) << site.site << " " << site.reason;
      EXPECT_GT(site.training_cases, 0);
      sum += site.weight;
    }
    EXPECT_NEAR(sum, 1, 1e-9);
  }
}

TEST_F(Strategies, RemovesAStateThatAKilledServerLeftBehind) {
  federation_.CreateAndStart({.sites = {"berlin"}, .aggregation = "fedadam"});
  ASSERT_OK(federation_.Train("berlin"));
  ASSERT_OK(federation_.coordinator().Advance());
  const auto models = federation_.folder() / "models";
  const std::string stranger = std::string(64, 'a') + ".state";
  WriteText(models / stranger, "left behind");
  WriteText(models / (stranger + ".sums"), "left behind");
  WriteText(models / "tiny.draft.state", "half a state");

  federation_.Restart();

  std::vector<std::string> states;
  for (const auto& entry : std::filesystem::directory_iterator(models)) {
    const std::string name = entry.path().filename().string();
    if (name.find(".state") != name.npos) states.push_back(name);
  }
  EXPECT_THAT(states, SizeIs(2)) << "the newest round's, with its block sums";
  ASSERT_OK(federation_.Train("berlin"));
  ASSERT_OK(federation_.coordinator().Advance());
  EXPECT_EQ(federation_.Status().round, 3);
}

TEST_F(Strategies, StopAtAStateThatWasDamagedAndGoOnOnceItIsPutBack) {
  federation_.CreateAndStart({.sites = {"berlin"}, .aggregation = "fedyogi"});
  ASSERT_OK(federation_.Train("berlin"));
  ASSERT_OK(federation_.coordinator().Advance());
  ASSERT_OK_AND_ASSIGN(const auto studies, federation_.journal().Studies());
  const auto path = federation_.folder() / "models" / (studies.at(0).state.digest + ".state");
  const std::string sound = TextOf(path);
  std::string damaged = sound;
  damaged.back() = static_cast<char>(damaged.back() ^ 1);
  WriteText(path, damaged);
  federation_.Restart();
  ASSERT_OK(federation_.Train("berlin"));

  EXPECT_THAT(federation_.coordinator().Advance(),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("state")));
  EXPECT_EQ(federation_.AskedOf("berlin"), std::nullopt) << "the update is not to blame";

  WriteText(path, sound);
  federation_.clock().Advance(std::chrono::seconds(10));
  ASSERT_OK(federation_.coordinator().Advance());
  EXPECT_EQ(federation_.Status().round, 3);
}

TEST_F(Strategies, MakeNoModelOfOneThatHasDecayedAndSayWhatIsAwaited) {
  for (const std::string aggregation : {"fednova", "scaffold", "fedadam", "qfedavg"}) {
    SCOPED_TRACE(aggregation);
    FederationInMemory federation;
    federation.set_loss_before({{"berlin", 0.5}});
    federation.CreateAndStart({.sites = {"berlin"},
                               .training = "steps_per_round = 1\nmomentum = 0",
                               .aggregation = aggregation});
    ASSERT_OK(federation.Train("berlin"));
    const auto path = federation.folder() / "models" / (federation.NewestModel() + ".safetensors");
    const std::string sound = TextOf(path);
    std::string decayed = sound;
    decayed[decayed.size() - 4] = static_cast<char>(decayed[decayed.size() - 4] ^ 1);
    WriteText(path, decayed);

    EXPECT_THAT(federation.coordinator().Advance(),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("damaged")));
    EXPECT_EQ(federation.Status().round, 1);
    EXPECT_THAT(federation.Status().waiting_for, HasSubstr("the server, which tries again: "));

    WriteText(path, sound);
    federation.clock().Advance(std::chrono::seconds(10));
    ASSERT_OK(federation.coordinator().Advance());
    EXPECT_EQ(federation.Status().round, 2);
    EXPECT_THAT(federation.Status().waiting_for, Not(HasSubstr("the server")));
  }
}

TEST_F(Strategies, TellsWhoWasNotChosenAndWhy) {
  const TinyStudy study{.sites = {"a", "b", "c", "d", "e"}, .aggregation = "krum"};
  federation_.CreateAndStart(study);
  for (const std::string& site : study.sites) {
    ASSERT_OK_AND_ASSIGN(const SiteUpdate update,
                         federation_.Upload(site, "tiny", site == "e" ? 100 : 0));
    ASSERT_OK(federation_.coordinator().SubmitUpdate(site, update));
  }
  ASSERT_OK(federation_.coordinator().Advance());

  ASSERT_OK_AND_ASSIGN(const StudyRecord record, federation_.coordinator().Record("tiny"));
  int chosen = 0;
  for (const ParticipationRecord& site : record.rounds.at(0).sites) {
    const bool contributed = site.outcome == ParticipationRecord::Outcome::kContributed;
    chosen += contributed ? 1 : 0;
    EXPECT_EQ(site.weight, contributed ? 1 : 0);
    EXPECT_EQ(site.reason.starts_with("not chosen: "), !contributed);
  }
  EXPECT_EQ(chosen, 1);
  EXPECT_FALSE(record.rounds.at(0).sites.at(4).reason.empty());
}

TEST_F(Strategies, WaitForAsManyUpdatesAsTheirMathematicsNeeds) {
  federation_.CreateAndStart({.sites = {"a", "b", "c", "d", "e"}, .aggregation = "krum"});
  for (const std::string site : {"a", "b", "c", "d"}) ASSERT_OK(federation_.Train(site));
  ASSERT_OK(federation_.coordinator().Withdraw("e", "tiny"));
  ASSERT_OK(federation_.coordinator().Advance());

  EXPECT_EQ(federation_.Status().round, 1);
  EXPECT_THAT(federation_.Status().waiting_for,
              HasSubstr("updates of at least 5 sites, which its aggregation asks for (4 so far)"));
}

TEST_F(Strategies, RefuseAnUpdateThatGoesTooFar) {
  federation_.CreateAndStart(
      {.sites = {"berlin"}, .rounds = 1, .rounds_table = "maximum_update_norm = 100"});
  ASSERT_OK_AND_ASSIGN(const SiteUpdate far, federation_.Upload("berlin", "tiny", 1000));
  EXPECT_THAT(
      federation_.coordinator().SubmitUpdate("berlin", far),
      StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("berlin"), HasSubstr("100"))));
  ASSERT_OK(federation_.Train("berlin"));
  ASSERT_OK(federation_.coordinator().Advance());
  EXPECT_EQ(federation_.Status().round, 2);
}

// --- Ditto
// -----------------------------------------------------------------------------------------

TEST_F(Strategies, ScoresOfPersonalModelsArePartOfTheRecord) {
  federation_.CreateAndStart({.sites = {"berlin"},
                              .rounds = 1,
                              .local_only = true,
                              .training = "steps_per_round = 1\npersonal = 0.1"});
  ASSERT_OK(federation_.Train("berlin"));
  ASSERT_OK(federation_.coordinator().Advance());
  using Kind = Assignment::Kind;
  const auto submit = [&](Kind kind, double dice, const std::vector<CaseScoreRecord>& personal) {
    return federation_.coordinator().SubmitScores(
        "berlin", "tiny", kind, FederationInMemory::Scores(dice), std::nullopt, personal);
  };
  EXPECT_THAT(submit(Kind::kLocalOnly, 0.3, FederationInMemory::Scores(0.2)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("personal")));
  EXPECT_THAT(submit(Kind::kScore, 0.3, FederationInMemory::Scores(7)),
              StatusIs(absl::StatusCode::kInvalidArgument));
  ASSERT_OK(submit(Kind::kLocalOnly, 0.3, {}));
  ASSERT_OK(submit(Kind::kScore, 0.9, FederationInMemory::Scores(0.95)));
  federation_.Restart();
  ASSERT_OK(federation_.coordinator().Advance());

  ASSERT_OK_AND_ASSIGN(const StudyRecord record, federation_.coordinator().Record("tiny"));
  ASSERT_TRUE(record.finished);
  std::map<ModelScoresRecord::Model, double> dice;
  for (const ModelScoresRecord& scores : record.scores) {
    dice[scores.model] = scores.cases.at(0).labels.at(0).dice;
  }
  EXPECT_EQ(dice[ModelScoresRecord::Model::kGlobal], 0.9);
  EXPECT_EQ(dice[ModelScoresRecord::Model::kLocalOnly], 0.3);
  EXPECT_EQ(dice[ModelScoresRecord::Model::kPersonal], 0.95);
}

TEST_F(Strategies, PersonalModelsAreNotScoredWhereTheStudyHasNone) {
  federation_.CreateAndStart({.sites = {"berlin"}, .rounds = 1});
  ASSERT_OK(federation_.Train("berlin"));
  ASSERT_OK(federation_.coordinator().Advance());

  EXPECT_THAT(federation_.coordinator().SubmitScores("berlin", "tiny", Assignment::Kind::kScore,
                                                     FederationInMemory::Scores(), std::nullopt,
                                                     FederationInMemory::Scores()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("does not have")));
}

}  // namespace
}  // namespace isoscan
