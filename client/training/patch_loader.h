#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <utility>

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
template <typename Batch>
class PatchLoader {
 public:
  /// For the steps from `first` to `end` - 1. `make` is called by several threads at once, before
  /// the end of this object, which waits for the batches that are being made.
  PatchLoader(std::function<Batch(std::int64_t step)> make, std::int64_t first, std::int64_t end,
              std::int64_t batches_ahead)
      : make_(std::move(make)), next_(first), end_(end) {
    for (std::int64_t i = 0; i < batches_ahead; ++i) Order();
  }

  /// The batch of the next step; call at most `end` - `first` times. Throws what making it threw.
  Batch Next() {
    const auto start = std::chrono::steady_clock::now();
    Batch batch = coming_.front().get();
    waited_ += std::chrono::steady_clock::now() - start;
    coming_.pop_front();
    Order();
    return batch;
  }

  /// How long Next() has waited in all for batches that were not ready.
  std::chrono::duration<double> waited() const { return waited_; }

 private:
  void Order() {
    if (next_ == end_) return;
    coming_.push_back(std::async(std::launch::async, [this, step = next_] { return make_(step); }));
    ++next_;
  }

  const std::function<Batch(std::int64_t step)> make_;
  std::int64_t next_;
  std::int64_t end_;
  std::chrono::duration<double> waited_{0};
  std::deque<std::future<Batch>> coming_;  ///< Of the steps before next_.
};

}  // namespace isoscan
