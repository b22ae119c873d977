#pragma once

#include <nlohmann/json.hpp>

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "client/commands/commands.h"
#include "client/evaluation/surface_metrics.h"

namespace isoscan {

/// What `evaluate` found out about one case.
struct EvaluatedCase {
  std::string name;
  std::string cohort;
  std::string refusal;             ///< Why it was not scored; empty: it was.
  std::vector<LabelScore> scores;  ///< One per label of the report.

  /// Mean over the labels that either side has; NaN where none is.
  double dice() const;
};

struct EvaluationReport {
  std::vector<std::string> labels;
  SurfaceOptions options;
  std::vector<EvaluatedCase> cases;

  std::size_t refused() const;
};

/// Writes the files and prints. `head` comes first in the JSON: what was evaluated.
/// Errors: those of WriteFileAtomically.
absl::Status WriteEvaluation(const EvaluationReport& report, nlohmann::ordered_json head,
                             const EvaluationOutput& output);

}  // namespace isoscan
