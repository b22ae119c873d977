#pragma once

#include <optional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "common/clock/clock.h"
#include "server/rounds/coordinator.h"

namespace isoscan {

/// The one thread that calls Coordinator::Advance(): once at the start, after every change, and
/// when a deadline passes. An error, such as a full disk, is logged and tried again every five
/// seconds.
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

  /// Returns when the thread has ended: after the aggregation that it is at, if any.
  void Stop();

 private:
  void Drive();
  /// Blocks until there is something to do; false when it is to stop.
  bool WaitForWork(std::optional<Time> until);

  Coordinator& coordinator_;
  const Clock& clock_;
  absl::Mutex mutex_;
  bool changed_ ABSL_GUARDED_BY(mutex_) = true;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace isoscan
