#pragma once

#include <grpcpp/server_context.h>

#include <string>

#include "absl/status/statusor.h"

#include "common/tls/keys.h"
#include "server/storage/site_registry.h"

namespace isoscan {

/// Who is at the other end of a connection: what the certificate says whose key the TLS handshake
/// has proved. No field of a message is ever asked.
struct Peer {
  Identity identity;
  std::string fingerprint;  ///< SHA-256 of the certificate's DER.
};

/// Errors: UNAUTHENTICATED no certificate; PERMISSION_DENIED one without exactly one identity of
///         ours.
absl::StatusOr<Peer> PeerOf(const grpc::CallbackServerContext& context);

/// "site st-marys" or "operator coordinator" for the log; "nobody" without a certificate of ours.
std::string NameOfPeer(const grpc::CallbackServerContext& context);

/// Decides who may call. The only reader of certificates on connections.
///
/// Reads the site registry (SQLite): call it on the executor. Thread safety: any thread.
class PeerAuthentication {
 public:
  explicit PeerAuthentication(const SiteRegistry& sites) : sites_(sites) {}

  /// The name of the site that calls.
  /// Errors: those of PeerOf; PERMISSION_DENIED for another role, a site that has not enrolled or
  ///         is suspended, or a certificate that is not its latest.
  absl::StatusOr<std::string> Site(const grpc::CallbackServerContext& context) const;

  /// The name of the operator who calls. Errors: those of PeerOf; PERMISSION_DENIED another role.
  absl::StatusOr<std::string> Operator(const grpc::CallbackServerContext& context) const;

 private:
  const SiteRegistry& sites_;
};

}  // namespace isoscan
