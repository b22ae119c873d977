#pragma once

#include <cstdint>

#include "common/study/study.h"

namespace isoscan {

/// How far a site goes in a round: pure functions of the study, so that the server knows without
/// being told.

/// Steps that a site with so many training cases takes in each round: steps_per_round, or as many
/// as passes_per_round over its cases, at least one.
std::int64_t StepsPerRound(const TrainingPlan& plan, std::int64_t training_cases);

/// learning_rate * (1 - step / total_steps)^0.9, never below 0.
/// Source: docs/references.md#chen2018, section 4.1; nnU-Net's PolyLRScheduler.
double LearningRate(const TrainingPlan& plan, std::int64_t step, std::int64_t total_steps);

/// Steps [first, first + count) of a site's `total`.
struct StepRange {
  std::int64_t first = 0;
  std::int64_t count = 0;
  std::int64_t total = 0;
};

/// Of LearningRate() over the steps.
double LearningRateSum(const TrainingPlan& plan, const StepRange& steps);

/// FedNova's |a|_1: how much the gradients of these steps weigh in what the weights have moved by
/// in the end, in units of learning_rate. A step of plain SGD at the full rate is 1; under momentum
/// one gradient moves the weights again and again. Found by the optimiser's own recursion on a
/// single number whose gradient is always 1. Of Optimizer::kSgd without a proximal term.
/// Source: docs/references.md#wang2020, section 4 and Table 1.
double EffectiveSteps(const TrainingPlan& plan, const StepRange& steps);

}  // namespace isoscan
