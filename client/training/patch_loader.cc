#include "client/training/patch_loader.h"

#include <algorithm>

#include "client/training/patch_sampler.h"

namespace isoscan {

std::int64_t BatchesAhead(const Study& study) {
  constexpr std::int64_t kMost = 4;
  constexpr std::int64_t kMemoryBytes = std::int64_t{1} << 30;
  return std::clamp<std::int64_t>(kMemoryBytes / BatchBytes(study), 1, kMost);
}

}  // namespace isoscan
