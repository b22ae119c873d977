#include "server/aggregation/staged_updates.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace isoscan {

absl::Status CheckStagedUpdates(std::vector<StagedUpdate>& updates) {
  if (updates.empty()) return absl::InvalidArgumentError("there is no update to average");
  std::sort(
      updates.begin(), updates.end(),
      [](const StagedUpdate& left, const StagedUpdate& right) { return left.site < right.site; });
  for (std::size_t i = 0; i < updates.size(); ++i) {
    if (i > 0 && updates[i - 1].site == updates[i].site) {
      return absl::InvalidArgumentError(
          fmt::format("{} has two updates in one mean", updates[i].site));
    }
    if (!(updates[i].weight > 0) || !std::isfinite(updates[i].weight)) {
      return absl::InvalidArgumentError(fmt::format("{} has weight {}, a mean needs positive ones",
                                                    updates[i].site, updates[i].weight));
    }
  }
  return absl::OkStatus();
}

std::vector<double> SharesOf(const std::vector<StagedUpdate>& updates) {
  double sum = 0;
  for (const StagedUpdate& update : updates) sum += update.weight;
  std::vector<double> shares;
  for (const StagedUpdate& update : updates) shares.push_back(update.weight / sum);
  return shares;
}

}  // namespace isoscan
