#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "client/cohort/cohort.h"
#include "common/tls/credentials.h"

namespace isoscan {

/// client.toml: what one site says about itself. deploy/config/client.toml has every key.
struct ClientConfig {
  std::string server;  ///< HOST:PORT.
  std::string site;
  std::filesystem::path state;  ///< Folder of this client's own; a running client locks it.
  struct Certificate {
    std::filesystem::path authority;
    std::filesystem::path certificate;
    std::filesystem::path key;
  } certificate;
  struct Device {
    std::string name = "auto";         ///< auto, cpu, cuda or cuda:N.
    int threads = 0;                   ///< 0: every available core.
    std::int64_t patches_at_once = 0;  ///< Of a batch that is trained on; 0: all.
  } device;
  bool cache_cases = true;  ///< Keep prepared cases in `state`.
  struct Checkpoint {
    std::int64_t every_steps = 0;  ///< 0: as often as takes less than 2 % of the time.
  } checkpoint;
  struct Log {
    std::string level = "info";
    std::filesystem::path file;  ///< Empty: standard error alone.
  } log;
  std::vector<CohortFolder> cohorts;
  std::vector<std::string> held_out_cases;  ///< For studies whose rule is `list`.
};

/// Relative paths are taken from the folder of `path`.
/// Errors: NOT_FOUND; INVALID_ARGUMENT with file and line.
absl::StatusOr<ClientConfig> LoadClientConfig(const std::filesystem::path& path);

/// Reads the three PEM files.
/// Errors: NOT_FOUND naming the file and the key of client.toml; PERMISSION_DENIED a private key
/// that
///         others may read.
absl::StatusOr<TlsFiles> LoadTlsFiles(const ClientConfig::Certificate& certificate);

/// client.toml of a site that has just enrolled: its own values, and commented examples.
std::string NewClientConfig(const std::string& server, const std::string& site);

}  // namespace isoscan
