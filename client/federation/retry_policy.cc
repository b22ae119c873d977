#include "client/federation/retry_policy.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <random>

namespace isoscan {

bool IsWorthRetrying(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kResourceExhausted:
      return true;
    default:
      return false;
  }
}

std::chrono::milliseconds DelayAfter(const RetryPolicy& policy, int failures,
                                     RandomStream& random) {
  const double longest = static_cast<double>(policy.longest_delay.count());
  const double grown =
      static_cast<double>(policy.first_delay.count()) * std::pow(policy.growth, failures - 1);
  const double delay = std::min(grown, longest) * random.Uniform(0.5, 1.0);
  return std::chrono::milliseconds(std::llround(delay));
}

bool WaitFor(std::chrono::milliseconds delay, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any stopped;
  std::unique_lock lock(mutex);
  return !stopped.wait_for(lock, stop, delay, [&stop] { return stop.stop_requested(); });
}

absl::Status Retry(const RetryPolicy& policy, const std::stop_token& stop,
                   const std::function<absl::Status()>& attempt, const TryObserver& observe,
                   const Pause& pause) {
  RandomStream random(std::random_device{}(), "retry");
  for (int failures = 0;;) {
    if (stop.stop_requested()) return absl::CancelledError("interrupted");
    const absl::Status outcome = attempt();
    if (stop.stop_requested() && !outcome.ok()) return absl::CancelledError("interrupted");
    observe(outcome);
    if (outcome.ok() || !IsWorthRetrying(outcome.code())) return outcome;
    ++failures;
    if (policy.tries.has_value() && failures >= *policy.tries) return outcome;
    if (!pause(DelayAfter(policy, failures, random), stop)) {
      return absl::CancelledError("interrupted");
    }
  }
}

}  // namespace isoscan
