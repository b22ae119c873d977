#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "common/weights/safetensors.h"
#include "server/aggregation/block_pass.h"
#include "server/aggregation/block_reducer.h"
#include "server/aggregation/staged_updates.h"

namespace isoscan {

/// What a reduction reads.
struct ReductionInput {
  std::vector<StagedUpdate> updates;  ///< In the order in which the reducer sees them.
  std::filesystem::path model;        ///< That the updates were trained from; empty: not read.
  std::string model_digest = {};      ///< As StagedUpdate::digest.

  /// What the server carries from round to round: of each set a tensor `SET.NAME` for every tensor
  /// of an update. Without sets there is no state.
  std::vector<std::string> state_sets = {};
  std::filesystem::path state = {};  ///< Empty before the first round: zeros.
  std::string state_digest = {};
};

/// What it writes; `state` where the input has state_sets.
struct ReductionOutput {
  std::filesystem::path model;
  WeightsMetadata metadata = {};
  std::filesystem::path state = {};
  WeightsMetadata state_metadata = {};
};

/// The one way from staged updates to a model: reads them block by block, lets the reducer put each
/// block together, rounds to float once, and writes both files (atomically, the model last). On an
/// error there is neither.
///
/// The same bytes for any thread count and block size; memory is options.memory_bytes and a file's
/// header for each site.
/// Errors: INVALID_ARGUMENT no update, updates of different tensors, a value that is not finite
///         (site, tensor and index named), or a result that is none (tensor and index named);
///         NOT_FOUND a file that is not there; DATA_LOSS one that is damaged, or is not what its
///         digest says (site and bytes named); RESOURCE_EXHAUSTED disk full.
absl::Status ReduceBlocks(const BlockReducer& reducer, const ReductionInput& input,
                          const ReductionOutput& output, const AveragingOptions& options = {});

}  // namespace isoscan
