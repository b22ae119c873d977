#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace isoscan {

/// What a certificate of ours says its holder is: SAN URI "urn:isoscan:ROLE:NAME".
struct Identity {
  enum class Role { kSite, kOperator, kServer };
  Role role = Role::kSite;
  std::string name;

  bool operator==(const Identity&) const = default;
};

/// "urn:isoscan:site:st-marys".
std::string ToUri(const Identity& identity);

/// Errors: INVALID_ARGUMENT for anything but urn:isoscan:{site,operator,server}:NAME, where NAME
/// has 1 to 64 letters, digits, dots, dashes and underscores and starts with a letter or digit (the
/// server's is its address and may have colons).
absl::StatusOr<Identity> IdentityFromUri(std::string_view uri);

/// A new EC P-256 private key, PKCS#8 PEM.
absl::StatusOr<std::string> CreatePrivateKey();

/// A PKCS#10 request, PEM, signed by `private_key_pem`, whose SAN is `identity`.
/// Errors: INVALID_ARGUMENT when the key is not a PEM private key or the name is not allowed.
absl::StatusOr<std::string> CreateSigningRequest(const std::string& private_key_pem,
                                                 const Identity& identity);

/// SHA-256 of the certificate's DER, 64 hexadecimal digits.
absl::StatusOr<std::string> CertificateFingerprint(const std::string& certificate_pem);

/// Whole days until the certificate ends, rounded down: 0 on its last day, negative when it has
/// ended; for `check` and warnings.
absl::StatusOr<int> DaysUntilExpiry(const std::string& certificate_pem);

/// The identity of a certificate's SAN.
/// Errors: INVALID_ARGUMENT when it is not a certificate, or names no identity of ours or several.
absl::StatusOr<Identity> IdentityOf(const std::string& certificate_pem);

/// Writes a secret that only the owner may read (mode 0600), through a temporary name and fsync:
/// the file is there whole or not at all. Errors: NOT_FOUND when the folder is missing or may not
/// be written to; RESOURCE_EXHAUSTED when the
///         disk is full.
absl::Status WriteSecret(const std::filesystem::path& path, const std::string& content);

/// Reads a private key file.
/// Errors: NOT_FOUND when it is missing or cannot be read; PERMISSION_DENIED when group or others
/// may
///         read it (the message says chmod).
absl::StatusOr<std::string> ReadSecret(const std::filesystem::path& path);

}  // namespace isoscan
