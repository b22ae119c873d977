#include "server/aggregation/server_optimizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <ostream>
#include <span>
#include <vector>

#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Kind = StrategyPlan::Kind;
using BiasCorrection = StrategyPlan::BiasCorrection;

/// Three rounds from 0.1, in each of which the sites' mean is 0.6.
struct Column {
  const char* name;
  StrategyPlan plan;
  std::vector<double> expected;
};
std::ostream& operator<<(std::ostream& out, const Column& column) { return out << column.name; }

class PublishedNumbers : public testing::TestWithParam<Column> {};

// docs/strategies.md, "Numbers": worked out from each formula to twelve digits.
INSTANTIATE_TEST_SUITE_P(
    All, PublishedNumbers,
    testing::Values(
        Column{"FedAdagradAsFlower",
               {.kind = Kind::kFedAdagrad, .server_learning_rate = 0.1, .beta1 = 0, .tau = 0.5},
               {0.150000000000, 0.188373600523, 0.220316563110}},
        Column{"FedAdamAsFlower",
               {.kind = Kind::kFedAdam,
                .server_learning_rate = 0.1,
                .bias_correction = BiasCorrection::kFlower},
               {0.172790175334, 0.256583316569, 0.344086544290}},
        Column{"FedAdamWithTheStepCorrected",
               {.kind = Kind::kFedAdam,
                .server_learning_rate = 0.1,
                .bias_correction = BiasCorrection::kAdamStep},
               {0.198039215686, 0.295415842203, 0.390635720828}},
        Column{"FedAdamAsReddi",
               {.kind = Kind::kFedAdam, .server_learning_rate = 0.1},
               {0.198039215686, 0.329193290342, 0.477078615055}},
        Column{"FedYogi",
               {.kind = Kind::kFedYogi, .server_learning_rate = 0.01},
               {0.109803921569, 0.123042228916, 0.138477414592}},
        Column{"FedAdamAsOpenFl",
               {.kind = Kind::kFedAdam,
                .server_learning_rate = 0.1,
                .tau = 1e-8,
                .bias_correction = BiasCorrection::kAdam},
               {0.199999998000, 0.298861691808, 0.395315255313}},
        Column{"FedAvgM",
               {.kind = Kind::kFedAvgM, .server_learning_rate = 1, .server_momentum = 0.9},
               // 0.1 + 0.5; + 0.9 * 0.5 + 0; + 0.9 * 0.45 - 0.45.
               {0.6, 1.05, 1.005}}),
    [](const auto& column) { return std::string(column.param.name); });

TEST_P(PublishedNumbers, AreMetToTwelveDigits) {
  double weight = 0.1;
  Moments moments;
  for (int step = 1; step <= 3; ++step) {
    weight += ServerRule(GetParam().plan, step).Step(0.6 - weight, moments);
    EXPECT_NEAR(weight, GetParam().expected[static_cast<std::size_t>(step - 1)], 6e-13) << step;
  }
}

// The paper has no decay of v: OpenFL's Yogi, which has one, ends at 0.2350.
TEST(ServerRule, YogisVarianceForgetsSlowlyAsInThePaper) {
  const StrategyPlan yogi{.kind = Kind::kFedYogi};
  Moments moments;
  for (int step = 1; step <= 50; ++step) ServerRule(yogi, step).Step(1, moments);
  for (int step = 51; step <= 100; ++step) ServerRule(yogi, step).Step(0.1, moments);
  EXPECT_NEAR(moments.second, 0.4950, 5e-5);
}

// Reddi et al. ask for v >= tau^2 before the first step; we and the peers begin with 0.
TEST(ServerRule, TakesAShorterFirstStepFromThePapersVariance) {
  const StrategyPlan adam{.kind = Kind::kFedAdam, .server_learning_rate = 0.1};
  Moments from_zero;
  Moments from_tau{.second = adam.tau * adam.tau};
  EXPECT_NEAR(ServerRule(adam, 1).Step(0.5, from_zero), 0.098039215686, 1e-12);
  EXPECT_NEAR(ServerRule(adam, 1).Step(0.5, from_tau), 0.098020190121, 1e-12);
}

/// Puts a number in the place of the updates.
class Constant final : public BlockReducer {
 public:
  explicit Constant(double value) : value_(value) {}
  void Reduce(const BlockInput& /*input*/, const BlockOutput& output) const override {
    for (double& value : output.model) value = value_;
  }

 private:
  double value_;
};

TEST(ServerOptimizer, KeepsMomentsThatAFloatCanHoldWhateverASiteSends) {
  const Constant huge(1e30);
  const ServerOptimizer optimizer({.kind = Kind::kFedAdam}, 1, huge);
  const std::vector<float> zero(1);
  const std::vector<std::span<const float>> state(2, zero);
  std::vector<double> model(1);
  std::vector<double> first(1);
  std::vector<double> second(1);
  const std::vector<std::span<double>> new_state{first, second};

  optimizer.Reduce({.tensor = "weight", .updates = {}, .model = zero, .state = state},
                   {.model = model, .state = new_state});

  EXPECT_EQ(second[0], double{std::numeric_limits<float>::max()});
  EXPECT_NEAR(first[0], 1e29, 1e20);
  EXPECT_TRUE(std::isfinite(static_cast<float>(model[0])));
}

TEST(StateSets, AreThoseThatTheRuleReads) {
  EXPECT_THAT(StateSets({.kind = Kind::kFedAvgM}), ElementsAre("momentum"));
  EXPECT_THAT(StateSets({.kind = Kind::kFedAdagrad, .beta1 = 0}), ElementsAre("variance"));
  EXPECT_THAT(StateSets({.kind = Kind::kFedAdagrad, .beta1 = 0.9}),
              ElementsAre("momentum", "variance"));
  EXPECT_THAT(StateSets({.kind = Kind::kFedYogi}), ElementsAre("momentum", "variance"));
  EXPECT_THAT(StateSets({.kind = Kind::kQFedAvg}), IsEmpty());
}

}  // namespace
}  // namespace isoscan
