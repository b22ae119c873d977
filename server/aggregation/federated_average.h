#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "common/weights/named_tensors.h"
#include "server/aggregation/block_pass.h"
#include "server/aggregation/staged_updates.h"

namespace isoscan {

/// FedAvg: the weighted mean of the updates, summed in site-name order (WeightedSum, ReduceBlocks).
/// Arrival order, thread count and restarts do not show in the bytes.
///
/// Writes the mean to `output` (atomically) with `metadata`. On an error nothing is written.
/// Errors: INVALID_ARGUMENT no update, a site twice, a weight that is not positive and finite,
///         updates of different tensors, a value that is not finite (site and tensor named);
///         NOT_FOUND an update that is not there; DATA_LOSS a file that is damaged, or is not
///         what its digest says (site and bytes named);
///         RESOURCE_EXHAUSTED disk full.
/// Source: docs/references.md#mcmahan2017, Algorithm 1.
absl::Status FederatedAverage(std::vector<StagedUpdate> updates,
                              const std::filesystem::path& output,
                              const std::map<std::string, std::string>& metadata,
                              const AveragingOptions& options = {});

/// Weights of a mean by training cases, where no site exceeds `maximum` of the whole; what a capped
/// site loses goes to the others in proportion. In the order given; sums to 1. Where `maximum` is
/// less than an equal share, which no weights can respect, all sites weigh the same.
///
/// Every count must be positive; without any, and for counts that are not, the weight is 0 (which
/// FederatedAverage refuses).
std::vector<double> SiteWeights(const std::vector<std::int64_t>& training_cases, double maximum);

/// Whether an update may count: every tensor of `expected` and no other, right shapes, finite.
/// Errors: INVALID_ARGUMENT naming site, tensor and number, also for a file that is damaged or of
///         another dtype; NOT_FOUND the update is not there, or cannot be opened.
absl::Status ScreenUpdate(const std::string& site, const std::filesystem::path& weights,
                          const TensorShapes& expected);

}  // namespace isoscan
