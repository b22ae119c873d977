#include "server/aggregation/tensor_blocks.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

namespace isoscan {
namespace {

bool IsFinite(float value) {
  return (std::bit_cast<std::uint32_t>(value) & 0x7f800000) != 0x7f800000;
}

}  // namespace

std::vector<TensorBlock> CutIntoBlocks(const TensorShapes& shapes, std::int64_t block_values) {
  std::vector<TensorBlock> blocks;
  for (const auto& [name, shape] : shapes) {
    const std::int64_t values = ElementCount(shape);
    for (std::int64_t first = 0; first < values; first += block_values) {
      blocks.push_back({name, first, std::min(block_values, values - first)});
    }
  }
  return blocks;
}

// std::isfinite in a loop that ends early is not vectorised; this one is.
bool AllFinite(std::span<const float> values) {
  std::uint32_t not_finite = 0;
  for (const float value : values) not_finite |= IsFinite(value) ? 0 : 1;
  return not_finite == 0;
}

absl::Status NotFinite(const std::string& site, const TensorBlock& block,
                       std::span<const float> values) {
  const auto bad = std::find_if_not(values.begin(), values.end(), IsFinite);
  return absl::InvalidArgumentError(fmt::format("{} sent {} with value {} at index {}", site,
                                                std::string(block.tensor), *bad,
                                                block.first + (bad - values.begin())));
}

}  // namespace isoscan
