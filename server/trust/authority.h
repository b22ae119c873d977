#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/clock/clock.h"
#include "common/tls/keys.h"

namespace isoscan {

/// A certificate that the authority has just signed.
struct SignedCertificate {
  std::string pem;
  std::string fingerprint;  ///< SHA-256 of the DER, 64 hexadecimal digits.
  std::string key_sha256;   ///< Of the holder's public key, 64 hexadecimal digits.
  Time ends{};
};

/// A certificate with the private key that the authority made for it.
struct KeyedCertificate {
  SignedCertificate certificate;
  std::string private_key_pem;
};

/// The consortium's certificate authority: EC P-256, self-signed, able to sign end certificates and
/// no further authority. It alone decides who may speak to the server.
///
/// Every certificate has a random 128-bit serial, SHA-256, one hour of allowance for clocks that
/// run behind, and no longer life than the authority's own. Source: docs/references.md#rfc5280
/// (profile), #rfc2986 (signing requests).
///
/// Thread safety: const methods from any thread.
class Authority {
 public:
  /// Ends ten years after `now`.
  static absl::StatusOr<Authority> Create(Time now);

  /// Errors: INVALID_ARGUMENT texts that are not PEM, a certificate that may not sign others, or a
  ///         key that is not the certificate's.
  static absl::StatusOr<Authority> FromPem(std::string certificate_pem,
                                           std::string private_key_pem);

  const std::string& certificate_pem() const { return certificate_pem_; }
  const std::string& private_key_pem() const { return private_key_pem_; }

  /// Signs a site's PKCS#10 request for 397 days: client authentication only. From the request come
  /// the public key and the name, nothing else.
  ///
  /// Errors: INVALID_ARGUMENT not a request, a signature that does not fit its key, or a key other
  ///         than EC P-256 or P-384;
  ///         PERMISSION_DENIED any name but urn:isoscan:site:`site`.
  absl::StatusOr<SignedCertificate> SignSite(const std::string& signing_request_pem,
                                             const std::string& site, Time now) const;

  /// For the server that is reached as `host` (a DNS name or an IP address), localhost and
  /// 127.0.0.1; 397 days.
  absl::StatusOr<KeyedCertificate> IssueServer(const std::string& host, Time now) const;

  /// For the coordinator's isoscan-admin; 397 days.
  absl::StatusOr<KeyedCertificate> IssueOperator(const std::string& name, Time now) const;

 private:
  Authority(std::string certificate_pem, std::string private_key_pem)
      : certificate_pem_(std::move(certificate_pem)),
        private_key_pem_(std::move(private_key_pem)) {}

  std::string certificate_pem_;
  std::string private_key_pem_;
};

/// Who a signing request says it is for, so that its invitation can be looked up.
/// Errors: INVALID_ARGUMENT not a request, a signature that does not fit its key, or a SAN that is
///         not exactly one identity of ours.
absl::StatusOr<Identity> RequestedIdentity(const std::string& signing_request_pem);

}  // namespace isoscan
