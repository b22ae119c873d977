#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "server/aggregation/block_reducer.h"

namespace isoscan {

/// Pairs of places, the first lower: whoever goes through them and puts the smaller of two values
/// first has sorted `values` of them. Batcher's merge exchange, for any number of values.
/// Source: docs/references.md#knuth1998, algorithm M.
std::vector<std::pair<std::size_t, std::size_t>> SortingNetwork(std::size_t values);

/// Of each value: the mean of what is left when the `trimmed` smallest and largest of `updates` are
/// taken away. Every update counts the same, however many cases it has.
///
///   trmean(x) = 1 / (n - 2 k) sum_{k < i <= n - k} x_(i)
///
/// At most (n - 1) / 2 can be trimmed. That many leave the median: the middle value, or the mean of
/// the two in the middle.
/// Source: docs/references.md#yin2018, definitions 1 and 2.
class TrimmedMean final : public BlockReducer {
 public:
  TrimmedMean(std::size_t updates, std::size_t trimmed)
      : trimmed_(trimmed), network_(SortingNetwork(updates)) {}

  void Reduce(const BlockInput& input, const BlockOutput& output) const override;

 private:
  std::size_t trimmed_;
  std::vector<std::pair<std::size_t, std::size_t>> network_;
};

/// As many as `fraction` of `updates` has whole ones (scipy.stats.trim_mean), at most what can be
/// trimmed from each side.
std::size_t TrimmedOf(double fraction, std::size_t updates);

/// Of each value: the mean of the `nearest` that are nearest to the median of all; of two that are
/// as near, the smaller. Bulyan's second half.
/// Source: docs/references.md#elmhamdi2018, section 4.
class MeanAroundMedian final : public BlockReducer {
 public:
  MeanAroundMedian(std::size_t updates, std::size_t nearest)
      : nearest_(nearest), network_(SortingNetwork(updates)) {}

  void Reduce(const BlockInput& input, const BlockOutput& output) const override;

 private:
  std::size_t nearest_;
  std::vector<std::pair<std::size_t, std::size_t>> network_;
};

}  // namespace isoscan
