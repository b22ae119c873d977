#include "common/study/schedule.h"

#include <algorithm>
#include <cmath>

namespace isoscan {
namespace {

constexpr double kDecayPower = 0.9;

}  // namespace

std::int64_t StepsPerRound(const TrainingPlan& plan, std::int64_t training_cases) {
  if (plan.passes_per_round == 0) return plan.steps_per_round;
  const double steps = plan.passes_per_round * static_cast<double>(training_cases) /
                       static_cast<double>(plan.batch_size);
  return std::max<std::int64_t>(1, std::llround(steps));
}

double LearningRate(const TrainingPlan& plan, std::int64_t step, std::int64_t total_steps) {
  const double left = 1.0 - static_cast<double>(step) / static_cast<double>(total_steps);
  return plan.learning_rate * std::pow(std::max(0.0, left), kDecayPower);
}

double LearningRateSum(const TrainingPlan& plan, const StepRange& steps) {
  double sum = 0;
  for (std::int64_t i = 0; i < steps.count; ++i) {
    sum += LearningRate(plan, steps.first + i, steps.total);
  }
  return sum;
}

double EffectiveSteps(const TrainingPlan& plan, const StepRange& steps) {
  double velocity = 0;
  double moved = 0;
  for (std::int64_t i = 0; i < steps.count; ++i) {
    velocity = plan.momentum * velocity + 1;
    moved += LearningRate(plan, steps.first + i, steps.total) * (1 + plan.momentum * velocity);
  }
  return moved / plan.learning_rate;
}

}  // namespace isoscan
