#include "client/training/optimizer.h"

#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include <ATen/ATen.h>

namespace isoscan {
namespace {

constexpr double kDecayPower = 0.9;
constexpr double kFirstBeta = 0.9;
constexpr double kSecondBeta = 0.999;
constexpr double kAdamEpsilon = 1e-8;
constexpr double kNormEpsilon = 1e-6;

std::vector<torch::Tensor> ZerosLike(const std::vector<torch::Tensor>& tensors) {
  std::vector<torch::Tensor> zeros;
  zeros.reserve(tensors.size());
  for (const torch::Tensor& tensor : tensors) zeros.push_back(at::zeros_like(tensor));
  return zeros;
}

}  // namespace

double LearningRate(const TrainingPlan& plan, std::int64_t step, std::int64_t total_steps) {
  const double left = 1.0 - static_cast<double>(step) / static_cast<double>(total_steps);
  return plan.learning_rate * std::pow(std::max(0.0, left), kDecayPower);
}

Optimizer::Optimizer(const TrainingPlan& plan, std::vector<torch::Tensor> parameters)
    : plan_(plan), parameters_(std::move(parameters)) {}

double Optimizer::Step(double learning_rate) {
  const torch::NoGradGuard no_gradient;
  if (steps_ == 0) {
    // Which parameters take part is fixed by the network and the plan.
    std::erase_if(parameters_,
                  [](const torch::Tensor& tensor) { return !tensor.grad().defined(); });
    first_moments_ = ZerosLike(parameters_);
    if (plan_.optimizer == TrainingPlan::Optimizer::kAdamW) {
      second_moments_ = ZerosLike(parameters_);
    }
  }
  std::vector<torch::Tensor> gradients;
  gradients.reserve(parameters_.size());
  for (torch::Tensor& parameter : parameters_) {
    gradients.push_back(parameter.grad());
    parameter.mutable_grad().reset();
  }

  const auto norm = at::stack(at::_foreach_norm(gradients)).norm().item<double>();
  if (!std::isfinite(norm)) return norm;
  ++steps_;
  if (norm > plan_.gradient_norm_limit) {
    at::_foreach_mul_(gradients, plan_.gradient_norm_limit / (norm + kNormEpsilon));
  }

  if (plan_.optimizer == TrainingPlan::Optimizer::kSgd) {
    at::_foreach_add_(gradients, parameters_, plan_.weight_decay);
    at::_foreach_mul_(first_moments_, plan_.momentum);
    at::_foreach_add_(first_moments_, gradients);
    at::_foreach_add_(gradients, first_moments_, plan_.momentum);
    at::_foreach_add_(parameters_, gradients, -learning_rate);
    return norm;
  }
  const auto steps = static_cast<double>(steps_);
  const double first_correction = 1.0 - std::pow(kFirstBeta, steps);
  const double second_correction = 1.0 - std::pow(kSecondBeta, steps);
  at::_foreach_mul_(first_moments_, kFirstBeta);
  at::_foreach_add_(first_moments_, gradients, 1.0 - kFirstBeta);
  at::_foreach_mul_(second_moments_, kSecondBeta);
  at::_foreach_addcmul_(second_moments_, gradients, gradients, 1.0 - kSecondBeta);
  std::vector<torch::Tensor> spread = at::_foreach_sqrt(second_moments_);
  at::_foreach_div_(spread, std::sqrt(second_correction));
  at::_foreach_add_(spread, kAdamEpsilon);
  at::_foreach_mul_(parameters_, 1.0 - learning_rate * plan_.weight_decay);
  at::_foreach_addcdiv_(parameters_, first_moments_, spread, -learning_rate / first_correction);
  return norm;
}

}  // namespace isoscan
