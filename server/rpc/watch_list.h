#pragma once

#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

#include "server/rpc/executor.h"
#include "server/rpc/watch_stream.h"

namespace isoscan {

/// The open streams of one kind, by key: at most one each.
///
/// Thread safety: all methods from any thread.
template <typename Message>
class WatchList {
 public:
  using Stream = WatchStream<Message>;

  /// `executor` outlives the list, and is stopped before it.
  explicit WatchList(Executor& executor) : executor_(executor) {}

  /// Answers with the stream that had this key before, if any. After EndAll: UNAVAILABLE.
  absl::StatusOr<std::shared_ptr<Stream>> Put(const std::string& key,
                                              const std::shared_ptr<Stream>& stream) {
    const absl::MutexLock lock(&mutex_);
    if (!end_.ok()) return end_;
    return std::exchange(streams_[key], stream);
  }

  /// The key of the stream when it still is in the list.
  std::string Remove(const Stream* stream) {
    const absl::MutexLock lock(&mutex_);
    for (auto entry = streams_.begin(); entry != streams_.end(); ++entry) {
      if (entry->second.get() != stream) continue;
      std::string key = entry->first;
      streams_.erase(entry);
      return key;
    }
    return "";
  }

  bool Has(const std::string& key) const {
    const absl::MutexLock lock(&mutex_);
    return streams_.contains(key);
  }

  /// Every stream looks again, soon, on the executor. Many calls in a row cost one look.
  void RefreshAll() {
    if (refresh_waits_.exchange(true)) return;
    executor_.Run([this] {
      refresh_waits_ = false;
      for (const std::shared_ptr<Stream>& stream : Streams()) stream->Refresh();
    });
  }

  /// Ends every stream, and from now on refuses new ones, with `reason`.
  void EndAll(const absl::Status& reason) {
    {
      const absl::MutexLock lock(&mutex_);
      end_ = reason;
    }
    for (const std::shared_ptr<Stream>& stream : Streams()) stream->End(reason);
  }

 private:
  std::vector<std::shared_ptr<Stream>> Streams() const {
    const absl::MutexLock lock(&mutex_);
    std::vector<std::shared_ptr<Stream>> streams;
    for (const auto& [key, stream] : streams_) streams.push_back(stream);
    return streams;
  }

  Executor& executor_;
  std::atomic<bool> refresh_waits_ = false;
  mutable absl::Mutex mutex_;
  std::map<std::string, std::shared_ptr<Stream>> streams_ ABSL_GUARDED_BY(mutex_);
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace isoscan
