#include "deploy/sandbox/child_process.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <sstream>
#include <string_view>
#include <utility>

#include "common/process/exit_code.h"
#include "common/status/file_error.h"
#include "common/status/status_macros.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace isoscan {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kStopPatience{10'000};

/// What a program that failed said last: its error, as programs of ours end with one, otherwise
/// the end of its log.
std::string LastWords(const std::filesystem::path& log) {
  constexpr std::size_t kShown = 8;
  constexpr std::string_view kError = "error: ";
  std::ifstream file(log);
  std::deque<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    lines.push_back(std::move(line));
    if (lines.size() > kShown) lines.pop_front();
  }
  if (!lines.empty() && lines.back().starts_with(kError)) {
    return fmt::format(": {} (its log: {})", lines.back().substr(kError.size()), log.string());
  }
  std::string text = fmt::format("; the end of {}:", log.string());
  for (const std::string& line : lines) text += "\n  " + line;
  return text;
}

/// Runs in the child between fork and exec: only calls that are safe there.
[[noreturn]] void Become(char* const* arguments, char* const* environment, int output,
                         pid_t parent) {
  // A group of its own: Ctrl-C on the terminal reaches us, and we stop the others in order.
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(127);
  if (output >= 0) {
    ::dup2(output, STDOUT_FILENO);
    ::dup2(output, STDERR_FILENO);
  }
  ::execve(arguments[0], arguments, environment);
  ::_exit(127);
}

std::vector<std::string> Environment(const std::map<std::string, std::string>& changes) {
  std::vector<std::string> lines;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string line = *entry;
    if (!changes.contains(line.substr(0, line.find('=')))) lines.push_back(line);
  }
  for (const auto& [name, value] : changes) {
    if (!value.empty()) lines.push_back(name + "=" + value);
  }
  return lines;
}

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

absl::StatusOr<ChildProcess> ChildProcess::Start(const Command& command) {
  int output = -1;
  if (!command.log.empty()) {
    output = ::open(command.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (output < 0) {
      return FileError("cannot write the log", command.log.string(), errno);
    }
  }
  std::vector<std::string> arguments = command.arguments;
  std::vector<std::string> environment = Environment(command.environment);
  const std::vector<char*> argument_pointers = Pointers(arguments);
  const std::vector<char*> environment_pointers = Pointers(environment);

  const pid_t parent = ::getpid();
  const pid_t id = ::fork();
  if (id == 0) {
    Become(argument_pointers.data(), environment_pointers.data(), output, parent);
  }
  if (output >= 0) ::close(output);
  if (id < 0) {
    return absl::ResourceExhaustedError(
        fmt::format("cannot start {}: {}", command.title, std::strerror(errno)));
  }
  ChildProcess child;
  child.title_ = command.title;
  child.log_ = command.log;
  child.id_ = id;
  // By number: the header of glibc 2.36 declares pidfd_open() with C++ linkage.
  child.handle_ = static_cast<int>(::syscall(SYS_pidfd_open, id, 0));
  return child;
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : title_(std::move(other.title_)),
      log_(std::move(other.log_)),
      id_(std::exchange(other.id_, -1)),
      handle_(std::exchange(other.handle_, -1)),
      exit_code_(other.exit_code_) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  if (this == &other) return *this;
  End();
  title_ = std::move(other.title_);
  log_ = std::move(other.log_);
  id_ = std::exchange(other.id_, -1);
  handle_ = std::exchange(other.handle_, -1);
  exit_code_ = other.exit_code_;
  return *this;
}

ChildProcess::~ChildProcess() { End(); }

void ChildProcess::End() {
  if (id_ > 0 && !exit_code_.has_value()) {
    Interrupt();
    if (!WaitFor(kStopPatience, {})) {
      ::kill(id_, SIGKILL);
      WaitFor(kStopPatience, {});
    }
  }
  if (handle_ >= 0) ::close(handle_);
  handle_ = -1;
}

bool ChildProcess::WaitFor(milliseconds limit, std::stop_token stop) {
  constexpr milliseconds kStopCheck{100};
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!exit_code_.has_value()) {
    int status = 0;
    if (::waitpid(id_, &status, WNOHANG) == id_) {
      exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      break;
    }
    const auto left =
        std::chrono::duration_cast<milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left <= milliseconds::zero() || stop.stop_requested()) return false;
    pollfd end{.fd = handle_, .events = POLLIN, .revents = 0};
    ::poll(&end, 1, static_cast<int>(std::min(left, kStopCheck).count()));
  }
  return true;
}

void ChildProcess::Interrupt() const {
  if (id_ > 0 && !exit_code_.has_value()) ::kill(id_, SIGTERM);
}

std::int64_t ChildProcess::PeakMemoryBytes() const {
  std::ifstream status(fmt::format("/proc/{}/status", id_));
  for (std::string line; std::getline(status, line);) {
    std::istringstream words(line);
    std::string key;
    std::int64_t kibibytes = 0;
    if (words >> key >> kibibytes && key == "VmHWM:") return kibibytes * 1024;
  }
  return 0;
}

absl::Status ChildProcess::Outcome() const {
  if (!exit_code_.has_value()) {
    return absl::FailedPreconditionError(title_ + " is still running");
  }
  if (*exit_code_ == 0) return absl::OkStatus();
  std::string message = fmt::format("{} ended with exit code {}", title_, *exit_code_);
  if (!log_.empty()) message += LastWords(log_);
  return {StatusCodeOf(*exit_code_), message};
}

absl::Status RunToEnd(const Command& command, std::stop_token stop) {
  ASSIGN_OR_RETURN(ChildProcess child, ChildProcess::Start(command));
  while (!child.WaitFor(milliseconds(1000), stop)) {
    if (stop.stop_requested()) return absl::CancelledError("interrupted");
  }
  return child.Outcome();
}

}  // namespace isoscan
