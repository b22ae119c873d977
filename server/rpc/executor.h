#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace isoscan {

/// A few threads for whatever blocks: the journal, files, hashes, screening, rendering. gRPC's own
/// threads only hand work over, so that a slow disk never stops the reading of connections.
///
/// The queue is bounded where calls enter. The later steps of a call that was let in are always
/// taken: a call never has more than one step waiting.
///
/// Thread safety: all methods from any thread; Stop from none of its own.
class Executor {
 public:
  Executor(int threads, std::size_t waiting_limit);
  /// Stops.
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  /// The first step of a call. False, and `task` is forgotten, when waiting_limit tasks wait.
  [[nodiscard]] bool TryRun(std::function<void()> task);

  /// Any later step.
  void Run(std::function<void()> task);

  /// Runs what waits, also what that adds, and ends the threads. Nothing may be added from outside
  /// any more.
  void Stop();

 private:
  void Work();

  const std::size_t waiting_limit_;
  absl::Mutex mutex_;
  std::deque<std::function<void()>> waiting_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace isoscan
