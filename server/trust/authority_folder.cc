#include "server/trust/authority_folder.h"

#include <fmt/format.h>

#include <fstream>
#include <iterator>
#include <string>
#include <system_error>
#include <utility>

#include "common/status/status_macros.h"
#include "common/transfer/chunks.h"

namespace isoscan {

absl::Status SaveAuthority(const Authority& authority, const std::filesystem::path& folder) {
  RETURN_IF_ERROR(WriteSecret(folder / "authority.key", authority.private_key_pem()));
  return WriteFileAtomically(folder / "authority.pem", authority.certificate_pem());
}

absl::StatusOr<Authority> LoadAuthority(const std::filesystem::path& folder) {
  ASSIGN_OR_RETURN(std::string certificate, ReadPem(folder / "authority.pem"));
  ASSIGN_OR_RETURN(std::string private_key, ReadSecret(folder / "authority.key"));
  absl::StatusOr<Authority> authority =
      Authority::FromPem(std::move(certificate), std::move(private_key));
  if (authority.ok()) return authority;
  return absl::InvalidArgumentError(
      fmt::format("{}: {}", folder.string(), std::string(authority.status().message())));
}

absl::StatusOr<std::string> ReadPem(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::error_code error;
  // A stream on a folder opens, and throws when it is read.
  if (!file.is_open() || !std::filesystem::is_regular_file(path, error)) {
    return absl::NotFoundError(
        fmt::format("cannot read {}: {}", path.string(),
                    std::filesystem::is_directory(path, error) ? "it is a folder"
                    : std::filesystem::exists(path, error)     ? "check its owner and mode"
                                                               : "there is no such file"));
  }
  return std::string(std::istreambuf_iterator<char>(file), {});
}

}  // namespace isoscan
