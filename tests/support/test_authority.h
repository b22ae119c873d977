#pragma once

#include <string>
#include <vector>

#include "common/tls/credentials.h"
#include "common/tls/keys.h"
#include "common/tls/openssl_handles.h"

namespace isoscan {

/// A throw-away certificate authority in memory. Ends the program when OpenSSL fails.
///
///   const TestAuthority authority;
///   const TlsFiles server = authority.Server("localhost");
///   const TlsFiles site = authority.Site("north");
///
/// The production authority is server/trust.
class TestAuthority {
 public:
  enum class Validity { kNow, kExpired, kNotYet };

  TestAuthority();

  /// The authority's own certificate, PEM.
  const std::string& certificate() const { return certificate_pem_; }

  /// Valid for localhost, 127.0.0.1 and `host`.
  TlsFiles Server(const std::string& host = "localhost", Validity validity = Validity::kNow) const;
  TlsFiles Site(const std::string& name, Validity validity = Validity::kNow) const;
  TlsFiles Operator(const std::string& name, Validity validity = Validity::kNow) const;

  /// A certificate whose SAN is exactly `names` in OpenSSL's form, such as "URI:urn:a", "DNS:b".
  TlsFiles Named(const std::vector<std::string>& names, Validity validity = Validity::kNow) const;

  /// Signs a request as it stands, its SAN included; answers with the certificate, PEM.
  std::string Sign(const std::string& signing_request_pem) const;

 private:
  UniqueKey key_;
  UniqueCertificate certificate_;
  std::string certificate_pem_;
};

}  // namespace isoscan
