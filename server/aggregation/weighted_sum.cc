#include "server/aggregation/weighted_sum.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>

namespace isoscan {
namespace {

// Of double, so that the sums stay in the first cache while the updates pass by.
constexpr std::size_t kTile = 2048;

void Add(double factor, std::span<const float> values, std::span<double> sums) {
  if (factor == 0) return;
  for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += factor * double{values[i]};
}

}  // namespace

SumRule MeanRule(const std::vector<StagedUpdate>& updates) {
  SumRule mean{.updates = {}, .divisor = 0};
  for (const StagedUpdate& update : updates) {
    mean.updates.push_back(update.weight);
    mean.divisor += update.weight;
  }
  return mean;
}

WeightedSum::WeightedSum(SumRule rule)
    : rule_of_([rule = std::make_shared<const SumRule>(std::move(rule))](
                   std::string_view) -> const SumRule& { return *rule; }) {}

void WeightedSum::Reduce(const BlockInput& input, const BlockOutput& output) const {
  const SumRule& rule = rule_of_(input.tensor);
  for (std::size_t first = 0; first < output.model.size(); first += kTile) {
    const std::size_t count = std::min(kTile, output.model.size() - first);
    const std::span<double> sums = output.model.subspan(first, count);
    std::fill(sums.begin(), sums.end(), 0.0);
    if (rule.model != 0) Add(rule.model, input.model.subspan(first, count), sums);
    for (std::size_t k = 0; k < input.updates.size(); ++k) {
      Add(rule.updates[k], input.updates[k].subspan(first, count), sums);
    }
    for (double& sum : sums) sum /= rule.divisor;
  }
}

}  // namespace isoscan
