#pragma once

#include <grpcpp/alarm.h>

#include <chrono>
#include <deque>
#include <functional>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "server/rpc/executor.h"

namespace isoscan {

/// Lets a few large downloads begin at a time. When a round opens, all sites want the new model at
/// once: one after the other at full speed, the last has it no later than if all had shared the
/// line, and the first is at work, or has sent its update, meanwhile.
///
/// Nobody waits long: what has waited for `patience` begins, whatever the others do, so that slow
/// or dead readers hold up nothing.
///
/// Thread safety: all methods from any thread. It outlives every pass, and every Enter() whose `go`
/// has not run.
class TransferGate {
 public:
  /// Whoever holds it is under way.
  using Pass = std::shared_ptr<void>;
  using Go = std::function<void(Pass)>;

  TransferGate(Executor& executor, int at_once, std::chrono::milliseconds patience)
      : executor_(executor), at_once_(at_once), patience_(patience) {}

  /// Calls `go`, on this thread where there is room; otherwise later on the executor, in the order
  /// of the calls.
  void Enter(Go go);

 private:
  struct Waiter {
    Go go;
    grpc::Alarm alarm;
  };

  Pass MakePass() {
    return Pass(this, [](void* gate) { static_cast<TransferGate*>(gate)->Leave(); });
  }
  void Leave();
  void LosePatience(const std::shared_ptr<Waiter>& waiter);
  void Admit(const std::shared_ptr<Waiter>& waiter);

  Executor& executor_;
  const int at_once_;
  const std::chrono::milliseconds patience_;
  absl::Mutex mutex_;
  int under_way_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<std::shared_ptr<Waiter>> waiting_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace isoscan
