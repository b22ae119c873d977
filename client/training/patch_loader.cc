#include "client/training/patch_loader.h"

#include <algorithm>
#include <utility>

namespace isoscan {

std::int64_t BatchesAhead(const Study& study) {
  constexpr std::int64_t kMost = 4;
  constexpr std::int64_t kMemoryBytes = std::int64_t{1} << 30;
  return std::clamp<std::int64_t>(kMemoryBytes / BatchBytes(study), 1, kMost);
}

PatchLoader::PatchLoader(const PatchSampler& sampler, std::int64_t first, std::int64_t end,
                         std::int64_t batches_ahead)
    : sampler_(sampler), next_(first), end_(end) {
  for (std::int64_t i = 0; i < batches_ahead; ++i) Order();
}

void PatchLoader::Order() {
  if (next_ == end_) return;
  coming_.push_back(
      std::async(std::launch::async, [this, step = next_] { return sampler_.Sample(step); }));
  ++next_;
}

PatchBatch PatchLoader::Next() {
  const auto start = std::chrono::steady_clock::now();
  PatchBatch batch = coming_.front().get();
  waited_ += std::chrono::steady_clock::now() - start;
  coming_.pop_front();
  Order();
  return batch;
}

}  // namespace isoscan
