#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/cohort/scans.h"
#include "client/intake/case_sight.h"

namespace isoscan {

/// Called after each case, one call at a time.
using IntakeObserver = std::function<void(std::int64_t done, std::int64_t total)>;

/// LookAtHeaders for every scan, `threads` at once. A few kilobytes of memory per case.
/// Errors: CANCELLED.
absl::StatusOr<std::vector<CaseSight>> InspectHeaders(std::vector<ScanFiles> scans, int threads,
                                                      const std::stop_token& stop,
                                                      const IntakeObserver& observe);

/// How the voxels are read: so many cases at once that they fit into `bytes`.
struct ReadingPlan {
  int threads = 1;
  std::int64_t largest_bytes = 0;  ///< Of one case.
  std::int64_t bytes = 0;          ///< threads x largest, or what the machine has.
  std::int64_t available_bytes = 0;
};
ReadingPlan PlanReading(const std::vector<CaseSight>& sights, int threads,
                        std::int64_t available_bytes);

/// LookAtVoxels for every case that is not quarantined. A case starts when its `bytes` fit beside
/// those that are being read; one that takes more than is available is quarantined.
/// Errors: CANCELLED.
absl::Status InspectVoxels(std::vector<CaseSight>& sights, const ReadingPlan& plan,
                           const std::stop_token& stop, const IntakeObserver& observe);

}  // namespace isoscan
