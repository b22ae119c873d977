#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/weights/named_tensors.h"

namespace isoscan {

/// One site's staged update: a safetensors file on disk and its weight in the mean.
struct StagedUpdate {
  std::string site;
  std::filesystem::path weights;
  double weight = 0;  ///< Relative; need not sum to 1.
};

/// FedAvg: the weighted mean of the updates, read block by block in site-name order with double
/// accumulators and rounded to float once. Arrival order, thread count and restarts do not show in
/// the bytes; memory is O(sites x block), never O(sites x model).
///
/// Writes the mean to `output` (atomically) with `metadata`.
/// Errors: INVALID_ARGUMENT no update, a weight that is not positive, updates of different tensors;
///         DATA_LOSS a file that is damaged; RESOURCE_EXHAUSTED disk full.
/// Source: docs/references.md#mcmahan2017, Algorithm 1.
absl::Status FederatedAverage(std::vector<StagedUpdate> updates,
                              const std::filesystem::path& output,
                              const std::map<std::string, std::string>& metadata);

/// Weights of a mean by training cases, where no site exceeds `maximum` of the whole; what a capped
/// site loses goes to the others in proportion. In the order given; sums to 1.
std::vector<double> SiteWeights(const std::vector<std::int64_t>& training_cases, double maximum);

/// Whether an update may count: every tensor of `expected` and no other, right shapes, finite.
/// Errors: INVALID_ARGUMENT naming site, tensor and number.
absl::Status ScreenUpdate(const std::string& site, const std::filesystem::path& weights,
                          const TensorShapes& expected);

}  // namespace isoscan
