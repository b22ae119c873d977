#pragma once

#include <span>
#include <string_view>

namespace isoscan {

/// One block of one tensor: spans of one length, of which value i belongs together.
struct BlockInput {
  std::string_view tensor;
  std::span<const std::span<const float>> updates;  ///< As ReductionInput::updates are ordered.
  std::span<const float> model;                     ///< Empty where ReductionInput has none.
  /// As ReductionInput::state_sets are ordered; zeros before there is a state.
  std::span<const std::span<const float>> state;
};

/// What comes out, in double: the driver rounds each number to float once. Every value must be set;
/// none has a meaning before.
struct BlockOutput {
  std::span<double> model;
  std::span<const std::span<double>> state;
};

/// How the numbers of all sites become one: a strategy, once all that needs to be decided for the
/// round is decided.
///
/// Element by element: value i of the output depends on values i of the input, on the tensor's name
/// and on what the reducer was made with, and on nothing else. That is why blocks, threads and
/// restarts do not show in the bytes.
/// Thread safety: Reduce is called from several threads at once.
class BlockReducer {
 public:
  virtual ~BlockReducer() = default;
  virtual void Reduce(const BlockInput& input, const BlockOutput& output) const = 0;
};

}  // namespace isoscan
