#include "server/rpc/executor.h"

#include <utility>

namespace isoscan {

Executor::Executor(int threads, std::size_t waiting_limit) : waiting_limit_(waiting_limit) {
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this, lane] { Work(lane); });
  }
}

Executor::~Executor() { Stop(); }

bool Executor::TryRun(std::function<void()> task, Lane lane) {
  const absl::MutexLock lock(&mutex_);
  std::deque<std::function<void()>>& waiting = waiting_[static_cast<std::size_t>(lane)];
  if (waiting.size() >= waiting_limit_) return false;
  waiting.push_back(std::move(task));
  ++unfinished_;
  return true;
}

void Executor::Run(std::function<void()> task, Lane lane) {
  const absl::MutexLock lock(&mutex_);
  waiting_[static_cast<std::size_t>(lane)].push_back(std::move(task));
  ++unfinished_;
}

void Executor::Stop() {
  {
    const absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Executor::Work(std::size_t lane) {
  // A task of the other lane may still add one to this.
  const auto has_something_to_do = [this, lane]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !waiting_[lane].empty() || (stopping_ && unfinished_ == 0);
  };
  while (true) {
    std::function<void()> task;
    {
      const absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&has_something_to_do));
      if (waiting_[lane].empty()) return;
      task = std::move(waiting_[lane].front());
      waiting_[lane].pop_front();
    }
    task();
    task = nullptr;  // What it holds goes before it counts as finished.
    const absl::MutexLock lock(&mutex_);
    --unfinished_;
  }
}

}  // namespace isoscan
