#include "server/aggregation/server_optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

#include "common/study/exchanged_tensors.h"

namespace isoscan {
namespace {

using Kind = StrategyPlan::Kind;
using BiasCorrection = StrategyPlan::BiasCorrection;

constexpr char kMomentum[] = "momentum";
constexpr char kVariance[] = "variance";

bool Carries(const StrategyPlan& plan, const char* set) {
  const std::vector<std::string> sets = StateSets(plan);
  return std::find(sets.begin(), sets.end(), set) != sets.end();
}

// A change whose square no float holds must not keep the round from being closed.
double Kept(double moment) {
  constexpr double kMost = std::numeric_limits<float>::max();
  return std::clamp(moment, -kMost, kMost);
}

}  // namespace

ServerRule::ServerRule(const StrategyPlan& plan, int step)
    : plan_(plan), rate_(plan.server_learning_rate), first_scale_(1), second_scale_(1) {
  if (plan.kind != Kind::kFedAdam || plan.bias_correction == BiasCorrection::kNone) return;
  const double t = step + (plan.bias_correction == BiasCorrection::kFlower ? 1 : 0);
  const double first = 1 - std::pow(plan.beta1, t);
  const double second = 1 - std::pow(plan.beta2, t);
  if (plan.bias_correction == BiasCorrection::kAdam) {
    first_scale_ = 1 / first;
    second_scale_ = 1 / second;
  } else {
    rate_ *= std::sqrt(second) / first;
  }
}

double ServerRule::Step(double change, Moments& moments) const {
  if (plan_.kind == Kind::kFedAvgM) {
    moments.first = plan_.server_momentum * moments.first + change;
    return rate_ * moments.first;
  }
  const double square = change * change;
  moments.first = plan_.beta1 * moments.first + (1 - plan_.beta1) * change;
  if (plan_.kind == Kind::kFedAdagrad) {
    moments.second += square;
  } else if (plan_.kind == Kind::kFedAdam) {
    moments.second = plan_.beta2 * moments.second + (1 - plan_.beta2) * square;
  } else if (moments.second > square) {
    moments.second -= (1 - plan_.beta2) * square;
  } else if (moments.second < square) {
    moments.second += (1 - plan_.beta2) * square;
  }
  return rate_ * (moments.first * first_scale_) /
         (std::sqrt(moments.second * second_scale_) + plan_.tau);
}

std::vector<std::string> StateSets(const StrategyPlan& plan) {
  switch (plan.kind) {
    case Kind::kFedAvgM:
      return {kMomentum};
    case Kind::kFedAdagrad:
      // Without beta1 the first moment is the change itself.
      if (plan.beta1 == 0) return {kVariance};
      return {kMomentum, kVariance};
    case Kind::kFedAdam:
    case Kind::kFedYogi:
      return {kMomentum, kVariance};
    default:
      return {};
  }
}

ServerOptimizer::ServerOptimizer(const StrategyPlan& plan, int step, const BlockReducer& inner)
    : rule_(plan, step),
      inner_(inner),
      first_(Carries(plan, kMomentum)),
      second_(Carries(plan, kVariance)) {}

void ServerOptimizer::Reduce(const BlockInput& input, const BlockOutput& output) const {
  inner_.Reduce(input, {.model = output.model, .state = {}});
  const std::size_t of_second = first_ ? 1 : 0;
  if (IsRunningStatistic(input.tensor)) {
    for (const std::span<double> set : output.state) std::fill(set.begin(), set.end(), 0.0);
    return;
  }
  for (std::size_t i = 0; i < output.model.size(); ++i) {
    Moments moments{.first = first_ ? double{input.state[0][i]} : 0,
                    .second = second_ ? double{input.state[of_second][i]} : 0};
    const double weight = input.model[i];
    output.model[i] = weight + rule_.Step(output.model[i] - weight, moments);
    if (first_) output.state[0][i] = Kept(moments.first);
    if (second_) output.state[of_second][i] = Kept(moments.second);
  }
}

}  // namespace isoscan
