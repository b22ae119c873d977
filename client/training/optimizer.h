#pragma once

#include <torch/types.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"

#include "common/study/study.h"
#include "common/weights/named_tensors.h"

namespace isoscan {

/// Stochastic gradient descent with Nesterov momentum, or AdamW (betas 0.9 and 0.999, eps 1e-8), on
/// gradients whose norm over all parameters is limited.
///
/// Where the plan has a proximal term, mu / 2 |w - w0|^2 is added to what is minimised; w0 are the
/// parameters as they are when the optimiser is made (FedProx: the global model's), or those that
/// DrawTo() says.
///
/// Parameters without a gradient (heads that are not trained) are left alone. Starts without
/// history.
/// Source: docs/references.md#sutskever2013, #loshchilov2019, #pascanu2013, #li2020,
/// #li2021ditto, #karimireddy2020; as
/// torch.optim.
class Optimizer {
 public:
  Optimizer(const TrainingPlan& plan, std::vector<torch::Tensor> parameters);

  /// Other w0 of the proximal term (Ditto), one for each given parameter. Before the first step.
  void DrawTo(std::vector<torch::Tensor> origins);

  /// Adds these to the gradients of every step once their norm is limited (SCAFFOLD: c - c_i), one
  /// for each given parameter; of SGD. Before the first step.
  void Correct(std::vector<torch::Tensor> corrections);

  /// One update from the parameters' gradients, which are cleared. Returns the gradients' norm
  /// before it was limited; when that is not finite, nothing is updated.
  double Step(double learning_rate);

  /// What the next step depends on beside weights and gradients, in float32: `first.NUMBER` and,
  /// for AdamW, `second.NUMBER` of each parameter that takes part. NUMBER counts the given
  /// parameters.
  NamedTensors Moments() const;

  /// Goes on as after `steps` steps that led to `moments`; before the first step only.
  /// Errors: INVALID_ARGUMENT moments that these parameters cannot have.
  absl::Status Restore(std::int64_t steps, const NamedTensors& moments);

 private:
  void Start(const std::vector<bool>& taking_part);

  TrainingPlan plan_;
  std::vector<torch::Tensor> parameters_;     ///< From the first step on, those that take part.
  std::vector<std::size_t> numbers_;          ///< Of parameters_.
  std::vector<torch::Tensor> origins_;        ///< w0 of parameters_; empty without a proximal term.
  std::vector<torch::Tensor> corrections_;    ///< Of parameters_; empty: none.
  std::vector<torch::Tensor> first_moments_;  ///< Momentum for SGD; made when first needed.
  std::vector<torch::Tensor> second_moments_;  ///< AdamW only.
  std::int64_t steps_ = 0;
};

}  // namespace isoscan
