#pragma once

#include <cstdint>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "deploy/sandbox/federation_run.h"
#include "deploy/sandbox/study_variants.h"

namespace isoscan {

/// The arms of a comparison on the same cohorts and the same held-out cases.
enum class Arm {
  kLocal,      ///< Every site alone: one federation of one site each.
  kPooled,     ///< One site that has every folder, with as many steps as all sites together.
  kFederated,  ///< The study as it stands.
};

/// Errors: INVALID_ARGUMENT for anything but "local", "pooled", "federated".
absl::StatusOr<Arm> ParseArm(const std::string& text);

/// What is compared: every arm of every variant, repeated with other seeds.
struct Comparison {
  FederationRun run;  ///< Its study is not used: the variants are.
  std::vector<Arm> arms;
  std::vector<StudyVariant> variants;
  std::int64_t repetitions = 1;
  /// Cohorts of scanners that no arm trains on; scored with the last model of federated and pooled.
  std::vector<SandboxSite> unseen;
};

/// Runs the arms one after another, all before any is repeated, each in a folder of its own,
///
///   OUT/[VARIANT/][repetition-N/]ARM/{report.html, report.json, model.safetensors,
///   unseen-NAME.json}
///
/// writes OUT/comparison.json and answers with a table for people: of one variant a row per site
/// and a column per arm; of several a row per variant and arm, with the mean Dice over all held-out
/// cases, its 95 % interval (cases drawn anew within their sites, 2,000 times; the cases' Dice are
/// means over the repetitions), the worst site, the gap between best and worst, and the unseen
/// cohorts. Below it a line says by how much the federated arm differs from each other
/// (PairedDifference).
///
/// What has its report is not run again, so an interrupted comparison goes on where it was. This is
/// the only place where cohorts may be pooled.
/// Errors: those of RunFederation, naming the arm.
absl::StatusOr<std::string> RunComparison(const Comparison& comparison, std::stop_token stop);

}  // namespace isoscan
