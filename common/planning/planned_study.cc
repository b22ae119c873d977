#include "common/planning/planned_study.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "common/config/toml_overlay.h"
#include "common/planning/network_planner.h"
#include "common/planning/plan_toml.h"
#include "common/status/status_macros.h"

namespace isoscan {

absl::StatusOr<Study> PlannedStudy(const Study& draft,
                                   const std::map<std::string, Fingerprint>& sites) {
  const PlanningRule& rule = draft.planning.value();
  ASSIGN_OR_RETURN(
      const Fingerprint pooled,
      PooledFingerprint(sites, static_cast<std::int64_t>(draft.channels.size()), draft.classes()));
  ASSIGN_OR_RETURN(const CohortPlan plan, PlanNetwork(pooled, rule.preset, rule.memory_gb));
  ASSIGN_OR_RETURN(const std::string own, WithoutKey(draft.toml, "planning"));
  // What the draft gives by hand wins.
  ASSIGN_OR_RETURN(const std::string merged, WithOverlay(PlanToml(plan), own));
  // A merged text has lost the comments of both.
  const std::string origin = fmt::format(
      "# Planned by nnU-Net's rules (preset {}, {} GB) for the draft of SHA-256\n"
      "# {}\n"
      "# from {} training cases, {} of them described by fingerprints. The median case has\n"
      "# {} voxels on this grid.\n\n",
      ToString(rule.preset), rule.memory_gb, draft.digest, pooled.cases, pooled.described_cases(),
      fmt::join(plan.full_resolution.median_size, " x "));
  absl::StatusOr<Study> planned = ParseStudy(origin + merged, "the plan");
  if (absl::IsInvalidArgument(planned.status())) {
    return absl::FailedPreconditionError(fmt::format("no study may have the plan for {}: {}",
                                                     draft.name,
                                                     std::string(planned.status().message())));
  }
  return planned;
}

}  // namespace isoscan
