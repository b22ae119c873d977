#pragma once

#include <filesystem>
#include <string>

#include "absl/status/status.h"

namespace isoscan {

/// Sets up spdlog's default logger: one line per event on standard error, "time level event
/// key=value". `file`, where not empty, gets the same lines and rotates at 10 MB, five files.
/// `level` is debug, info, warn or error.
///
/// Privacy: a log line never holds a case's name or path, a voxel, a date from an image, a weight
/// or a key. A case is its index. Tests search the logs for planted markers
/// (tests/end_to_end/nothing_private_leaves_test).
/// Errors: INVALID_ARGUMENT for an unknown level; NOT_FOUND when the file cannot be opened.
absl::Status StartLog(const std::string& level, const std::filesystem::path& file);

}  // namespace isoscan
