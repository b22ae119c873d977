#pragma once

#include <cerrno>
#include <string>
#include <string_view>
#include <system_error>

#include "absl/status/status.h"

namespace isoscan {

/// The status of a failed call of the operating system on a file or folder; `error` is an errno.
/// Reads "ACTION NAME: what went wrong", such as "cannot write model: No space left on device; free
/// some space and try again". Where the message may reach a log, `name` is without its folder.
///
/// RESOURCE_EXHAUSTED: the disk or quota is full, a file may not grow, or too many files are open;
/// DATA_LOSS: the disk failed; NOT_FOUND: everything else (missing, a folder, not permitted). Never
/// UNAVAILABLE, which says that the server cannot be reached.
inline absl::Status FileError(std::string_view action, std::string_view name, int error) {
  std::string message(action);
  message.append(" ").append(name).append(": ").append(std::generic_category().message(error));
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(message + "; free some space and try again");
    case EFBIG:
      return absl::ResourceExhaustedError(
          message + "; the disk, or this process's limit (ulimit -f), allows no larger file");
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return absl::ResourceExhaustedError(message);
    case EIO:
      return absl::DataLossError(message + "; check the disk");
    default:
      return absl::NotFoundError(message);
  }
}

/// The same for a failure of std::filesystem, whose codes are errnos.
inline absl::Status FileError(std::string_view action, std::string_view name,
                              const std::error_code& error) {
  return FileError(action, name, error.value());
}

}  // namespace isoscan
