#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/weights/named_tensors.h"
#include "server/aggregation/tensor_sums.h"

namespace isoscan {

/// One site's staged update: a safetensors file on disk and its weight in the mean.
struct StagedUpdate {
  std::string site;
  std::filesystem::path weights;
  double weight = 0;  ///< Relative; need not sum to 1.
  /// SHA-256 of the file: each block is compared with the block sums that belong to it. Empty: not.
  std::string digest = {};
};

/// FedAvg: the weighted mean of the updates, summed (SumTensors) in site-name order. Arrival order,
/// thread count and restarts do not show in the bytes.
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

/// OK for updates that can be averaged; they are sorted by site then.
/// Errors: INVALID_ARGUMENT no update, a site twice, a weight that is not positive and finite.
absl::Status CheckStagedUpdates(std::vector<StagedUpdate>& updates);

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
