#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/study/study.h"
#include "common/weights/safetensors.h"
#include "server/aggregation/block_pass.h"
#include "server/aggregation/fair_average.h"
#include "server/aggregation/robust_average.h"
#include "server/aggregation/staged_updates.h"

namespace isoscan {

/// The way from a round's updates to its model, by the strategy that the study has: every strategy
/// is chosen here and nowhere else.

/// One site's update, with what a strategy may weigh it by.
struct RoundContribution {
  StagedUpdate update;         ///< `weight`: by training cases.
  double effective_steps = 0;  ///< FedNova: common/study/schedule.h.
  double loss_before = 0;      ///< q-FedAvg, AFL: of the round's model.
};

struct RoundInput {
  int round = 1;
  std::vector<RoundContribution> contributions;
  SiteShares shares;  ///< Of all sites that take part, by training cases; all together 1.
  std::filesystem::path model;
  std::string model_digest;
  /// What ServerOptimizer left in the round before; empty: nothing.
  std::filesystem::path state = {};
  std::string state_digest = {};
  SiteShares site_weights = {};  ///< AFL's lambda after the round before.
};

struct RoundOutput {
  std::filesystem::path model;
  WeightsMetadata metadata = {};
  std::filesystem::path state = {};  ///< Written where HasState().
};

/// Whether the strategy leaves a file of moments.
bool HasState(const StrategyPlan& plan);

/// What came out beside the model.
struct RoundParts {
  std::vector<SitePart> sites;  ///< Every contribution, by site name.
  SiteShares site_weights;      ///< For the next round; empty: the strategy has none.
};

/// Writes the round's model, and its state where there is one. The bytes depend on nothing but the
/// input, the study's rounds and training, and what lies on disk: order, threads and restarts do
/// not show.
///
/// Errors: INVALID_ARGUMENT, NOT_FOUND, DATA_LOSS, RESOURCE_EXHAUSTED as ReduceBlocks (update,
/// model
///         or state named); FAILED_PRECONDITION too few updates for the strategy (both numbers).
absl::StatusOr<RoundParts> AggregateRound(const RoundsPlan& rounds, const TrainingPlan& training,
                                          RoundInput input, const RoundOutput& output,
                                          const AveragingOptions& options = {});

}  // namespace isoscan
