#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <stop_token>

#include "absl/status/status.h"

#include "common/random/philox.h"

namespace isoscan {

/// How long a call that failed is tried again.
struct RetryPolicy {
  std::chrono::milliseconds first_delay{250};
  std::chrono::milliseconds longest_delay{30'000};
  double growth = 2;
  /// Tries in all; nullopt: until the call is cancelled.
  std::optional<int> tries = std::nullopt;

  /// For a command that a person waits for.
  static RetryPolicy Once() { return {.tries = 1}; }
  /// For a running client: an outage of any length ends with the work going on.
  static RetryPolicy Forever() { return {}; }
};

/// True for failures that time may mend: UNAVAILABLE, DEADLINE_EXCEEDED, ABORTED, and
/// RESOURCE_EXHAUSTED (a server whose disk is full, until somebody makes room).
bool IsWorthRetrying(absl::StatusCode code);

/// The pause before try `failures` + 1 (`failures` counts from 1): first_delay *
/// growth^(failures-1), at most longest_delay, of which a random part between a half and all is
/// taken, so that the sites of a study do not come back to a restarted server in step. Source:
/// docs/references.md#brooker2015 ("equal jitter").
std::chrono::milliseconds DelayAfter(const RetryPolicy& policy, int failures, RandomStream& random);

/// Waits; false when `stop` was requested meanwhile.
bool WaitFor(std::chrono::milliseconds delay, const std::stop_token& stop);

/// Told the outcome of each try.
using TryObserver = std::function<void(const absl::Status& outcome)>;

/// Waits between two tries, as WaitFor() does, or less when it knows that a try is worth it.
using Pause = std::function<bool(std::chrono::milliseconds delay, const std::stop_token& stop)>;

/// Runs `attempt` until it succeeds, fails in a way that IsWorthRetrying() denies, has had its
/// tries (the last error is the answer), or `stop` is requested (CANCELLED).
absl::Status Retry(const RetryPolicy& policy, const std::stop_token& stop,
                   const std::function<absl::Status()>& attempt, const TryObserver& observe,
                   const Pause& pause = WaitFor);

}  // namespace isoscan
