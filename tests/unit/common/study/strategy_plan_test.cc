#include "common/study/strategy_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/config/config_reader.h"
#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using testing::HasSubstr;
using Kind = StrategyPlan::Kind;

absl::StatusOr<StrategyPlan> Read(const std::string& text) {
  auto reader = ConfigReader::Parse("[rounds]\n" + text, "study.toml");
  if (!reader.ok()) return reader.status();
  ConfigReader rounds = reader->Table("rounds");
  const StrategyPlan plan = ReadStrategy(rounds);
  rounds.Number("maximum_site_weight", {}, 1);
  const absl::Status finished = reader->Finish();
  if (!finished.ok()) return finished;
  return plan;
}

TEST(StrategyPlan, HasTheDefaultsOfItsKind) {
  ASSERT_OK_AND_ASSIGN(const StrategyPlan average, Read(""));
  EXPECT_EQ(average.kind, Kind::kFedAvg);
  ASSERT_OK_AND_ASSIGN(const StrategyPlan momentum, Read("aggregation = \"fedavgm\""));
  EXPECT_EQ(momentum.server_learning_rate, 1);
  ASSERT_OK_AND_ASSIGN(const StrategyPlan adam, Read("aggregation = \"fedadam\""));
  EXPECT_EQ(adam.server_learning_rate, 0.01);
  EXPECT_EQ(adam.beta1, 0.9);
  EXPECT_EQ(adam.bias_correction, StrategyPlan::BiasCorrection::kNone);
  ASSERT_OK_AND_ASSIGN(const StrategyPlan adagrad, Read("aggregation = \"fedadagrad\""));
  EXPECT_EQ(adagrad.beta1, 0);
}

TEST(StrategyPlan, ReadsEveryParameter) {
  ASSERT_OK_AND_ASSIGN(const StrategyPlan adam,
                       Read("aggregation = \"fedadam\"\nserver_learning_rate = 0.5\nbeta1 = 0.8\n"
                            "beta2 = 0.7\ntau = 0.6\nbias_correction = \"flower\"\n"
                            "maximum_update_norm = 12.5"));
  EXPECT_EQ(StrategyInWords(adam),
            "fedadam, server_learning_rate 0.5, beta1 0.8, beta2 0.7, tau 0.6, "
            "bias_correction flower, maximum_update_norm 12.5");
  ASSERT_OK_AND_ASSIGN(const StrategyPlan krum,
                       Read("aggregation = \"multi_krum\"\nbyzantine_sites = 2\nchosen_sites = 6"));
  EXPECT_EQ(StrategyInWords(krum), "multi_krum, byzantine_sites 2, chosen_sites 6");
  ASSERT_OK_AND_ASSIGN(const StrategyPlan fair,
                       Read("aggregation = \"qfedavg\"\nq = 2\nsmoothness = 10"));
  EXPECT_EQ(StrategyInWords(fair), "qfedavg, q 2, smoothness 10");
  ASSERT_OK_AND_ASSIGN(const StrategyPlan trimmed,
                       Read("aggregation = \"trimmed_mean\"\ntrim = 0.25"));
  EXPECT_EQ(StrategyInWords(trimmed), "trimmed_mean, trim 0.25");
}

TEST(StrategyPlan, RefusesByLineWhatDoesNotGoWithTheAggregation) {
  const auto refuses = [](const std::string& text, const std::string& why) {
    EXPECT_THAT(Read(text), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(why))) << text;
  };
  refuses("tau = 0.1",
          "study.toml:2: rounds.tau goes with aggregation = \"fedadagrad\" or "
          "\"fedadam\" or \"fedyogi\" only, which is \"fedavg\" here");
  refuses("aggregation = \"fedadagrad\"\nbeta2 = 0.9", "study.toml:3: rounds.beta2 goes with");
  refuses("aggregation = \"fedyogi\"\nbias_correction = \"adam\"", "\"fedadam\" only");
  refuses("aggregation = \"krum\"\nchosen_sites = 2", "\"multi_krum\" only");
  refuses("aggregation = \"median\"\nbyzantine_sites = 1", "\"krum\" or \"multi_krum\" or");
  refuses("aggregation = \"median\"\nmaximum_site_weight = 0.5", "does not weigh sites by them");
  refuses("aggregation = \"trimmed_mean\"\ntrim = 0.5",
          "study.toml:3: rounds.trim is 0.5, allowed");
  refuses("aggregation = \"fedmedian\"", "study.toml:2: rounds.aggregation is");
  refuses("aggregation = \"fedadam\"\nbias_correction = \"adagrad\"", "adam_step");
}

TEST(StrategyPlan, KnowsHowManyUpdatesItNeeds) {
  EXPECT_EQ(FewestUpdates({.kind = Kind::kFedAvg}), 1);
  EXPECT_EQ(FewestUpdates({.kind = Kind::kKrum, .byzantine_sites = 2}), 7);
  EXPECT_EQ(FewestUpdates({.kind = Kind::kTrimmedMean, .trim = 0.25}), 4);
  EXPECT_EQ(FewestUpdates({.kind = Kind::kTrimmedMean, .trim = 0.1}), 10);
  EXPECT_EQ(FewestUpdates({.kind = Kind::kBulyan, .byzantine_sites = 2}), 11);
  EXPECT_EQ(FewestUpdates({.kind = Kind::kMultiKrum, .byzantine_sites = 1, .chosen_sites = 8}), 9);
}

}  // namespace
}  // namespace isoscan
