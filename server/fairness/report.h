#pragma once

#include <string>

#include "absl/status/statusor.h"

#include "server/fairness/study_record.h"

namespace isoscan {

/// The fairness report of one study, twice: as a page for people and as data for programs.
struct RenderedReport {
  std::string html;  ///< One self-contained page: no script, no network, no external font.
  std::string json;  ///< Its twin: every number of the page, at full precision (docs/fairness.md).
};

/// Renders the report of a study in any state: before the first round, running, stopped, finished.
/// A pure function: the same record gives the same bytes.
///
/// Errors: INVALID_ARGUMENT when a case has not as many label scores as the study has labels.
absl::StatusOr<RenderedReport> RenderReport(const StudyRecord& record);

}  // namespace isoscan
