#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

namespace isoscan {

/// Cross entropy minus soft Dice of the softmax, both with weight 1; at best -1.
///
///   Dice of a sample's label: (2 sum p g + s) / max(sum p + sum g + s, 1e-8), s = 1e-5; the mean
///   over samples and labels, background left out. Cross entropy: the mean over samples and voxels.
///
/// The gradient is written out, so that no intermediate of the softmax is kept for autograd.
/// Shapes: scores [N, classes, D, H, W], on the CPU also in bfloat16; labels [N, D, H, W], uint8.
/// Source: docs/references.md#isensee2021, #milletari2016; nnU-Net's DC_and_CE_loss.
torch::Tensor DiceCrossEntropy(const torch::Tensor& scores, const torch::Tensor& labels);

/// How much each resolution counts, finest first: 1, 1/2, 1/4, ..., the last 0, then normalised to
/// a sum of 1. One head counts 1.
std::vector<double> DeepSupervisionWeights(std::int64_t heads);

/// Weighted sum of DiceCrossEntropy over `scores`, finest first; labels are taken at each
/// resolution's voxel centres (nearest).
torch::Tensor SegmentationLoss(const std::vector<torch::Tensor>& scores,
                               const torch::Tensor& labels, const std::vector<double>& weights);

}  // namespace isoscan
