#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <future>

#include "client/training/patch_sampler.h"
#include "common/study/study.h"

namespace isoscan {

/// How many batches are made ahead of the step that computes: up to 4, but no more than fit in 1
/// GiB, and always one.
std::int64_t BatchesAhead(const Study& study);

/// Makes the batches of the coming steps while the present one computes. As many threads work as
/// batches are missing: one where making a batch takes less than a step, more where it takes
/// longer. The batches do not depend on that.
///
/// Thread safety: none; one thread takes the batches.
class PatchLoader {
 public:
  /// For the steps from `first` to `end` - 1. `sampler` must outlive this object, whose end waits
  /// for the batches that are being made.
  PatchLoader(const PatchSampler& sampler, std::int64_t first, std::int64_t end,
              std::int64_t batches_ahead);

  /// The batch of the next step; call at most `end` - `first` times. Throws what making it threw.
  PatchBatch Next();

  /// How long Next() has waited in all for batches that were not ready.
  std::chrono::duration<double> waited() const { return waited_; }

 private:
  void Order();

  const PatchSampler& sampler_;
  std::int64_t next_;
  std::int64_t end_;
  std::chrono::duration<double> waited_{0};
  std::deque<std::future<PatchBatch>> coming_;  ///< Of the steps before next_.
};

}  // namespace isoscan
