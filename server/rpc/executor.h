#pragma once

#include <array>
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
/// There are two lanes, each with threads of its own: however many large files are on their way to
/// the disk, screened or rendered, chunks, assignments and the journal are served meanwhile.
///
/// The queue is bounded where calls enter. The later steps of a call that was let in are always
/// taken: a call never has more than one step waiting.
///
/// Thread safety: all methods from any thread; Stop from none of its own.
class Executor {
 public:
  enum class Lane {
    kQuick,
    kSlow,  ///< Waits until a whole file is on the disk, or goes through one, or through a study.
  };

  /// `threads` for each lane.
  Executor(int threads, std::size_t waiting_limit);
  /// Stops.
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  /// The first step of a call. False, and `task` is forgotten, when waiting_limit tasks wait.
  [[nodiscard]] bool TryRun(std::function<void()> task, Lane lane = Lane::kQuick);

  /// Any later step.
  void Run(std::function<void()> task, Lane lane = Lane::kQuick);

  /// Runs what waits, also what that adds, and ends the threads. Nothing may be added from outside
  /// any more.
  void Stop();

 private:
  static constexpr std::size_t kLanes = 2;

  void Work(std::size_t lane);

  const std::size_t waiting_limit_;
  absl::Mutex mutex_;
  std::array<std::deque<std::function<void()>>, kLanes> waiting_ ABSL_GUARDED_BY(mutex_);
  std::size_t unfinished_ ABSL_GUARDED_BY(mutex_) = 0;  ///< Tasks that wait or run.
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace isoscan
