#pragma once

#include <chrono>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "common/clock/clock.h"

namespace isoscan {

/// A clock that ticks only when it is told to, so that deadlines are tested without sleeping.
///
/// Thread safety: all methods from any thread.
class SimulatedClock final : public Clock {
 public:
  /// Starts at 2026-01-01 00:00:00 UTC where nothing else is said.
  explicit SimulatedClock(Time start = std::chrono::sys_days(std::chrono::year(2026) / 1 / 1))
      : now_(start) {}

  Time Now() const override {
    const absl::MutexLock lock(&mutex_);
    return now_;
  }
  void Advance(std::chrono::milliseconds duration) {
    const absl::MutexLock lock(&mutex_);
    now_ += duration;
  }

 private:
  mutable absl::Mutex mutex_;
  Time now_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace isoscan
