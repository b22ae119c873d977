#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace isoscan {

/// One site's staged update: a safetensors file on disk and its weight in a mean.
struct StagedUpdate {
  std::string site;
  std::filesystem::path weights;
  double weight = 0;  ///< Relative; need not sum to 1.
  /// SHA-256 of the file: each block is compared with the block sums that belong to it. Empty: not.
  std::string digest = {};
};

/// OK for updates that can be put together; they are sorted by site then.
/// Errors: INVALID_ARGUMENT no update, a site twice, a weight that is not positive and finite.
absl::Status CheckStagedUpdates(std::vector<StagedUpdate>& updates);

/// The weights of updates as shares: they sum to 1.
std::vector<double> SharesOf(const std::vector<StagedUpdate>& updates);

}  // namespace isoscan
