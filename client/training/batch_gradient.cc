#include "client/training/batch_gradient.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <utility>

#include "common/status/status_macros.h"
#include <ATen/ATen.h>
#include <c10/util/Exception.h>

namespace isoscan {

BatchGradient::BatchGradient(std::vector<torch::Tensor> parameters, Options options)
    : parameters_(std::move(parameters)), options_(std::move(options)) {
  const ProcessGroup* const group = options_.group;
  part_ = PartOfBatch(options_.batch_size, group == nullptr ? 0 : group->rank(),
                      group == nullptr ? 1 : group->size());
  at_once_ = part_.count;
  if (options_.patches_at_once > 0 && options_.divisible) {
    at_once_ = std::min(at_once_, options_.patches_at_once);
  }
}

void BatchGradient::ClearGradients() {
  for (torch::Tensor& parameter : parameters_) parameter.mutable_grad().reset();
}

double BatchGradient::ComputePieces(const PieceLoss& loss_of) {
  double sum = 0;
  for (std::int64_t first = 0; first < part_.count; first += at_once_) {
    const std::int64_t count = std::min(at_once_, part_.count - first);
    torch::Tensor loss = loss_of(first, count);
    if (count != options_.batch_size) {
      loss = loss * (static_cast<double>(count) / static_cast<double>(options_.batch_size));
    }
    loss.backward();
    sum += loss.item<double>();  // Waits for a GPU, and so comes last.
  }
  return sum;
}

double BatchGradient::ComputePart(const PieceLoss& loss_of) {
  while (true) {
    try {
      return ComputePieces(loss_of);
    } catch (const c10::OutOfMemoryError&) {
      if (at_once_ == 1 || !options_.divisible) throw;
    }
    const std::int64_t before = std::exchange(at_once_, (at_once_ + 1) / 2);
    ClearGradients();
    options_.release_memory();
    options_.on_trouble(absl::ResourceExhaustedError(
        fmt::format("out of memory with {} patches at once; going on with {}, which gives the same "
                    "gradient but for rounding, and takes longer",
                    before, at_once_)));
  }
}

absl::Status BatchGradient::SumGradients() {
  std::vector<torch::Tensor> gradients;
  std::vector<torch::Tensor> flat;
  for (const torch::Tensor& parameter : parameters_) {
    // Which have none (heads that are not trained) is fixed by the network and the plan.
    if (!parameter.grad().defined()) continue;
    gradients.push_back(parameter.grad());
    flat.push_back(parameter.grad().reshape({-1}));
  }
  torch::Tensor sum = at::cat(flat);
  RETURN_IF_ERROR(options_.group->Sum(sum));
  std::int64_t first = 0;
  for (torch::Tensor& gradient : gradients) {
    gradient.copy_(sum.narrow(0, first, gradient.numel()).view_as(gradient));
    first += gradient.numel();
  }
  return absl::OkStatus();
}

absl::StatusOr<double> BatchGradient::Compute(const PieceLoss& loss_of, double last_norm,
                                              const std::stop_token& stop) {
  ClearGradients();
  const double own = ComputePart(loss_of);
  if (options_.group == nullptr) return own;

  enum { kLoss, kStop, kNorm, kCount };
  std::array<double, kCount> told{};
  told[kLoss] = own;
  told[kStop] = stop.stop_requested() ? 1 : 0;
  told[kNorm] = last_norm;
  ASSIGN_OR_RETURN(const std::vector<double> all, options_.group->Gather(told));
  double loss = 0;
  for (std::size_t rank = 0; rank * kCount < all.size(); ++rank) {
    const double* const from = all.data() + rank * kCount;
    loss += from[kLoss];
    if (from[kStop] != 0) {
      return absl::CancelledError(fmt::format("rank {} was asked to stop", rank));
    }
    // The same sum and the same arithmetic give the same bits; if not, the ranks' weights differ.
    if (std::bit_cast<std::uint64_t>(from[kNorm]) != std::bit_cast<std::uint64_t>(all[kNorm])) {
      return absl::InternalError(fmt::format(
          "rank {} has drifted from rank 0: the gradient's norm was {} there and {} here; do all "
          "ranks run on the same kind of processor or GPU?",
          rank, from[kNorm], all[kNorm]));
    }
  }
  RETURN_IF_ERROR(SumGradients());
  return loss;
}

}  // namespace isoscan
