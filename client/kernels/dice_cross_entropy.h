#pragma once

#include <cstdint>
#include <vector>

#include "client/kernels/bfloat16.h"
#include "client/kernels/parallel.h"

namespace isoscan {

/// Cross entropy minus soft Dice of the softmax, at best -1, with its gradient:
///
///   Dice of a sample's label: (2 sum p g + s) / max(sum p + sum g + s, 1e-8), s = 1e-5; the mean
///   over samples and labels, background left out. Cross entropy: the mean over samples and voxels.
///
/// Source: docs/references.md#isensee2021, #milletari2016; nnU-Net's DC_and_CE_loss.
struct DiceCrossEntropyPlan {
  std::int64_t samples = 1;
  std::int64_t classes = 2;  ///< With the background, which is 0.
  std::int64_t voxels = 1;   ///< Of a sample.
};

/// Shapes: scores [samples, classes, voxels], before the softmax; labels [samples, voxels]; one
/// that is no class counts as none of them. Writes `weight` times the loss' gradient with respect
/// to the scores, unless `gradient` is null, and returns the loss itself.
///
/// Reads the scores twice and keeps no probability. Sums in double over a fixed division of the
/// voxels: the bits do not depend on the number of threads.
template <typename Number>
double DiceCrossEntropyLoss(const DiceCrossEntropyPlan& plan, const Number* scores,
                            const std::uint8_t* labels, double weight, Number* gradient,
                            const Parallel& parallel);

}  // namespace isoscan
