#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "common/status/status_macros.h"
#include "common/study/initial_weights.h"
#include "common/study/schedule.h"
#include "common/weights/safetensors.h"
#include "common/weights/sha256.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/server/rounds/federation_in_memory.h"

namespace isoscan {
namespace {

using testing::Each;
using testing::HasSubstr;
using testing::Key;
using testing::Not;

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
