#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "server/aggregation/block_pass.h"
#include "server/aggregation/staged_updates.h"

namespace isoscan {

/// Means that start from the global model which the updates were trained from. Both give what
/// FederatedAverage gives to running statistics, which no gradient moves; both read and write as
/// ReduceBlocks does, in site-name order, and have the errors of FederatedAverage.

/// An update with how many effective steps (common/study/schedule.h) led to it.
struct SteppedUpdate {
  StagedUpdate update;
  double effective_steps = 0;
};

/// FedNova: w - t sum_i p_i (w - w_i) / t_i, where p_i are the weights as shares, t_i the effective
/// steps and t = sum_i p_i t_i. What sites change per step is averaged, not what they change in
/// all: a site that takes more steps does not pull the model towards its own optimum. With equal
/// t_i it is FederatedAverage up to rounding.
/// Errors also: INVALID_ARGUMENT effective steps that are not positive and finite.
/// Source: docs/references.md#wang2020, equation 6 and section 4.
absl::Status NormalizedAverage(const std::filesystem::path& global_model,
                               std::vector<SteppedUpdate> updates,
                               const std::filesystem::path& output,
                               const std::map<std::string, std::string>& metadata,
                               const AveragingOptions& options = {});

/// An update whose `control.*` tensors are how far the site's control variates have changed.
struct ControlledUpdate {
  StagedUpdate update;
  double share = 0;  ///< Of the site among all that take part in the study, not in this round.
};

/// SCAFFOLD's server: weights as FederatedAverage (the global step size is 1), and
/// c + sum_i share_i dc_i for the control variates: the share-weighted mean of the c_i of all
/// sites, of which those that sent nothing have not changed. With equal shares 1/N that is the
/// paper's c + |S| / N mean dc.
/// Errors also: INVALID_ARGUMENT a share that is not in (0, 1].
/// Source: docs/references.md#karimireddy2020, Algorithm 1.
absl::Status ScaffoldAverage(const std::filesystem::path& global_model,
                             std::vector<ControlledUpdate> updates,
                             const std::filesystem::path& output,
                             const std::map<std::string, std::string>& metadata,
                             const AveragingOptions& options = {});

}  // namespace isoscan
