#pragma once

#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include "server/aggregation/block_reducer.h"
#include "server/aggregation/staged_updates.h"

namespace isoscan {

/// Of one tensor: what the global model and each update count for, and what their sum is divided
/// by.
struct SumRule {
  double model = 0;
  std::vector<double> updates;
  double divisor = 1;
};

/// The mean of updates by their weights.
SumRule MeanRule(const std::vector<StagedUpdate>& updates);

/// (model f + sum_k update_k f_k) / divisor, summed in that order. What counts 0 adds nothing.
class WeightedSum final : public BlockReducer {
 public:
  explicit WeightedSum(SumRule rule);
  /// `rule_of` tells the rule of a tensor, from any thread; what it refers to must outlive this.
  explicit WeightedSum(std::function<const SumRule&(std::string_view tensor)> rule_of)
      : rule_of_(std::move(rule_of)) {}

  void Reduce(const BlockInput& input, const BlockOutput& output) const override;

 private:
  std::function<const SumRule&(std::string_view)> rule_of_;
};

}  // namespace isoscan
