#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>

#include "client/federation/federation_session.h"

namespace isoscan {

/// Tells the server how far the work is, from a thread of its own, so that neither a slow link nor
/// an outage holds the work up: a new activity at once, steps at most every second, and the same
/// thing again every ten seconds, for a server that was started anew meanwhile; only what differs
/// is a sign of life. What cannot be sent is dropped; a newer one follows.
///
/// Thread safety: all methods from any thread.
class ProgressReports {
 public:
  explicit ProgressReports(FederationSession& session);

  void Set(const WorkProgress& progress);
  /// Nothing more is sent until the next Set().
  void Clear();

 private:
  void Send(const std::stop_token& stop);

  FederationSession& session_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::optional<WorkProgress> latest_;  // Under mutex_.
  std::uint64_t version_ = 0;           // Under mutex_.
  std::uint64_t activities_ = 0;        // Under mutex_; counts changes of study, round or activity.
  std::jthread thread_;                 // Last: it uses all of the above.
};

}  // namespace isoscan
