#include "client/training/segmentation_loss.h"

#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <cstddef>

#include "client/kernels/dice_cross_entropy.h"
#include "client/network/kernel_functions.h"
#include <ATen/ATen.h>

namespace isoscan {
namespace {

constexpr double kSmooth = 1e-5;
constexpr double kSmallestDenominator = 1e-8;

/// The same in client/kernels.
class FusedDiceCrossEntropyFunction
    : public torch::autograd::Function<FusedDiceCrossEntropyFunction> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext* context,
                               const torch::Tensor& given_scores,
                               const torch::Tensor& given_labels) {
    const torch::Tensor scores = given_scores.contiguous();
    const torch::Tensor labels = given_labels.contiguous();
    const DiceCrossEntropyPlan plan{.samples = scores.size(0),
                                    .classes = scores.size(1),
                                    .voxels = labels.numel() / scores.size(0)};
    torch::Tensor gradient = at::empty_like(scores);
    const auto loss_of = [&](auto number) {
      using Number = decltype(number);
      return DiceCrossEntropyLoss(plan, static_cast<const Number*>(scores.data_ptr()),
                                  labels.data_ptr<std::uint8_t>(), 1.0,
                                  static_cast<Number*>(gradient.data_ptr()), LibTorchThreads());
    };
    const double loss =
        scores.scalar_type() == torch::kBFloat16 ? loss_of(Bfloat16{}) : loss_of(float{});
    context->save_for_backward({gradient});
    return at::scalar_tensor(loss, scores.options().dtype(torch::kFloat32));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& outer) {
    const torch::Tensor gradient = context->get_saved_variables()[0];
    return {gradient.mul(outer[0].item<double>()), torch::Tensor()};
  }
};

bool IsFused(const torch::Tensor& scores) {
  return scores.is_cpu() &&
         (scores.scalar_type() == torch::kFloat32 || scores.scalar_type() == torch::kBFloat16);
}

class DiceCrossEntropyFunction : public torch::autograd::Function<DiceCrossEntropyFunction> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext* context,
                               const torch::Tensor& scores, const torch::Tensor& labels) {
    const std::int64_t samples = scores.size(0);
    const std::int64_t classes = scores.size(1);
    const torch::Tensor flat = scores.flatten(2);
    const auto voxels = static_cast<double>(samples * flat.size(2));

    const torch::Tensor log_probability = at::log_softmax(flat, 1);
    const torch::Tensor probability = log_probability.exp();
    const torch::Tensor numbers = at::arange(classes, labels.options()).view({1, classes, 1});
    const torch::Tensor truth = labels.flatten(1).unsqueeze(1).eq(numbers).to(flat.scalar_type());
    const torch::Tensor cross_entropy = (log_probability * truth).sum() / -voxels;

    const torch::Tensor common = (probability * truth).sum(2);
    const torch::Tensor numerator = 2 * common + kSmooth;
    const torch::Tensor denominator =
        (probability.sum(2) + truth.sum(2) + kSmooth).clamp_min(kSmallestDenominator);
    const torch::Tensor dice = numerator / denominator;

    // d(-mean dice)/dp = slope * g + offset for the foreground, 0 for the background.
    const double share = -1.0 / static_cast<double>(samples * (classes - 1));
    const torch::Tensor slope = (2 * share) / denominator;
    const torch::Tensor offset = numerator / denominator.square() * -share;
    slope.select(1, 0).zero_();
    offset.select(1, 0).zero_();
    torch::Tensor gradient = truth * slope.unsqueeze(2);
    gradient.add_(offset.unsqueeze(2));
    // Through the softmax: dp_j/dz_i = p_i (delta_ij - p_j); cross entropy adds (p - g) / voxels.
    gradient.sub_((gradient * probability).sum(1, /*keepdim=*/true));
    gradient.add_(1.0 / voxels).mul_(probability).sub_(truth, 1.0 / voxels);
    context->save_for_backward({gradient.view_as(scores)});
    return cross_entropy - dice.narrow(1, 1, classes - 1).mean();
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& outer) {
    return {context->get_saved_variables()[0] * outer[0], torch::Tensor()};
  }
};

/// The label at the centre of each block of voxels, rounded up.
torch::Tensor LabelsAt(const torch::Tensor& labels, const torch::Tensor& scores) {
  torch::Tensor reduced = labels;
  for (std::int64_t axis = 1; axis < 4; ++axis) {
    const std::int64_t factor = labels.size(axis) / scores.size(axis + 1);
    reduced = reduced.slice(axis, factor / 2, labels.size(axis), factor);
  }
  return reduced;
}

}  // namespace

torch::Tensor DiceCrossEntropy(const torch::Tensor& scores, const torch::Tensor& labels) {
  return IsFused(scores) ? FusedDiceCrossEntropyFunction::apply(scores, labels)
                         : DiceCrossEntropyFunction::apply(scores, labels);
}

std::vector<double> DeepSupervisionWeights(std::int64_t heads) {
  std::vector<double> weights;
  double sum = 0;
  for (std::int64_t head = 0; head < heads; ++head) {
    const bool last = heads > 1 && head + 1 == heads;
    weights.push_back(last ? 0 : std::ldexp(1.0, -static_cast<int>(head)));
    sum += weights.back();
  }
  for (double& weight : weights) weight /= sum;
  return weights;
}

torch::Tensor SegmentationLoss(const std::vector<torch::Tensor>& scores,
                               const torch::Tensor& labels, const std::vector<double>& weights) {
  torch::Tensor loss;
  for (std::size_t head = 0; head < scores.size(); ++head) {
    // Probabilities of half precision are summed only where the kernel sums them in double.
    const torch::Tensor summable =
        IsFused(scores[head]) ? scores[head] : scores[head].to(torch::kFloat32);
    const torch::Tensor part =
        DiceCrossEntropy(summable, LabelsAt(labels, summable)) * weights[head];
    loss = loss.defined() ? loss + part : part;
  }
  return loss;
}

}  // namespace isoscan
