#pragma once

#include <cstdint>
#include <optional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "common/clock/clock.h"
#include "server/rounds/coordinator.h"

namespace isoscan {

/// The threads that call Coordinator::Advance(): once at the start, after every change, and when a
/// deadline passes. Two, so that a small study's rounds need not wait for a large one's mean.
class RoundDriver {
 public:
  /// Both outlive it.
  RoundDriver(Coordinator& coordinator, const Clock& clock)
      : coordinator_(coordinator), clock_(clock) {}
  /// Stops.
  ~RoundDriver();
  RoundDriver(const RoundDriver&) = delete;
  RoundDriver& operator=(const RoundDriver&) = delete;

  /// Call once.
  void Start();

  /// Something has changed. Quick; any thread, also before Start.
  void CoordinatorChanged();

  /// Returns when the threads have ended: after the aggregations that they are at, if any.
  void Stop();

 private:
  void Drive();
  /// Blocks until there is something to do; false when it is to stop. `seen`: the changes that the
  /// thread knows of.
  bool WaitForWork(std::optional<Time> until, std::int64_t& seen);

  Coordinator& coordinator_;
  const Clock& clock_;
  absl::Mutex mutex_;
  std::int64_t changes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace isoscan
