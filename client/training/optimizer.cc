#include "client/training/optimizer.h"

#include <fmt/format.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include "common/status/status_macros.h"
#include <ATen/ATen.h>

namespace isoscan {
namespace {

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

std::string FirstName(std::size_t number) { return fmt::format("first.{}", number); }
std::string SecondName(std::size_t number) { return fmt::format("second.{}", number); }

Tensor CopyOf(const torch::Tensor& tensor) {
  const torch::Tensor values = tensor.to(torch::kCPU).contiguous();
  const auto* first = values.data_ptr<float>();
  return {.shape = values.sizes().vec(), .values = {first, first + values.numel()}};
}

absl::Status CopyTo(torch::Tensor& target, const NamedTensors& source, const std::string& name) {
  const auto given = source.find(name);
  if (given == source.end()) {
    return absl::InvalidArgumentError(fmt::format("the moment {} is missing", name));
  }
  const Tensor& tensor = given->second;
  if (tensor.shape != target.sizes().vec()) {
    return absl::InvalidArgumentError(fmt::format("the moment {} has the shape {}, expected {}",
                                                  name, ToString(tensor.shape),
                                                  ToString(target.sizes().vec())));
  }
  // from_blob takes no const pointer; the tensor is only read.
  target.copy_(at::from_blob(const_cast<float*>(tensor.values.data()), target.sizes()));
  return absl::OkStatus();
}

}  // namespace

Optimizer::Optimizer(const TrainingPlan& plan, std::vector<torch::Tensor> parameters)
    : plan_(plan), parameters_(std::move(parameters)), numbers_(parameters_.size()) {
  std::iota(numbers_.begin(), numbers_.end(), 0);
  if (plan_.proximal == 0) return;
  for (const torch::Tensor& parameter : parameters_) {
    origins_.push_back(parameter.detach().clone());
  }
}

void Optimizer::DrawTo(std::vector<torch::Tensor> origins) { origins_ = std::move(origins); }

void Optimizer::Correct(std::vector<torch::Tensor> corrections) {
  corrections_ = std::move(corrections);
}

void Optimizer::Start(const std::vector<bool>& taking_part) {
  std::vector<torch::Tensor> parameters;
  std::vector<torch::Tensor> origins;
  std::vector<torch::Tensor> corrections;
  std::vector<std::size_t> numbers;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (!taking_part[i]) continue;
    parameters.push_back(parameters_[i]);
    numbers.push_back(numbers_[i]);
    if (!origins_.empty()) origins.push_back(origins_[i]);
    if (!corrections_.empty()) corrections.push_back(corrections_[i]);
  }
  parameters_ = std::move(parameters);
  numbers_ = std::move(numbers);
  origins_ = std::move(origins);
  corrections_ = std::move(corrections);
  first_moments_ = ZerosLike(parameters_);
  if (plan_.optimizer == TrainingPlan::Optimizer::kAdamW) second_moments_ = ZerosLike(parameters_);
}

NamedTensors Optimizer::Moments() const {
  NamedTensors moments;
  for (std::size_t i = 0; i < first_moments_.size(); ++i) {
    moments[FirstName(numbers_[i])] = CopyOf(first_moments_[i]);
  }
  for (std::size_t i = 0; i < second_moments_.size(); ++i) {
    moments[SecondName(numbers_[i])] = CopyOf(second_moments_[i]);
  }
  return moments;
}

absl::Status Optimizer::Restore(std::int64_t steps, const NamedTensors& moments) {
  const torch::NoGradGuard no_gradient;
  std::vector<bool> taking_part;
  for (const std::size_t number : numbers_) {
    taking_part.push_back(moments.contains(FirstName(number)));
  }
  Start(taking_part);
  if (moments.size() != first_moments_.size() + second_moments_.size()) {
    return absl::InvalidArgumentError(fmt::format("{} moments are given, these parameters have {}",
                                                  moments.size(),
                                                  first_moments_.size() + second_moments_.size()));
  }
  for (std::size_t i = 0; i < first_moments_.size(); ++i) {
    RETURN_IF_ERROR(CopyTo(first_moments_[i], moments, FirstName(numbers_[i])));
  }
  for (std::size_t i = 0; i < second_moments_.size(); ++i) {
    RETURN_IF_ERROR(CopyTo(second_moments_[i], moments, SecondName(numbers_[i])));
  }
  steps_ = steps;
  return absl::OkStatus();
}

double Optimizer::Step(double learning_rate) {
  const torch::NoGradGuard no_gradient;
  if (steps_ == 0) {
    // Which parameters take part is fixed by the network and the plan.
    std::vector<bool> taking_part;
    for (const torch::Tensor& tensor : parameters_) taking_part.push_back(tensor.grad().defined());
    Start(taking_part);
  }
  std::vector<torch::Tensor> gradients;
  gradients.reserve(parameters_.size());
  for (torch::Tensor& parameter : parameters_) {
    gradients.push_back(parameter.grad());
    parameter.mutable_grad().reset();
  }

  if (!origins_.empty()) {
    at::_foreach_add_(gradients, at::_foreach_sub(parameters_, origins_), plan_.proximal);
  }
  const auto norm = at::stack(at::_foreach_norm(gradients)).norm().item<double>();
  if (!std::isfinite(norm)) return norm;
  ++steps_;
  if (norm > plan_.gradient_norm_limit) {
    at::_foreach_mul_(gradients, plan_.gradient_norm_limit / (norm + kNormEpsilon));
  }

  if (plan_.optimizer == TrainingPlan::Optimizer::kSgd) {
    at::_foreach_add_(gradients, parameters_, plan_.weight_decay);
    if (!corrections_.empty()) at::_foreach_add_(gradients, corrections_);
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
