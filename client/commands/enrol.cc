#include <fmt/format.h>

#include <cstdio>
#include <system_error>

#include "client/commands/commands.h"
#include "client/federation/enrolment.h"
#include "common/config/address.h"
#include "common/status/status_macros.h"
#include "common/tls/keys.h"
#include "common/transfer/chunks.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;

/// The key of an enrolment that failed half way is used again.
absl::StatusOr<std::string> KeyIn(const fs::path& path) {
  std::error_code error;
  if (fs::exists(path, error)) return ReadSecret(path);
  ASSIGN_OR_RETURN(std::string key, CreatePrivateKey());
  RETURN_IF_ERROR(WriteSecret(path, key));
  return key;
}

}  // namespace

absl::Status Enrol(const fs::path& invitation_path, const fs::path& folder,
                   const std::string& server, std::stop_token stop) {
  ASSIGN_OR_RETURN(Invitation invitation, LoadInvitation(invitation_path));
  if (!server.empty() && !IsAddress(server)) {
    return absl::InvalidArgumentError(
        fmt::format("--server is \"{}\", expected HOST:PORT", server));
  }
  if (!server.empty()) invitation.server = server;
  const fs::path certificate = folder / "site.pem";
  std::error_code error;
  if (fs::exists(certificate, error)) {
    return absl::AlreadyExistsError(fmt::format(
        "{} exists: this folder has enrolled; take another --folder, or `isoscan-client "
        "check` to see whether it is well",
        certificate.string()));
  }
  fs::create_directories(folder, error);
  if (error) {
    return absl::NotFoundError(fmt::format("{} cannot be made: {}; choose another --folder",
                                           folder.string(), error.message()));
  }
  ASSIGN_OR_RETURN(const std::string key, KeyIn(folder / "site.key"));
  ASSIGN_OR_RETURN(
      const std::string request,
      CreateSigningRequest(key, {.role = Identity::Role::kSite, .name = invitation.site}));
  ASSIGN_OR_RETURN(const std::string issued, RequestCertificate(invitation, request, stop));
  ASSIGN_OR_RETURN(const int days, DaysUntilExpiry(issued));

  // The certificate last: with it, the folder counts as enrolled.
  RETURN_IF_ERROR(WriteFileAtomically(folder / "authority.pem", invitation.authority));
  const fs::path config = folder / "client.toml";
  if (!fs::exists(config, error)) {
    RETURN_IF_ERROR(
        WriteFileAtomically(config, NewClientConfig(invitation.server, invitation.site)));
  }
  RETURN_IF_ERROR(WriteFileAtomically(certificate, issued));
  fmt::print(
      "enrolled as {} at {}; the certificate is valid for {} days\n"
      "next: add this site's folders of MRI to {}, then\n"
      "  isoscan-client --config {} check\n",
      invitation.site, invitation.server, days, config.string(), config.string());
  return absl::OkStatus();
}

}  // namespace isoscan
