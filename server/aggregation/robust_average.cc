#include "server/aggregation/robust_average.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>
#include <utility>

#include "common/status/status_macros.h"
#include "server/aggregation/block_reduction.h"
#include "server/aggregation/geometric_median.h"
#include "server/aggregation/krum.h"
#include "server/aggregation/trimmed_mean.h"
#include "server/aggregation/weighted_sum.h"

namespace isoscan {
namespace {

using Kind = RobustRule::Kind;

std::string Described(const RobustRule& rule) {
  switch (rule.kind) {
    case Kind::kMedian:
      return "the median";
    case Kind::kTrimmedMean:
      return fmt::format("a mean trimmed by {} of each side", rule.trimmed_fraction);
    case Kind::kKrum:
      return fmt::format("Krum against {} faulty sites", rule.faulty_sites);
    case Kind::kMultiKrum:
      return fmt::format("Multi-Krum against {} faulty sites that keeps {} updates",
                         rule.faulty_sites,
                         rule.kept_updates > 0 ? std::to_string(rule.kept_updates) : "n - f - 2");
    case Kind::kBulyan:
      return fmt::format("Bulyan against {} faulty sites", rule.faulty_sites);
    case Kind::kGeometricMedian:
      return "the geometric median";
  }
  return "";
}

// What was chosen counts the same.
RobustDecision DecisionOf(Selection selection, std::unique_ptr<BlockReducer> reducer) {
  RobustDecision decision{.weights = std::vector<double>(selection.left_out.size(), 0.0),
                          .left_out = std::move(selection.left_out),
                          .reducer = std::move(reducer)};
  for (const std::size_t i : selection.chosen) {
    decision.weights[i] = 1 / static_cast<double>(selection.chosen.size());
  }
  return decision;
}

RobustDecision EqualParts(std::size_t updates, std::unique_ptr<BlockReducer> reducer) {
  return {.weights = std::vector<double>(updates, 1 / static_cast<double>(updates)),
          .left_out = std::vector<std::string>(updates),
          .reducer = std::move(reducer)};
}

std::unique_ptr<BlockReducer> PlainMean(std::size_t updates) {
  return std::make_unique<WeightedSum>(SumRule{.updates = std::vector<double>(updates, 1.0),
                                               .divisor = static_cast<double>(updates)});
}

RobustDecision ByKrum(const Distances& distances, std::size_t faulty, std::size_t kept) {
  return DecisionOf(SelectByKrum(distances, faulty, kept), PlainMean(kept));
}

}  // namespace

std::int64_t MinimumUpdates(const RobustRule& rule) {
  switch (rule.kind) {
    case Kind::kTrimmedMean:
      if (rule.trimmed_fraction == 0) return 1;
      return static_cast<std::int64_t>(std::ceil((1 - 1e-9) / rule.trimmed_fraction));
    case Kind::kKrum:
      return 2 * rule.faulty_sites + 3;
    case Kind::kMultiKrum:
      return std::max(2 * rule.faulty_sites + 3, rule.kept_updates + rule.faulty_sites);
    case Kind::kBulyan:
      return 4 * rule.faulty_sites + 3;
    case Kind::kMedian:
    case Kind::kGeometricMedian:
      return 1;
  }
  return 1;
}

bool NeedsDistances(const RobustRule& rule) {
  return rule.kind != Kind::kMedian && rule.kind != Kind::kTrimmedMean;
}

absl::StatusOr<RobustDecision> Decide(const RobustRule& rule, const std::vector<double>& shares,
                                      const Distances* distances) {
  const std::size_t updates = shares.size();
  const std::int64_t minimum = MinimumUpdates(rule);
  if (static_cast<std::int64_t>(updates) < minimum) {
    return absl::FailedPreconditionError(
        fmt::format("{} needs {} updates, there are {}", Described(rule), minimum, updates));
  }
  const auto faulty = static_cast<std::size_t>(rule.faulty_sites);
  switch (rule.kind) {
    case Kind::kMedian:
      return EqualParts(updates, std::make_unique<TrimmedMean>(updates, (updates - 1) / 2));
    case Kind::kTrimmedMean: {
      const std::size_t trimmed = TrimmedOf(rule.trimmed_fraction, updates);
      return EqualParts(updates, std::make_unique<TrimmedMean>(updates, trimmed));
    }
    case Kind::kKrum:
      return ByKrum(*distances, faulty, 1);
    case Kind::kMultiKrum:
      return ByKrum(*distances, faulty,
                    rule.kept_updates > 0 ? static_cast<std::size_t>(rule.kept_updates)
                                          : updates - faulty - 2);
    case Kind::kBulyan: {
      const std::size_t chosen = updates - 2 * faulty;
      return DecisionOf(SelectForBulyan(*distances, faulty),
                        std::make_unique<MeanAroundMedian>(chosen, chosen - 2 * faulty));
    }
    case Kind::kGeometricMedian: {
      RobustDecision decision{.weights = GeometricMedianWeights(*distances, shares),
                              .left_out = std::vector<std::string>(updates),
                              .reducer = nullptr};
      SumRule mean{.updates = {}};
      for (std::size_t k = 0; k < updates; ++k) {
        if (decision.weights[k] == 0) {
          decision.left_out[k] = "half of the weights lie in one point";
          continue;
        }
        mean.updates.push_back(decision.weights[k]);
      }
      decision.reducer = std::make_unique<WeightedSum>(std::move(mean));
      return decision;
    }
  }
  return absl::InternalError("no such rule");
}

absl::StatusOr<std::vector<SitePart>> RobustAverage(
    const RobustRule& rule, std::vector<StagedUpdate> updates, const std::filesystem::path& output,
    const std::map<std::string, std::string>& metadata, const AveragingOptions& options) {
  RETURN_IF_ERROR(CheckStagedUpdates(updates));
  std::optional<Distances> distances;
  // Where there are too few, nothing needs to be measured to say so.
  if (NeedsDistances(rule) && static_cast<std::int64_t>(updates.size()) >= MinimumUpdates(rule)) {
    ASSIGN_OR_RETURN(distances, MeasureDistances(/*global_model=*/{}, updates, options));
  }
  ASSIGN_OR_RETURN(const RobustDecision decision,
                   Decide(rule, SharesOf(updates), distances.has_value() ? &*distances : nullptr));

  std::vector<SitePart> parts;
  std::vector<StagedUpdate> chosen;
  for (std::size_t k = 0; k < updates.size(); ++k) {
    parts.push_back({updates[k].site, decision.weights[k], decision.left_out[k]});
    if (decision.weights[k] != 0) chosen.push_back(std::move(updates[k]));
  }
  RETURN_IF_ERROR(ReduceBlocks(*decision.reducer, {.updates = std::move(chosen), .model = {}},
                               {.model = output, .metadata = metadata}, options));
  return parts;
}

}  // namespace isoscan
