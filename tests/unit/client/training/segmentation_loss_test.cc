#include "client/training/segmentation_loss.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include <ATen/ATen.h>

namespace isoscan {
namespace {

using ::testing::ElementsAre;

/// The definition, left to autograd.
torch::Tensor PlainDiceCrossEntropy(const torch::Tensor& scores, const torch::Tensor& labels) {
  const std::int64_t classes = scores.size(1);
  torch::Tensor dice = at::zeros({}, scores.options());
  torch::Tensor cross_entropy = at::zeros({}, scores.options());
  const torch::Tensor probability = at::softmax(scores, 1);
  for (std::int64_t n = 0; n < scores.size(0); ++n) {
    for (std::int64_t c = 0; c < classes; ++c) {
      const torch::Tensor p = probability[n][c];
      const torch::Tensor g = labels[n].eq(c).to(scores.scalar_type());
      cross_entropy = cross_entropy - (p.log() * g).sum();
      if (c > 0) dice = dice + (2 * (p * g).sum() + 1e-5) / (p.sum() + g.sum() + 1e-5);
    }
  }
  return cross_entropy / static_cast<double>(labels.numel()) -
         dice / static_cast<double>(scores.size(0) * (classes - 1));
}

torch::Tensor RandomLabels(std::vector<std::int64_t> shape, std::int64_t classes) {
  return at::randint(classes, shape).to(torch::kUInt8);
}

TEST(DiceCrossEntropy, HasTheValueAndGradientOfItsDefinition) {
  for (const std::int64_t classes : {2, 4}) {
    const torch::Tensor labels = RandomLabels({3, 4, 5, 6}, classes);
    labels[0].zero_();  // a sample without foreground
    const torch::Tensor scores = at::randn({3, classes, 4, 5, 6}, torch::kFloat64) * 3;
    const torch::Tensor ours = scores.clone().set_requires_grad(true);
    const torch::Tensor plain = scores.clone().set_requires_grad(true);

    const torch::Tensor loss = DiceCrossEntropy(ours, labels);
    const torch::Tensor expected = PlainDiceCrossEntropy(plain, labels);
    (loss * 0.7).backward();
    (expected * 0.7).backward();

    EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-10);
    EXPECT_LT((ours.grad() - plain.grad()).abs().max().item<double>(), 1e-10);
  }
}

TEST(DiceCrossEntropy, IsTheSameInTheTypesThatAreTrainedIn) {
  for (const std::int64_t classes : {2, 3, 40}) {
    // More than a piece of the kernel's, and no multiple of its block.
    const torch::Tensor labels = RandomLabels({2, 23, 21, 19}, classes);
    labels[0].zero_();
    const torch::Tensor scores = at::randn({2, classes, 23, 21, 19}, torch::kFloat32) * 5;
    for (const auto type : {torch::kFloat32, torch::kBFloat16}) {
      const torch::Tensor ours = scores.to(type).clone().set_requires_grad(true);
      const torch::Tensor plain = scores.to(type).to(torch::kFloat64).set_requires_grad(true);

      const torch::Tensor loss = DiceCrossEntropy(ours, labels);
      const torch::Tensor expected = PlainDiceCrossEntropy(plain, labels);
      (loss * 0.7).backward();
      (expected * 0.7).backward();

      EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-6);
      const double largest = plain.grad().abs().max().item<double>();
      const double share = type == torch::kFloat32 ? 2e-6 : 0.008;  // rounded twice
      EXPECT_LT((ours.grad().to(torch::kFloat64) - plain.grad()).abs().max().item<double>(),
                share * largest);
    }
  }
}

TEST(DiceCrossEntropy, IsMinusOneForACertainAndRightAnswer) {
  const torch::Tensor labels = RandomLabels({1, 8, 8, 8}, 2);
  const torch::Tensor truth = labels.to(torch::kFloat32);
  const torch::Tensor scores = at::stack({-40 * truth, 40 * truth - 20}, 1);

  EXPECT_NEAR(DiceCrossEntropy(scores, labels).item<double>(), -1, 1e-5);
}

TEST(DeepSupervision, HalvesTheWeightAndIgnoresTheCoarsestHead) {
  EXPECT_THAT(DeepSupervisionWeights(1), ElementsAre(1.0));
  EXPECT_THAT(DeepSupervisionWeights(2), ElementsAre(1.0, 0.0));
  EXPECT_THAT(DeepSupervisionWeights(5), ElementsAre(8.0 / 15, 4.0 / 15, 2.0 / 15, 1.0 / 15, 0.0));
}

TEST(DeepSupervision, ComparesEachHeadWithTheLabelsAtItsResolution) {
  // Blocks of 1 x 2 x 2 voxels share a label: the coarse head can be as right as the fine one.
  const torch::Tensor coarse = RandomLabels({1, 4, 3, 5}, 2);
  const torch::Tensor fine = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3);
  const auto certain = [](const torch::Tensor& labels) {
    const torch::Tensor truth = labels.to(torch::kFloat32);
    return at::stack({-40 * truth, 40 * truth - 20}, 1);
  };

  const torch::Tensor loss =
      SegmentationLoss({certain(fine), certain(coarse)}, fine, {2.0 / 3, 1.0 / 3});

  EXPECT_NEAR(loss.item<double>(), -1, 1e-5);
}

}  // namespace
}  // namespace isoscan
