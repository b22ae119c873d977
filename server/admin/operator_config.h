#pragma once

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"

#include "common/tls/credentials.h"

namespace isoscan {

/// operator.toml, as `isoscan-server init` writes it, with the files that it names.
struct OperatorConfig {
  std::string server;  ///< HOST:PORT.
  TlsFiles files;
};

/// Errors: NOT_FOUND naming the missing file; INVALID_ARGUMENT with file and line;
///         PERMISSION_DENIED when others than the owner may read the key.
absl::StatusOr<OperatorConfig> LoadOperatorConfig(const std::filesystem::path& path);

/// Errors: NOT_FOUND naming the file.
absl::StatusOr<std::string> ReadTextFile(const std::filesystem::path& path);

}  // namespace isoscan
