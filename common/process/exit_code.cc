#include "common/process/exit_code.h"

#include <fmt/format.h>

#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>

#include "common/status/printable.h"

namespace isoscan {
namespace {

/// A message may quote what came from elsewhere, such as a study's text.
std::string PrintableLines(std::string_view text) {
  std::string lines;
  while (true) {
    const std::size_t end = text.find('\n');
    lines += Printable(text.substr(0, end));
    if (end == std::string_view::npos) return lines;
    lines += '\n';
    text.remove_prefix(end + 1);
  }
}

}  // namespace

ExitCode ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return ExitCode::kSuccess;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return ExitCode::kUsage;
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kDataLoss:
      return ExitCode::kData;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return ExitCode::kUnreachable;
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return ExitCode::kRefused;
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
      return ExitCode::kWrongState;
    case absl::StatusCode::kResourceExhausted:
      return ExitCode::kResources;
    case absl::StatusCode::kUnimplemented:
      return ExitCode::kVersion;
    case absl::StatusCode::kCancelled:
      return ExitCode::kInterrupted;
    default:
      return ExitCode::kInternal;
  }
}

absl::StatusCode StatusCodeOf(int exit_code) {
  constexpr int kCannotStart = 127;
  constexpr int kKilled = 137;
  switch (exit_code) {
    case static_cast<int>(ExitCode::kSuccess):
      return absl::StatusCode::kOk;
    case static_cast<int>(ExitCode::kUsage):
      return absl::StatusCode::kInvalidArgument;
    case static_cast<int>(ExitCode::kData):
    case kCannotStart:
      return absl::StatusCode::kNotFound;
    case static_cast<int>(ExitCode::kUnreachable):
      return absl::StatusCode::kUnavailable;
    case static_cast<int>(ExitCode::kRefused):
      return absl::StatusCode::kPermissionDenied;
    case static_cast<int>(ExitCode::kWrongState):
      return absl::StatusCode::kFailedPrecondition;
    case static_cast<int>(ExitCode::kResources):
    case kKilled:
      return absl::StatusCode::kResourceExhausted;
    case static_cast<int>(ExitCode::kVersion):
      return absl::StatusCode::kUnimplemented;
    case static_cast<int>(ExitCode::kInterrupted):
      return absl::StatusCode::kCancelled;
    default:
      return absl::StatusCode::kInternal;
  }
}

std::string UsageError(const std::string& program, const std::string& problem,
                       const std::vector<std::string>& unknown) {
  return fmt::format("error: {}; see {} --help\n",
                     unknown.empty()
                         ? Printable(problem)
                         : fmt::format("{} is no command or option", Printable(unknown.front())),
                     program);
}

int Report(const absl::Status& status) {
  const ExitCode code = ExitCodeOf(status);
  if (code != ExitCode::kSuccess) {
    // Behind what was printed before, also where both go into one file.
    std::fflush(stdout);
    const absl::string_view message = status.message();
    fmt::print(stderr, "error: {}\n", PrintableLines({message.data(), message.size()}));
  }
  if (code == ExitCode::kInternal) {
    fmt::print(stderr, "This is a defect of Isoscan: please report it with the line above.\n");
  }
  return static_cast<int>(code);
}

}  // namespace isoscan
