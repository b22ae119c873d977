#pragma once

#include <string>

#include "common/planning/network_planner.h"

namespace isoscan {

/// The full-resolution plan as tables of a study.toml (docs/study.md): spacing_mm of
/// [harmonization], [network], patch_size and batch_size of [training]. It completes a study that
/// lacks these tables, or is laid over one (WithOverlay); what a study allows is ParseStudy's to
/// say.
std::string PlanToml(const CohortPlan& plan);

}  // namespace isoscan
