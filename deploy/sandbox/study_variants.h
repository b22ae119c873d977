#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace isoscan {

/// A study that differs from another in what is compared.
struct StudyVariant {
  /// One option of each axis, such as "instance/batch"; empty for the study as it stands. Also a
  /// folder.
  std::string name;
  std::string toml;
};

/// Every combination of the options of an experiment's axes, the last axis changing fastest:
///
///   set.rounds.rounds = 6           # of every variant; may be left out
///   [[axis]]
///   name = "input"
///   [[axis.option]]
///   name = "raw"
///   set.harmonization.normalize = "none"
///   [[axis.option]]
///   name = "n4-instance"
///   set.harmonization = { normalize = "instance", n4 = {} }
///
/// `set` is laid over the study, table by table (WithOverlay). Names are lower-case letters, digits
/// and hyphens.
/// Errors: NOT_FOUND no such file; INVALID_ARGUMENT with the line for what is not of this form, a
/// name that comes twice on one level, no axis, or an axis without options; naming the variant, for
/// a study that is none.
absl::StatusOr<std::vector<StudyVariant>> StudyVariants(const std::string& study_toml,
                                                        const std::filesystem::path& axes);

/// The study with other numbers to draw: its own seed plus `repetition`.
/// Errors: those of ParseStudy.
absl::StatusOr<std::string> WithSeedMoved(const std::string& study_toml, std::int64_t repetition);

/// The study with `factor` times the steps per round: the pooled arm's share of work.
/// Errors: those of ParseStudy.
absl::StatusOr<std::string> WithStepsMultiplied(const std::string& study_toml, std::int64_t factor);

}  // namespace isoscan
