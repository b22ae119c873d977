#include "server/aggregation/round_aggregate.h"

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <utility>

#include "common/status/status_macros.h"
#include "common/study/exchanged_tensors.h"
#include "server/aggregation/block_reduction.h"
#include "server/aggregation/corrected_average.h"
#include "server/aggregation/federated_average.h"
#include "server/aggregation/server_optimizer.h"
#include "server/aggregation/weighted_sum.h"

namespace isoscan {
namespace {

using Kind = StrategyPlan::Kind;

std::vector<StagedUpdate> UpdatesOf(const RoundInput& input) {
  std::vector<StagedUpdate> updates;
  for (const RoundContribution& contribution : input.contributions) {
    updates.push_back(contribution.update);
  }
  return updates;
}

// Every site with its share of the cases.
RoundParts PartsOf(const std::vector<StagedUpdate>& updates) {
  const std::vector<double> shares = SharesOf(updates);
  RoundParts parts;
  for (std::size_t i = 0; i < updates.size(); ++i) {
    parts.sites.push_back({.site = updates[i].site, .weight = shares[i], .left_out = ""});
  }
  return parts;
}

absl::StatusOr<RoundParts> ByServerOptimizer(const StrategyPlan& plan, const RoundInput& input,
                                             const RoundOutput& output,
                                             const AveragingOptions& options) {
  const std::vector<StagedUpdate> updates = UpdatesOf(input);
  const WeightedSum mean(MeanRule(updates));
  RETURN_IF_ERROR(ReduceBlocks(ServerOptimizer(plan, input.round, mean),
                               {.updates = updates,
                                .model = input.model,
                                .model_digest = input.model_digest,
                                .state_sets = StateSets(plan),
                                .state = input.state,
                                .state_digest = input.state_digest},
                               {.model = output.model,
                                .metadata = output.metadata,
                                .state = output.state,
                                .state_metadata = output.metadata},
                               options));
  return PartsOf(updates);
}

absl::StatusOr<RoundParts> ByFairFactors(const StrategyPlan& plan, double learning_rate,
                                         const RoundInput& input, const RoundOutput& output,
                                         const AveragingOptions& options) {
  const std::vector<StagedUpdate> updates = UpdatesOf(input);
  const std::vector<double> shares = SharesOf(updates);
  ASSIGN_OR_RETURN(const std::vector<double> changes,
                   MeasureChanges(input.model, updates, options));
  std::vector<FairUpdate> fair;
  for (std::size_t i = 0; i < updates.size(); ++i) {
    // Rounding may have led below.
    const double loss = std::max(0.0, input.contributions[i].loss_before - kLeastLoss);
    fair.push_back({.share = shares[i], .loss = loss, .squared_change = changes[i]});
  }
  const double smoothness = plan.smoothness > 0 ? plan.smoothness : 1 / learning_rate;
  ASSIGN_OR_RETURN(const std::vector<double> factors, FairFactors(plan.q, smoothness, fair));
  SumRule step{.model = 1, .updates = factors};
  double sum = 0;
  for (const double factor : factors) sum += factor;
  step.model -= sum;
  const SumRule mean = MeanRule(updates);
  const WeightedSum reducer([&](std::string_view tensor) -> const SumRule& {
    return IsRunningStatistic(tensor) ? mean : step;
  });
  RETURN_IF_ERROR(ReduceBlocks(
      reducer, {.updates = updates, .model = input.model, .model_digest = input.model_digest},
      {.model = output.model, .metadata = output.metadata}, options));
  RoundParts parts;
  for (std::size_t i = 0; i < updates.size(); ++i) {
    parts.sites.push_back({.site = updates[i].site, .weight = factors[i] / sum, .left_out = ""});
  }
  return parts;
}

absl::StatusOr<RoundParts> ByLambda(const StrategyPlan& plan, const RoundInput& input,
                                    const RoundOutput& output, const AveragingOptions& options) {
  const SiteShares lambda = LambdaFor(input.site_weights, input.shares);
  std::map<std::string, double> losses;
  std::vector<StagedUpdate> chosen;
  double sum = 0;
  for (const RoundContribution& contribution : input.contributions) {
    losses[contribution.update.site] = contribution.loss_before;
    const double weight = lambda.at(contribution.update.site);
    if (weight == 0) continue;
    chosen.push_back(contribution.update);
    chosen.back().weight = weight;
    sum += weight;
  }
  // All that count for something are missing: these sites by their cases then.
  const bool none = chosen.empty();
  if (none) {
    chosen = UpdatesOf(input);
    for (const StagedUpdate& update : chosen) sum += update.weight;
  }
  RETURN_IF_ERROR(FederatedAverage(chosen, output.model, output.metadata, options));
  RoundParts parts{.sites = {},
                   .site_weights = LambdaAfter(lambda, losses, plan.server_learning_rate)};
  for (const RoundContribution& contribution : input.contributions) {
    const double weight = none ? contribution.update.weight : lambda.at(contribution.update.site);
    parts.sites.push_back({.site = contribution.update.site,
                           .weight = weight / sum,
                           .left_out = weight > 0 ? ""
                                                  : "the model's loss was below that of the other "
                                                    "sites for long"});
  }
  return parts;
}

RobustRule RuleOf(const StrategyPlan& plan) {
  RobustRule rule{.trimmed_fraction = plan.trim,
                  .faulty_sites = plan.byzantine_sites,
                  .kept_updates = plan.chosen_sites};
  switch (plan.kind) {
    case Kind::kTrimmedMean:
      rule.kind = RobustRule::Kind::kTrimmedMean;
      break;
    case Kind::kKrum:
      rule.kind = RobustRule::Kind::kKrum;
      break;
    case Kind::kMultiKrum:
      rule.kind = RobustRule::Kind::kMultiKrum;
      break;
    case Kind::kBulyan:
      rule.kind = RobustRule::Kind::kBulyan;
      break;
    case Kind::kGeometricMedian:
      rule.kind = RobustRule::Kind::kGeometricMedian;
      break;
    default:
      rule.kind = RobustRule::Kind::kMedian;
      break;
  }
  return rule;
}

}  // namespace

bool HasState(const StrategyPlan& plan) { return !StateSets(plan).empty(); }

absl::StatusOr<RoundParts> AggregateRound(const RoundsPlan& rounds, const TrainingPlan& training,
                                          RoundInput input, const RoundOutput& output,
                                          const AveragingOptions& options) {
  const StrategyPlan& plan = rounds.strategy;
  std::sort(input.contributions.begin(), input.contributions.end(),
            [](const RoundContribution& left, const RoundContribution& right) {
              return left.update.site < right.update.site;
            });
  std::vector<StagedUpdate> updates = UpdatesOf(input);
  RETURN_IF_ERROR(CheckStagedUpdates(updates));
  switch (plan.kind) {
    case Kind::kFedAvg:
      RETURN_IF_ERROR(FederatedAverage(updates, output.model, output.metadata, options));
      return PartsOf(updates);
    case Kind::kFedNova: {
      std::vector<SteppedUpdate> stepped;
      for (const RoundContribution& contribution : input.contributions) {
        stepped.push_back(
            {.update = contribution.update, .effective_steps = contribution.effective_steps});
      }
      RETURN_IF_ERROR(NormalizedAverage(input.model, std::move(stepped), output.model,
                                        output.metadata, options));
      return PartsOf(updates);
    }
    case Kind::kScaffold: {
      std::vector<ControlledUpdate> controlled;
      for (const StagedUpdate& update : updates) {
        controlled.push_back({.update = update, .share = input.shares.at(update.site)});
      }
      RETURN_IF_ERROR(ScaffoldAverage(input.model, std::move(controlled), output.model,
                                      output.metadata, options));
      return PartsOf(updates);
    }
    case Kind::kFedAvgM:
    case Kind::kFedAdagrad:
    case Kind::kFedAdam:
    case Kind::kFedYogi:
      return ByServerOptimizer(plan, input, output, options);
    case Kind::kQFedAvg:
      return ByFairFactors(plan, training.learning_rate, input, output, options);
    case Kind::kAfl:
      return ByLambda(plan, input, output, options);
    case Kind::kMedian:
    case Kind::kTrimmedMean:
    case Kind::kKrum:
    case Kind::kMultiKrum:
    case Kind::kBulyan:
    case Kind::kGeometricMedian:
      break;
  }
  RoundParts parts;
  ASSIGN_OR_RETURN(parts.sites, RobustAverage(RuleOf(plan), std::move(updates), output.model,
                                              output.metadata, options));
  return parts;
}

}  // namespace isoscan
