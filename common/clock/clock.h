#pragma once

#include <chrono>

namespace isoscan {

/// Wall-clock time, as stored and shown: milliseconds since the Unix epoch.
using Time = std::chrono::sys_time<std::chrono::milliseconds>;

/// What time it is, as a parameter, so that deadlines are tested without sleeping (its simulated
/// twin lives in tests/support).
///
/// Thread safety: all methods from any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual Time Now() const = 0;
};

/// The machine's clock.
class SystemClock final : public Clock {
 public:
  Time Now() const override {
    return std::chrono::floor<std::chrono::milliseconds>(std::chrono::system_clock::now());
  }
};

}  // namespace isoscan
