#pragma once

#include <filesystem>
#include <stop_token>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace isoscan {

/// What `isoscan-admin site invite` wrote and the coordinator handed over.
struct Invitation {
  std::string server;     ///< HOST:PORT.
  std::string site;       ///< The name that this site gets.
  std::string token;      ///< Valid once.
  std::string authority;  ///< PEM; the only authority that the site trusts from now on.
};

/// Errors: NOT_FOUND; INVALID_ARGUMENT for what is no invitation, with file and line.
absl::StatusOr<Invitation> LoadInvitation(const std::filesystem::path& path);

/// PEM texts.
struct IssuedCertificate {
  std::string certificate;
  std::string authority;
};

/// Asks `invitation.server` to sign `signing_request_pem`. The private key stays here.
///
/// Errors: PERMISSION_DENIED unknown, used or expired token; UNAVAILABLE with what to check.
absl::StatusOr<IssuedCertificate> RequestCertificate(const Invitation& invitation,
                                                     const std::string& signing_request_pem,
                                                     std::stop_token stop);

}  // namespace isoscan
