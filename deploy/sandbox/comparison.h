#pragma once

#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "deploy/sandbox/federation_run.h"

namespace isoscan {

/// The arms of a comparison on the same cohorts and the same held-out cases.
enum class Arm {
  kLocal,      ///< Every site alone: one federation of one site each.
  kPooled,     ///< One site that has every folder, with as many steps as all sites together.
  kFederated,  ///< The study as it stands.
};

/// Errors: INVALID_ARGUMENT for anything but "local", "pooled", "federated".
absl::StatusOr<Arm> ParseArm(const std::string& text);

/// Runs the arms one after another, each in a folder of OUT, and answers with one table: a row per
/// site, a column per arm. An arm whose report is there is not run again, so an interrupted
/// comparison goes on where it was. This is the only place where cohorts may be pooled.
/// Errors: those of RunFederation, naming the arm.
absl::StatusOr<std::string> RunComparison(const FederationRun& run, const std::vector<Arm>& arms,
                                          std::stop_token stop);

/// The study with `factor` times the steps per round: the pooled arm's share of work.
/// Errors: INVALID_ARGUMENT when the text has no steps_per_round.
absl::StatusOr<std::string> WithStepsMultiplied(const std::string& study_toml, std::int64_t factor);

}  // namespace isoscan
