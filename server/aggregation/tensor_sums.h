#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace isoscan {

/// How the work is cut; neither shows in the bytes of the result.
struct AveragingOptions {
  int threads = 0;                        ///< 0: every core that this process may use.
  std::int64_t block_values = 64 * 1024;  ///< Values of one tensor that are summed at a time.
};

/// A file of tensors that sums are made of: a site's update, or the global model.
struct SumTerm {
  std::string site;  ///< For messages; empty: the global model.
  std::filesystem::path tensors;
  /// SHA-256 of the file: each block is compared with the block sums that belong to it. Empty: not.
  std::string digest = {};
};

/// Of one tensor: what each term counts for, in the terms' order. What counts 0 is not read.
struct SumRule {
  std::vector<double> factors;
  double divisor = 1;
};

/// Writes, of each tensor, the sum of the terms times their factors, by the divisor. The terms are
/// read block by block in their order, with double accumulators, and rounded to float once: thread
/// count and restarts do not show in the bytes; memory is O(threads x block).
///
/// `rule_of` is asked once per tensor. Writes `output` (atomically) with `metadata`; on an error
/// nothing is written.
/// Errors: INVALID_ARGUMENT no term, terms of different tensors, a value that is not finite (site
///         and tensor named); NOT_FOUND a file that is not there; DATA_LOSS one that is damaged, or
///         is not what its digest says (site and bytes named); RESOURCE_EXHAUSTED disk full.
absl::Status SumTensors(const std::vector<SumTerm>& terms,
                        const std::function<SumRule(std::string_view tensor)>& rule_of,
                        const std::filesystem::path& output,
                        const std::map<std::string, std::string>& metadata,
                        const AveragingOptions& options);

}  // namespace isoscan
