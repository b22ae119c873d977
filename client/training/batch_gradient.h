#pragma once

#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <stop_token>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/process_group/process_group.h"
#include "client/training/patch_sampler.h"

namespace isoscan {

/// The loss of a batch and its gradient, by one process or several, each taking its part of the
/// batch in as many pieces as memory asks for.
///
/// A loss that is a mean over patches, as SegmentationLoss is (also its Dice term, also with deep
/// supervision), is the sum of its pieces' means, each by its share of the patches; so is the
/// gradient. Sums are taken in the order of the patches: (piece 0 + piece 1) + ...; (rank 0 + rank
/// 1) + .... Two ranks of b patches each therefore give the very bits of one process that takes 2 b
/// patches in pieces of b; against one piece, float32 rounding differs.
class BatchGradient {
 public:
  struct Options {
    std::int64_t batch_size = 1;  ///< Of all ranks together.
    /// The most that a rank takes in one piece; 0: its whole part.
    std::int64_t patches_at_once = 0;
    /// False where a patch's loss depends on the others (batch normalisation): there is one piece.
    bool divisible = true;
    ProcessGroup* group = nullptr;                 ///< None: one process.
    std::function<void()> release_memory = [] {};  ///< Gives back what LibTorch keeps of a GPU's.
    /// Told when memory ends and pieces become smaller.
    std::function<void(const absl::Status&)> on_trouble = [](const absl::Status&) {};
  };
  /// The mean loss of patches `first` to `first + count` - 1 of this rank's part, a scalar.
  using PieceLoss = std::function<torch::Tensor(std::int64_t first, std::int64_t count)>;

  BatchGradient(std::vector<torch::Tensor> parameters, Options options);

  /// This rank's part of the batch.
  const PatchRange& part() const { return part_; }

  /// The batch's loss, and its gradient in the parameters' grad(); both to the same bits in every
  /// rank. `last_norm` is what the optimiser made of the step before.
  ///
  /// A GPU's memory that ends makes pieces half as large, for good, until one patch is too large.
  /// Errors: with a group, CANCELLED when a rank was asked to stop, those of ProcessGroup, and
  ///         INTERNAL when ranks have drifted apart.
  /// Throws: what LibTorch throws, c10::OutOfMemoryError for one patch.
  absl::StatusOr<double> Compute(const PieceLoss& loss_of, double last_norm,
                                 const std::stop_token& stop);

 private:
  double ComputePart(const PieceLoss& loss_of);
  double ComputePieces(const PieceLoss& loss_of);
  void ClearGradients();
  absl::Status SumGradients();

  std::vector<torch::Tensor> parameters_;
  Options options_;
  PatchRange part_;
  std::int64_t at_once_;
};

}  // namespace isoscan
