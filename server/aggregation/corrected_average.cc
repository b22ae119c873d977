#include "server/aggregation/corrected_average.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "common/status/status_macros.h"
#include "common/study/exchanged_tensors.h"
#include "server/aggregation/block_reduction.h"
#include "server/aggregation/weighted_sum.h"

namespace isoscan {
namespace {

// Sorted by site, and fit for a mean; `numbers` go with them.
template <typename Update>
absl::StatusOr<std::vector<StagedUpdate>> Staged(std::vector<Update>& updates) {
  std::sort(updates.begin(), updates.end(), [](const Update& left, const Update& right) {
    return left.update.site < right.update.site;
  });
  std::vector<StagedUpdate> staged;
  for (const Update& update : updates) staged.push_back(update.update);
  RETURN_IF_ERROR(CheckStagedUpdates(staged));
  return staged;
}

}  // namespace

absl::Status NormalizedAverage(const std::filesystem::path& global_model,
                               std::vector<SteppedUpdate> updates,
                               const std::filesystem::path& output,
                               const std::map<std::string, std::string>& metadata,
                               const AveragingOptions& options) {
  ASSIGN_OR_RETURN(const std::vector<StagedUpdate> staged, Staged(updates));
  const SumRule mean = MeanRule(staged);
  double steps = 0;
  for (const SteppedUpdate& update : updates) {
    if (!(update.effective_steps > 0) || !std::isfinite(update.effective_steps)) {
      return absl::InvalidArgumentError(
          fmt::format("{} took {} effective steps, a mean needs "
                      "positive numbers",
                      update.update.site, update.effective_steps));
    }
    steps += update.update.weight / mean.divisor * update.effective_steps;
  }
  SumRule normalized{.model = 1, .updates = {}};
  for (const SteppedUpdate& update : updates) {
    const double factor = update.update.weight / mean.divisor * steps / update.effective_steps;
    normalized.updates.push_back(factor);
    normalized.model -= factor;
  }
  const WeightedSum reducer([&](std::string_view tensor) -> const SumRule& {
    return IsRunningStatistic(tensor) ? mean : normalized;
  });
  return ReduceBlocks(reducer, {.updates = staged, .model = global_model},
                      {.model = output, .metadata = metadata}, options);
}

absl::Status ScaffoldAverage(const std::filesystem::path& global_model,
                             std::vector<ControlledUpdate> updates,
                             const std::filesystem::path& output,
                             const std::map<std::string, std::string>& metadata,
                             const AveragingOptions& options) {
  ASSIGN_OR_RETURN(const std::vector<StagedUpdate> staged, Staged(updates));
  const SumRule mean = MeanRule(staged);
  SumRule control{.model = 1, .updates = {}};
  for (const ControlledUpdate& update : updates) {
    if (!(update.share > 0) || update.share > 1) {
      return absl::InvalidArgumentError(
          fmt::format("{} has a share of {} among the sites", update.update.site, update.share));
    }
    control.updates.push_back(update.share);
  }
  const WeightedSum reducer([&](std::string_view tensor) -> const SumRule& {
    return tensor.starts_with(kControl) ? control : mean;
  });
  return ReduceBlocks(reducer, {.updates = staged, .model = global_model},
                      {.model = output, .metadata = metadata}, options);
}

}  // namespace isoscan
