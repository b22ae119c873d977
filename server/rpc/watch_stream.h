#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "server/rpc/executor.h"
#include "server/rpc/refusal.h"

namespace isoscan {

/// A long-lived server stream that shows a state: the state at once, and again whenever a Refresh
/// finds that it differs from what was written last. Level-triggered: states that come and go while
/// a message is on its way are skipped, the latest never is. A stream that waits costs no thread.
///
/// Thread safety: Refresh and End from any thread that may block; the reactions are gRPC's.
template <typename Message>
class WatchStream final : public grpc::ServerWriteReactor<Message> {
 public:
  struct View {
    Message message;
    bool last = false;  ///< The stream ends, OK, once this has been written.
  };
  /// Reads the state. Never called twice at once.
  using Look = std::function<absl::StatusOr<View>()>;
  /// What becomes of a stream, told on the executor. `opened` may refuse the call; `closed` comes
  /// once, whatever became of it.
  struct Course {
    std::function<absl::Status(const std::shared_ptr<WatchStream>&)> opened;
    std::function<void(const WatchStream*)> closed;
  };

  static grpc::ServerWriteReactor<Message>* Start(Executor& executor, const char* method,
                                                  grpc::CallbackServerContext& context,
                                                  Course course, Look look) {
    // Kept alive by itself until gRPC is done with it.
    const std::shared_ptr<WatchStream> stream(
        new WatchStream(executor, method, context, std::move(course), std::move(look)));
    stream->itself_ = stream;
    const bool taken = executor.TryRun([stream] {
      const absl::Status opened = stream->course_.opened(stream);
      if (!opened.ok()) return stream->End(opened);
      stream->Refresh();
    });
    if (!taken) stream->End(TooManyCalls());
    return stream.get();
  }

  void Refresh() {
    const absl::MutexLock lock(&mutex_);
    Write();
  }

  /// Ends the stream after what is being written. The first reason counts.
  void End(const absl::Status& reason) {
    const absl::MutexLock lock(&mutex_);
    if (!ending_.has_value()) ending_ = reason;
    if (!writing_) FinishOnce();
  }

  void OnWriteDone(bool written) override {
    executor_.Run([stream = itself_, written] {
      const absl::MutexLock lock(&stream->mutex_);
      stream->writing_ = false;
      if (!written) stream->ending_ = absl::CancelledError("the reader is gone");
      stream->Write();
    });
  }
  void OnCancel() override {
    executor_.Run([stream = itself_] { stream->End(absl::CancelledError("the reader is gone")); });
  }
  void OnDone() override {
    executor_.Run(
        [stream = std::exchange(itself_, nullptr)] { stream->course_.closed(stream.get()); });
  }

 private:
  WatchStream(Executor& executor, const char* method, grpc::CallbackServerContext& context,
              Course course, Look look)
      : executor_(executor),
        method_(method),
        context_(context),
        course_(std::move(course)),
        look_(std::move(look)) {}

  void Write() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || finished_) return;
    if (ending_.has_value()) return FinishOnce();
    absl::StatusOr<View> view = look_();
    if (!view.ok()) {
      ending_ = view.status();
      return FinishOnce();
    }
    std::string bytes = view->message.SerializeAsString();
    if (bytes == written_) return;
    written_ = std::move(bytes);
    message_ = std::move(view->message);
    if (view->last) ending_ = absl::OkStatus();
    writing_ = true;
    this->StartWrite(&message_);
  }

  void FinishOnce() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (std::exchange(finished_, true)) return;
    this->Finish(EndOfCall(method_, context_, *ending_));
  }

  Executor& executor_;
  const char* const method_;
  grpc::CallbackServerContext& context_;
  const Course course_;
  const Look look_;
  std::shared_ptr<WatchStream> itself_;

  absl::Mutex mutex_;
  Message message_ ABSL_GUARDED_BY(mutex_);
  std::optional<std::string> written_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> ending_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace isoscan
