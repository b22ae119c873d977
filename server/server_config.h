#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace isoscan {

/// "HOST:PORT", where an IPv6 address stands in brackets: "[::1]:8443".
struct Endpoint {
  std::string host;  ///< Without brackets.
  int port = 0;      ///< 0: any free one.
};

std::string ToString(const Endpoint& endpoint);

/// Errors: INVALID_ARGUMENT naming `text`.
absl::StatusOr<Endpoint> ParseEndpoint(std::string_view text);

/// server.toml; deploy/config/server.toml explains every key.
struct ServerConfig {
  struct Limits {
    int worker_threads = 4;
    std::size_t waiting_calls = 1024;
    std::int64_t transfer_memory_mib = 192;
  };

  Endpoint address;  ///< What sites dial.
  Endpoint listen;
  std::string log_level = "info";
  std::filesystem::path log_file;  ///< As written; empty: none.
  Limits limits;
};

/// Errors: NOT_FOUND; INVALID_ARGUMENT with file and line.
absl::StatusOr<ServerConfig> LoadServerConfig(const std::filesystem::path& path);

/// A server.toml with every key, its comment and its default.
std::string ServerToml(const Endpoint& address, const Endpoint& listen);

}  // namespace isoscan
