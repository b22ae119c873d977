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
  std::string token;      ///< Valid for one key.
  std::string authority;  ///< PEM; the only authority that the site trusts from now on.
};

/// Errors: NOT_FOUND; INVALID_ARGUMENT for what is no invitation, with file and line.
absl::StatusOr<Invitation> LoadInvitation(const std::filesystem::path& path);

/// Asks `invitation.server` to sign `signing_request_pem`; answers with the certificate, PEM. The
/// private key stays here. May be repeated with the same key until the invitation expires.
///
/// The authority that the server sends is not read: a site trusts the one of its invitation, which
/// came by another way.
///
/// Errors: PERMISSION_DENIED unknown, used or expired token; UNAVAILABLE with what to check;
///         DATA_LOSS a certificate of somebody else.
absl::StatusOr<std::string> RequestCertificate(const Invitation& invitation,
                                               const std::string& signing_request_pem,
                                               std::stop_token stop);

}  // namespace isoscan
