#include "common/study/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace isoscan {
namespace {

// Of a study so long that the learning rate hardly falls.
constexpr std::int64_t kLong = std::int64_t{1} << 50;

TEST(StepsPerRound, FollowTheCasesWhereTheStudyCountsPasses) {
  TrainingPlan plan;
  plan.steps_per_round = 50;
  plan.batch_size = 4;
  EXPECT_EQ(StepsPerRound(plan, 10), 50);

  plan.passes_per_round = 2;

  EXPECT_EQ(StepsPerRound(plan, 10), 5);
  EXPECT_EQ(StepsPerRound(plan, 100), 50);
  EXPECT_EQ(StepsPerRound(plan, 1), 1);
}

TEST(LearningRate, FallsFromThePlansRateToZero) {
  TrainingPlan plan;
  plan.learning_rate = 0.01;

  EXPECT_DOUBLE_EQ(LearningRate(plan, 0, 100), 0.01);
  EXPECT_DOUBLE_EQ(LearningRate(plan, 50, 100), 0.01 * std::pow(0.5, 0.9));
  EXPECT_DOUBLE_EQ(LearningRate(plan, 100, 100), 0);
  EXPECT_DOUBLE_EQ(LearningRate(plan, 101, 100), 0);
}

TEST(LearningRateSum, AddsUpTheRates) {
  TrainingPlan plan;
  plan.learning_rate = 0.1;

  EXPECT_DOUBLE_EQ(LearningRateSum(plan, {.first = 3, .count = 2, .total = 10}),
                   LearningRate(plan, 3, 10) + LearningRate(plan, 4, 10));
  EXPECT_NEAR(LearningRateSum(plan, {.first = 0, .count = 7, .total = kLong}), 0.7, 1e-12);
}

// FedNova, section 4: plain SGD weighs every gradient 1.
TEST(EffectiveSteps, ArePlainSgdsSteps) {
  TrainingPlan plan;
  plan.momentum = 0;
  EXPECT_NEAR(EffectiveSteps(plan, {.first = 0, .count = 8, .total = kLong}), 8, 1e-12);

  // The decay of the learning rate counts.
  EXPECT_NEAR(EffectiveSteps(plan, {.first = 5, .count = 1, .total = 10}), std::pow(0.5, 0.9),
              1e-12);
}

// Under momentum rho a gradient k steps before the end has moved the weights by 1 + rho + ... +
// rho^(k-1) (FedNova: a = (1 - rho^k) / (1 - rho)); Nesterov's looks one step further ahead.
TEST(EffectiveSteps, CountHowOftenMomentumRepeatsAGradient) {
  TrainingPlan plan;
  for (const double rho : {0.5, 0.9, 0.99}) {
    plan.momentum = rho;
    for (const std::int64_t count : {1, 2, 10, 200}) {
      double expected = 0;
      for (std::int64_t k = 1; k <= count; ++k) {
        expected += (1 - std::pow(rho, static_cast<double>(k + 1))) / (1 - rho);
      }
      EXPECT_NEAR(EffectiveSteps(plan, {.first = 0, .count = count, .total = kLong}), expected,
                  1e-9 * expected)
          << rho << ", " << count;
    }
  }
}

}  // namespace
}  // namespace isoscan
