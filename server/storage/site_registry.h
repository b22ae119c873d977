#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock/clock.h"
#include "server/storage/database.h"

namespace isoscan {

/// A site as the server knows it, apart from any study.
struct RegisteredSite {
  enum class State { kInvited, kEnrolled, kSuspended };
  std::string name;
  State state = State::kInvited;
  std::string fingerprint;               ///< SHA-256 of the certificate's DER; "" while invited.
  std::optional<Time> certificate_ends;  ///< None while invited.
};

/// What the registry keeps of a certificate that was made for a site.
struct IssuedSiteCertificate {
  std::string fingerprint;  ///< SHA-256 of its DER.
  std::string key_sha256;   ///< Of its public key.
  Time ends{};
};

/// Which sites there are, which certificate each has, and which invitations are open.
///
/// Shares the journal's database. Thread safety: every method from any thread.
class SiteRegistry {
 public:
  explicit SiteRegistry(Database& database) : database_(database) {}

  /// A new invitation; earlier ones of the same site end.
  /// Errors: INVALID_ARGUMENT not a site's name; ALREADY_EXISTS the site has enrolled.
  absl::Status Invite(const std::string& site, const std::string& token_sha256, Time expires);

  /// Uses up the invitation and enrols its site with `certificate`, in one transaction: from now on
  /// only this certificate is accepted. Until the invitation expires it may be repeated for the
  /// same key, and gives the site the newer certificate: the answer to the first time may never
  /// have arrived. Another key is refused, so who finds a used invitation cannot become the site.
  ///
  /// Errors: PERMISSION_DENIED an unknown, used or expired token, or one for another site. The
  ///         message is the same for an unknown token and for another site's.
  absl::Status Redeem(const std::string& token_sha256, const std::string& site,
                      const IssuedSiteCertificate& certificate, Time now);

  /// OK when the site has enrolled with exactly this certificate.
  /// Errors: PERMISSION_DENIED saying why not.
  absl::Status IsAllowed(const std::string& site, const std::string& fingerprint) const;

  /// By name.
  absl::StatusOr<std::vector<RegisteredSite>> List() const;

 private:
  Database& database_;
};

}  // namespace isoscan
