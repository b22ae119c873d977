#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "server/rpc/executor.h"
#include "server/rpc/refusal.h"

namespace isoscan {

/// A server stream whose next message is made only when the one before has been written: a slow
/// reader costs one message of memory, whatever the size of the whole.
template <typename Message>
class PulledStream final : public grpc::ServerWriteReactor<Message> {
 public:
  /// Makes the next message of the one before, whose memory is used again; false at the end. Runs
  /// on the executor, never twice at once.
  using Source = std::function<absl::StatusOr<bool>(Message& next)>;
  struct Options {
    Executor::Lane lane = Executor::Lane::kQuick;
    /// Asked when the first message has been made: it is written once `go` is called.
    std::function<void(std::function<void()> go)> admit = {};
  };

  /// The stream ends itself.
  static grpc::ServerWriteReactor<Message>* Start(Executor& executor, const char* method,
                                                  grpc::CallbackServerContext& context,
                                                  Source source, Options options) {
    auto* const stream =
        new PulledStream(executor, method, context, std::move(source), std::move(options));
    if (!executor.TryRun([stream] { stream->Step(); }, stream->options_.lane)) {
      stream->End(TooManyCalls());
    }
    return stream;
  }

  void OnWriteDone(bool written) override {
    executor_.Run(
        [this, written] {
          if (written) return Step();
          End(absl::CancelledError("the reader is gone"));
        },
        options_.lane);
  }
  void OnDone() override { delete this; }

 private:
  PulledStream(Executor& executor, const char* method, grpc::CallbackServerContext& context,
               Source source, Options options)
      : executor_(executor),
        method_(method),
        context_(context),
        source_(std::move(source)),
        options_(std::move(options)) {}

  void Step() {
    const absl::StatusOr<bool> more = source_(message_);
    if (!more.ok()) return End(more.status());
    if (!*more) return End(absl::OkStatus());
    if (const auto admit = std::exchange(options_.admit, nullptr)) {
      return admit([this] { this->StartWrite(&message_); });
    }
    this->StartWrite(&message_);
  }

  void End(const absl::Status& status) { this->Finish(EndOfCall(method_, context_, status)); }

  Executor& executor_;
  const char* const method_;
  grpc::CallbackServerContext& context_;
  const Source source_;
  Options options_;
  Message message_;
};

}  // namespace isoscan
