#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace isoscan {

/// What a program of ours tells its caller; the table of docs/operations.md.
enum class ExitCode {
  kSuccess = 0,
  kInternal = 1,      ///< A defect of ours: please report it.
  kUsage = 2,         ///< A wrong argument, configuration or study.
  kData = 3,          ///< A file that is missing, unreadable, corrupt or does not fit.
  kUnreachable = 4,   ///< The server cannot be reached, or answers too late.
  kRefused = 5,       ///< The certificate, the site or the operator is not allowed to.
  kWrongState = 6,    ///< Not possible now: a study that has ended, a name that is taken.
  kResources = 7,     ///< Not enough disk or memory.
  kVersion = 8,       ///< The other side speaks another version.
  kInterrupted = 130  ///< Ctrl-C.
};

/// kInvalidArgument, kOutOfRange -> kUsage; kNotFound, kDataLoss -> kData; kUnavailable,
/// kDeadlineExceeded -> kUnreachable; kUnauthenticated, kPermissionDenied -> kRefused;
/// kFailedPrecondition, kAlreadyExists, kAborted -> kWrongState; kResourceExhausted -> kResources;
/// kUnimplemented -> kVersion; kCancelled -> kInterrupted; the rest -> kInternal.
ExitCode ExitCodeOf(const absl::Status& status);

/// The other way, for a program of ours that another one started and waited for: a code that
/// ExitCodeOf() maps to `exit_code`. 127, by which it could not be started, is kNotFound; 137, by
/// which the kernel ends programs for want of memory, kResourceExhausted; unknown ones kInternal.
absl::StatusCode StatusCodeOf(int exit_code);

/// The line, with its end, that a program prints before it ends with kUsage: "error: PROBLEM; see
/// PROGRAM --help". `unknown` are the arguments that nothing was made of; the first is named, since
/// a mistyped command is what makes others look missing.
std::string UsageError(const std::string& program, const std::string& problem,
                       const std::vector<std::string>& unknown);

/// Prints "error: MESSAGE" to standard error when `status` is not OK, and answers with the number
/// for main() to return.
int Report(const absl::Status& status);

}  // namespace isoscan
