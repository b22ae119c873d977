#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

#include "common/weights/named_tensors.h"

namespace isoscan {

/// A piece of one tensor.
struct TensorBlock {
  std::string_view tensor;  ///< Of the shapes that were cut.
  std::int64_t first = 0;
  std::int64_t count = 0;
};

/// Blocks of at most `block_values`, in name order. `shapes` must outlive them.
std::vector<TensorBlock> CutIntoBlocks(const TensorShapes& shapes, std::int64_t block_values);

bool AllFinite(std::span<const float> values);

/// INVALID_ARGUMENT naming site, tensor and the first value of the block that is not finite.
absl::Status NotFinite(const std::string& site, const TensorBlock& block,
                       std::span<const float> values);

}  // namespace isoscan
