#pragma once

#include <string>
#include <vector>

#include "common/study/strategy_plan.h"
#include "server/aggregation/block_reducer.h"

namespace isoscan {

/// The server's own step along what a round changes on the mean: formulas on single numbers, and
/// the reducer that applies them to blocks.

/// What is carried from round to round of one weight; 0 before the first.
struct Moments {
  double first = 0;
  double second = 0;
};

/// With D the change that the round's mean is to the model (Reddi et al. call -D the
/// pseudo-gradient), eta, m, b1, b2 and tau the plan's numbers, and t the number of the step:
///
///   FedAvgM      v = m v + D                                       w += eta v
///   FedAdagrad   m = b1 m + (1 - b1) D,  v = v + D^2               w += eta m / (sqrt(v) + tau)
///   FedAdam      m likewise,             v = b2 v + (1 - b2) D^2   w += as above, but with
///     kNone        nothing
///     kAdam        m / (1 - b1^t) for m and v / (1 - b2^t) for v
///     kAdamStep    eta sqrt(1 - b2^t) / (1 - b1^t) for eta
///     kFlower      the same with t + 1 for t
///   FedYogi      m likewise,             v = v - (1 - b2) D^2 sign(v - D^2)   w += as FedAdagrad
///
/// m and v start at 0 (Reddi et al. start v at tau^2 or more; all peers at 0).
/// Source: docs/references.md#hsu2019 (FedAvgM), #reddi2021, Algorithm 2 (the others), #kingma2015,
/// Algorithm 1 and section 2. docs/strategies.md has numbers of each.
class ServerRule {
 public:
  /// `plan.kind` is one of the four; `step` counts from 1.
  ServerRule(const StrategyPlan& plan, int step);

  /// What is added to the weight; brings the moments up to date.
  double Step(double change, Moments& moments) const;

 private:
  StrategyPlan plan_;
  double rate_;         // eta, with what corrects the step.
  double first_scale_;  // Of the first moment where it is used, and of the second.
  double second_scale_;
};

/// Which of both moments the plan carries, by the names of the driver's state sets: "momentum",
/// "variance"; none for a kind that is no optimiser of the server.
std::vector<std::string> StateSets(const StrategyPlan& plan);

/// Puts what `inner` makes of the updates in the place of the model, or for weights that gradients
/// move a step towards it. Needs the global model, and StateSets() as the input's state.
///
/// Thread safety: as BlockReducer; `inner` must outlive it.
class ServerOptimizer final : public BlockReducer {
 public:
  ServerOptimizer(const StrategyPlan& plan, int step, const BlockReducer& inner);
  void Reduce(const BlockInput& input, const BlockOutput& output) const override;

 private:
  const ServerRule rule_;
  const BlockReducer& inner_;
  const bool first_;  // Which moments there are.
  const bool second_;
};

}  // namespace isoscan
