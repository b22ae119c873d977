#include "server/round_driver.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <string>

#include "absl/time/time.h"

namespace isoscan {
namespace {

constexpr auto kPauseAfterError = std::chrono::seconds(5);

}  // namespace

RoundDriver::~RoundDriver() { Stop(); }

void RoundDriver::Start() {
  thread_ = std::thread([this] { Drive(); });
}

void RoundDriver::CoordinatorChanged() {
  const absl::MutexLock lock(&mutex_);
  changed_ = true;
}

void RoundDriver::Stop() {
  {
    const absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

bool RoundDriver::WaitForWork(std::optional<Time> until) {
  const auto has_work = [this]()
                            ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return changed_ || stopping_; };
  const absl::MutexLock lock(&mutex_);
  if (until.has_value()) {
    const auto wait = std::max<Time::duration>(*until - clock_.Now(), std::chrono::milliseconds(1));
    mutex_.AwaitWithTimeout(absl::Condition(&has_work), absl::FromChrono(wait));
  } else {
    mutex_.Await(absl::Condition(&has_work));
  }
  changed_ = false;
  return !stopping_;
}

void RoundDriver::Drive() {
  std::optional<Time> until;
  while (WaitForWork(until)) {
    const absl::Status status = coordinator_.Advance();
    until = coordinator_.NextDeadline();
    if (status.ok()) continue;
    spdlog::error("round cannot go on code={} reason=\"{}\" next_try_seconds={}",
                  absl::StatusCodeToString(status.code()), std::string(status.message()),
                  kPauseAfterError.count());
    until = clock_.Now() + kPauseAfterError;
  }
}

}  // namespace isoscan
