#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include <sys/types.h>

namespace isoscan {

/// A program to start.
struct Command {
  std::string title;                   ///< What messages call it, such as "client of north".
  std::vector<std::string> arguments;  ///< The first is the program's path.
  std::filesystem::path log;           ///< Gets its output and errors; empty: this terminal.
  std::map<std::string, std::string> environment;  ///< Set besides ours; "" unsets.
};

/// A program that runs beside us and never longer than we do: it is told to stop when this object
/// goes, and killed by the kernel when we die without telling.
///
/// Thread safety: none; start children from the main thread only, which the kernel watches.
class ChildProcess {
 public:
  /// Errors: RESOURCE_EXHAUSTED when the system has no room for another process; those of
  /// FileError() when its log cannot be written.
  static absl::StatusOr<ChildProcess> Start(const Command& command);
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  /// Interrupts, waits up to ten seconds, then kills.
  ~ChildProcess();

  const std::string& title() const { return title_; }
  const std::filesystem::path& log() const { return log_; }
  pid_t id() const { return id_; }

  /// Its exit code once it has ended (128 + signal when a signal ended it).
  std::optional<int> exit_code() const { return exit_code_; }

  /// Waits until it ends, `limit` passes or `stop` is requested; true when it has ended.
  bool WaitFor(std::chrono::milliseconds limit, std::stop_token stop);

  void Interrupt() const;

  /// Greatest resident memory so far (VmHWM), 0 when it has ended.
  std::int64_t PeakMemoryBytes() const;

  /// Its title, exit code and its error, or the last lines of its log, under the code that gives
  /// this program the same exit code (StatusCodeOf); OK when it ended with 0.
  absl::Status Outcome() const;

 private:
  ChildProcess() = default;
  void End();

  std::string title_;
  std::filesystem::path log_;
  pid_t id_ = -1;
  int handle_ = -1;  // pidfd: becomes readable when the process ends.
  std::optional<int> exit_code_;
};

/// Starts a program and waits for its end.
/// Errors: CANCELLED when `stop` was requested; and those of Outcome().
absl::Status RunToEnd(const Command& command, std::stop_token stop);

}  // namespace isoscan
