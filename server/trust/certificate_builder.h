/// X.509 as this folder needs it: OpenSSL's calls, checked, with PEM texts at the ends.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock/clock.h"
#include "common/tls/openssl_handles.h"

namespace isoscan {

absl::StatusOr<UniqueCertificate> ParseCertificatePem(const std::string& pem);
absl::StatusOr<UniqueKey> ParsePrivateKeyPem(const std::string& pem);
/// The signature has been checked against the request's own key.
absl::StatusOr<UniqueSigningRequest> ParseSigningRequestPem(const std::string& pem);

/// Subject alternative names as "URI:...", "DNS:...", "IP:..." would write them; other kinds as
/// "other". Empty when there is no such extension.
std::vector<std::string> AlternativeNames(X509_REQ* request);

absl::StatusOr<Time> EndOf(const X509* certificate);

/// Of the key's SubjectPublicKeyInfo; 64 hexadecimal digits.
absl::StatusOr<std::string> PublicKeySha256(EVP_PKEY* key);

/// One certificate in the making.
class CertificateBuilder {
 public:
  /// Starts with a random serial, `key` as its public key and a life from an hour before `now` to
  /// `ends`.
  static absl::StatusOr<CertificateBuilder> Start(EVP_PKEY* key, const std::string& common_name,
                                                  Time now, Time ends);

  /// Errors: INTERNAL when OpenSSL does not know the extension or its value.
  /// `issuer` nullptr: the certificate itself.
  absl::Status AddExtension(int nid, const std::string& value, X509* issuer = nullptr);

  /// `issuer` nullptr: self-signed. Answers with PEM.
  absl::StatusOr<std::string> Sign(X509* issuer, EVP_PKEY* issuer_key) &&;

 private:
  explicit CertificateBuilder(UniqueCertificate certificate)
      : certificate_(std::move(certificate)) {}

  UniqueCertificate certificate_;
};

}  // namespace isoscan
