#include "server/rpc/executor.h"

#include <utility>

namespace isoscan {

Executor::Executor(int threads, std::size_t waiting_limit) : waiting_limit_(waiting_limit) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
}

Executor::~Executor() { Stop(); }

bool Executor::TryRun(std::function<void()> task) {
  const absl::MutexLock lock(&mutex_);
  if (waiting_.size() >= waiting_limit_) return false;
  waiting_.push_back(std::move(task));
  return true;
}

void Executor::Run(std::function<void()> task) {
  const absl::MutexLock lock(&mutex_);
  waiting_.push_back(std::move(task));
}

void Executor::Stop() {
  {
    const absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Executor::Work() {
  const auto has_something_to_do = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !waiting_.empty();
  };
  while (true) {
    std::function<void()> task;
    {
      const absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&has_something_to_do));
      if (waiting_.empty()) return;
      task = std::move(waiting_.front());
      waiting_.pop_front();
    }
    task();
  }
}

}  // namespace isoscan
