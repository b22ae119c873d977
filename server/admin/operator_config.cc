#include "server/admin/operator_config.h"

#include <fmt/format.h>

#include <fstream>
#include <iterator>
#include <system_error>

#include "common/config/config_reader.h"
#include "common/status/status_macros.h"
#include "common/tls/keys.h"

namespace isoscan {

absl::StatusOr<OperatorConfig> LoadOperatorConfig(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(ConfigReader reader, ConfigReader::Load(path));
  const std::filesystem::path folder = path.parent_path();
  OperatorConfig config;
  config.server = reader.Text("server");
  ConfigReader certificate = reader.Table("certificate");
  const std::filesystem::path authority_file = folder / certificate.Text("authority");
  const std::filesystem::path certificate_file = folder / certificate.Text("certificate");
  const std::filesystem::path key_file = folder / certificate.Text("key");
  RETURN_IF_ERROR(reader.Finish());
  ASSIGN_OR_RETURN(config.files.authority, ReadTextFile(authority_file));
  ASSIGN_OR_RETURN(config.files.certificate, ReadTextFile(certificate_file));
  ASSIGN_OR_RETURN(config.files.private_key, ReadSecret(key_file));
  return config;
}

absl::StatusOr<std::string> ReadTextFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::error_code error;
  // A stream on a folder opens, and throws when it is read.
  if (!file.is_open() || !std::filesystem::is_regular_file(path, error)) {
    return absl::NotFoundError(
        fmt::format("cannot read {}: it must be a file that this user may read", path.string()));
  }
  std::string text(std::istreambuf_iterator<char>(file), {});
  return text;
}

}  // namespace isoscan
