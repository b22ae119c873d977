#include "server/round_driver.h"

#include <algorithm>
#include <chrono>

#include "absl/time/time.h"

namespace isoscan {
namespace {

constexpr int kThreads = 2;

}  // namespace

RoundDriver::~RoundDriver() { Stop(); }

void RoundDriver::Start() {
  for (int i = 0; i < kThreads; ++i) threads_.emplace_back([this] { Drive(); });
}

void RoundDriver::CoordinatorChanged() {
  const absl::MutexLock lock(&mutex_);
  ++changes_;
}

void RoundDriver::Stop() {
  {
    const absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

bool RoundDriver::WaitForWork(std::optional<Time> until, std::int64_t& seen) {
  const auto has_work = [this, &seen]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return changes_ != seen || stopping_;
  };
  const absl::MutexLock lock(&mutex_);
  if (until.has_value()) {
    const auto wait = std::max<Time::duration>(*until - clock_.Now(), std::chrono::milliseconds(1));
    mutex_.AwaitWithTimeout(absl::Condition(&has_work), absl::FromChrono(wait));
  } else {
    mutex_.Await(absl::Condition(&has_work));
  }
  seen = changes_;
  return !stopping_;
}

void RoundDriver::Drive() {
  std::optional<Time> until;
  std::int64_t seen = -1;  // The start is a change.
  while (WaitForWork(until, seen)) {
    // What fails is logged there, and is among the deadlines then.
    coordinator_.Advance().IgnoreError();
    until = coordinator_.NextDeadline();
  }
}

}  // namespace isoscan
