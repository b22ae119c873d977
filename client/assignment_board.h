#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <stop_token>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/federation/federation_session.h"

namespace isoscan {

/// What is asked of the site now: the watching thread replaces it, the working thread reads it.
///
/// Thread safety: all methods from any thread; one thread works, that is, calls Next and MarkDone.
class AssignmentBoard {
 public:
  /// Ends the work under way when it is not asked for any more.
  void Replace(std::vector<SiteAssignment> assignments);

  /// Ends the work under way; Next() answers `status` from now on.
  void EndWatch(absl::Status status);

  struct Task {
    SiteAssignment assignment;
    std::stop_source stop;  ///< Requested when the work is not asked for any more.
  };

  /// Waits for something to do. Errors: CANCELLED when `stop` was requested; why watching ended.
  absl::StatusOr<Task> Next(const std::stop_token& stop);

  /// Why watching ended, if it has.
  absl::Status watch_status();

  /// Never to be answered by Next() again, as long as it is asked for.
  void MarkDone(const SiteAssignment& assignment);

 private:
  bool IsAsked(const SiteAssignment& assignment) const;
  const SiteAssignment* FirstNotDone() const;

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::vector<SiteAssignment> assignments_;  // All under mutex_.
  std::vector<SiteAssignment> done_;
  std::optional<SiteAssignment> current_;
  std::stop_source current_stop_;
  std::optional<absl::Status> watch_ended_;
};

}  // namespace isoscan
