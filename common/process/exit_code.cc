#include "common/process/exit_code.h"

#include <fmt/format.h>

#include <cstdio>
#include <string_view>

namespace isoscan {

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

int Report(const absl::Status& status) {
  const ExitCode code = ExitCodeOf(status);
  if (code != ExitCode::kSuccess) {
    const absl::string_view message = status.message();
    fmt::print(stderr, "error: {}\n", std::string_view(message.data(), message.size()));
  }
  if (code == ExitCode::kInternal) {
    fmt::print(stderr, "This is a defect of Isoscan: please report it with the line above.\n");
  }
  return static_cast<int>(code);
}

}  // namespace isoscan
