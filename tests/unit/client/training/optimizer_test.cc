#include "client/training/optimizer.h"

#include <gtest/gtest.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "tests/support/status_matchers.h"
#include <ATen/ATen.h>

namespace isoscan {
namespace {

TrainingPlan Plan(TrainingPlan::Optimizer optimizer) {
  TrainingPlan plan;
  plan.optimizer = optimizer;
  plan.weight_decay = 0.01;
  plan.momentum = 0.9;
  plan.gradient_norm_limit = std::numeric_limits<double>::infinity();
  return plan;
}

/// Minimises a bumpy function for 20 steps; `step` applies one update.
template <typename Step>
void Descend(torch::Tensor& weights, Step step) {
  const torch::Tensor target = at::arange(12, torch::kFloat32).view({3, 4}) / 5;
  for (int i = 0; i < 20; ++i) {
    weights.mutable_grad().reset();
    ((weights - target).square().sum() + weights.sin().sum()).backward();
    step();
  }
}

torch::Tensor Start() { return at::ones({3, 4}).set_requires_grad(true); }

TEST(Optimizer, WalksAsLibTorchsSgdWithNesterovMomentum) {
  torch::Tensor ours = Start();
  torch::Tensor theirs = Start();
  Optimizer optimizer(Plan(TrainingPlan::Optimizer::kSgd), {ours});
  torch::optim::SGD reference(
      {theirs}, torch::optim::SGDOptions(0.05).momentum(0.9).nesterov(true).weight_decay(0.01));

  Descend(ours, [&] { optimizer.Step(0.05); });
  Descend(theirs, [&] { reference.step(); });

  EXPECT_LT((ours - theirs).abs().max().item<double>(), 1e-6);
}

TEST(Optimizer, WalksAsLibTorchsAdamW) {
  torch::Tensor ours = Start();
  torch::Tensor theirs = Start();
  Optimizer optimizer(Plan(TrainingPlan::Optimizer::kAdamW), {ours});
  torch::optim::AdamW reference({theirs}, torch::optim::AdamWOptions(0.05).weight_decay(0.01));

  Descend(ours, [&] { optimizer.Step(0.05); });
  Descend(theirs, [&] { reference.step(); });

  EXPECT_LT((ours - theirs).abs().max().item<double>(), 1e-6);
}

TEST(Optimizer, LimitsTheNormOfAllGradientsTogether) {
  TrainingPlan plan = Plan(TrainingPlan::Optimizer::kSgd);
  plan.gradient_norm_limit = 1;
  plan.weight_decay = 0;
  plan.momentum = 0;
  torch::Tensor first = at::zeros({1}).set_requires_grad(true);
  torch::Tensor second = at::zeros({1}).set_requires_grad(true);
  Optimizer optimizer(plan, {first, second});
  (3 * first + 4 * second).sum().backward();

  const double norm = optimizer.Step(1);

  EXPECT_NEAR(norm, 5, 1e-6);
  EXPECT_NEAR(first.item<double>(), -0.6, 1e-6);
  EXPECT_NEAR(second.item<double>(), -0.8, 1e-6);
}

TEST(Optimizer, UpdatesNothingFromAGradientThatIsNotFinite) {
  torch::Tensor weights = Start();
  Optimizer optimizer(Plan(TrainingPlan::Optimizer::kAdamW), {weights});
  (weights * std::numeric_limits<double>::infinity()).sum().backward();

  EXPECT_FALSE(std::isfinite(optimizer.Step(0.1)));
  EXPECT_TRUE(at::equal(weights, Start()));
}

TEST(Optimizer, GoesOnFromItsMomentsToTheSameBits) {
  for (const auto kind : {TrainingPlan::Optimizer::kSgd, TrainingPlan::Optimizer::kAdamW}) {
    torch::Tensor unused = Start();
    torch::Tensor undisturbed = Start();
    Optimizer one(Plan(kind), {unused, undisturbed});
    Descend(undisturbed, [&] { one.Step(0.05); });
    torch::Tensor weights = undisturbed.detach().clone().set_requires_grad(true);
    Optimizer other(Plan(kind), {unused, weights});

    ASSERT_OK(other.Restore(20, one.Moments()));
    Descend(undisturbed, [&] { one.Step(0.05); });
    Descend(weights, [&] { other.Step(0.05); });

    EXPECT_TRUE(at::equal(weights, undisturbed));
    EXPECT_EQ(one.Moments(), other.Moments());
  }
}

TEST(Optimizer, DrawsTheWeightsToWhereTheyWereByTheProximalTerm) {
  TrainingPlan plan = Plan(TrainingPlan::Optimizer::kSgd);
  plan.proximal = 0.7;
  torch::Tensor ours = Start();
  torch::Tensor theirs = Start();
  torch::Tensor unused = Start();
  Optimizer optimizer(plan, {unused, ours});
  torch::optim::SGD reference(
      {theirs}, torch::optim::SGDOptions(0.05).momentum(0.9).nesterov(true).weight_decay(0.01));

  Descend(ours, [&] { optimizer.Step(0.05); });
  Descend(theirs, [&] {
    (0.35 * (theirs - at::ones({3, 4})).square().sum()).backward();
    reference.step();
  });

  EXPECT_LT((ours - theirs).abs().max().item<double>(), 1e-6);
}

// Ditto: v <- v - rate (gradient + lambda (v - w)), w not where v began.
TEST(Optimizer, DrawsTheWeightsToOthersWhereItIsTold) {
  TrainingPlan plan = Plan(TrainingPlan::Optimizer::kSgd);
  plan.proximal = 0.7;
  const torch::Tensor global = at::full({3, 4}, -2);
  torch::Tensor ours = Start();
  torch::Tensor theirs = Start();
  torch::Tensor unused = Start();
  Optimizer optimizer(plan, {unused, ours});
  optimizer.DrawTo({at::zeros({3, 4}), global});
  torch::optim::SGD reference(
      {theirs}, torch::optim::SGDOptions(0.05).momentum(0.9).nesterov(true).weight_decay(0.01));

  Descend(ours, [&] { optimizer.Step(0.05); });
  Descend(theirs, [&] {
    (0.35 * (theirs - global).square().sum()).backward();
    reference.step();
  });

  EXPECT_LT((ours - theirs).abs().max().item<double>(), 1e-6);
}

// SCAFFOLD: the correction is added to what is left of the gradient once its norm is limited, so
// that a control variate is the mean of what the steps took. NVFlare's vector: 1 -> 1.15.
TEST(Optimizer, CorrectsGradientsOnceTheirNormIsLimited) {
  TrainingPlan plan = Plan(TrainingPlan::Optimizer::kSgd);
  plan.weight_decay = 0;
  plan.momentum = 0;
  plan.gradient_norm_limit = 3;
  torch::Tensor weight = at::ones({1}).set_requires_grad(true);
  torch::Tensor unused = Start();
  Optimizer optimizer(plan, {unused, weight});
  optimizer.Correct({at::zeros({3, 4}), at::full({1}, 2 - 0.5)});
  (-30 * weight).sum().backward();

  optimizer.Step(0.1);

  EXPECT_NEAR(weight.item<double>(), 1.15, 1e-6);
}

TEST(Optimizer, RefusesMomentsThatItsParametersCannotHave) {
  const TrainingPlan plan = Plan(TrainingPlan::Optimizer::kAdamW);
  const Tensor fitting{.shape = {3, 4}, .values = std::vector<float>(12)};
  const Tensor other{.shape = {2}, .values = {1, 2}};

  for (const NamedTensors& moments :
       {NamedTensors{{"first.0", fitting}}, NamedTensors{{"first.0", fitting}, {"second.0", other}},
        NamedTensors{{"first.0", fitting}, {"second.0", fitting}, {"first.7", fitting}}}) {
    Optimizer optimizer(plan, {Start()});
    EXPECT_THAT(optimizer.Restore(1, moments), StatusIs(absl::StatusCode::kInvalidArgument));
  }
}

TEST(Optimizer, LeavesParametersWithoutAGradientAlone) {
  torch::Tensor used = Start();
  torch::Tensor unused = Start();
  Optimizer optimizer(Plan(TrainingPlan::Optimizer::kAdamW), {unused, used});
  used.sum().backward();

  optimizer.Step(0.1);

  EXPECT_TRUE(at::equal(unused, Start()));
  EXPECT_FALSE(at::equal(used, Start()));
}

}  // namespace
}  // namespace isoscan
