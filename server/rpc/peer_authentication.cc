#include "server/rpc/peer_authentication.h"

#include <fmt/format.h>
#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/auth_context.h>

#include <memory>
#include <vector>

#include "common/status/status_macros.h"
#include "server/rounds/journal.h"

namespace isoscan {
namespace {

std::string WordOf(Identity::Role role) {
  switch (role) {
    case Identity::Role::kSite:
      return "site";
    case Identity::Role::kOperator:
      return "operator";
    case Identity::Role::kServer:
      return "server";
  }
  return "unknown role";
}

std::string NameOf(const Identity& identity) {
  return fmt::format("{} {}", WordOf(identity.role), identity.name);
}

}  // namespace

absl::StatusOr<Peer> PeerOf(const grpc::CallbackServerContext& context) {
  const std::shared_ptr<const grpc::AuthContext> connection = context.auth_context();
  const std::vector<grpc::string_ref> certificates =
      connection->FindPropertyValues(GRPC_X509_PEM_CERT_PROPERTY_NAME);
  if (!connection->IsPeerAuthenticated() || certificates.size() != 1) {
    return absl::UnauthenticatedError(
        "this call needs a certificate: a site gets one by isoscan-client enrol, an operator by "
        "isoscan-server init");
  }
  const std::vector<grpc::string_ref> uris =
      connection->FindPropertyValues(GRPC_PEER_URI_PROPERTY_NAME);
  if (uris.size() != 1) {
    return absl::PermissionDeniedError(fmt::format(
        "the certificate names {} URIs, expected one, urn:isoscan:ROLE:NAME", uris.size()));
  }
  absl::StatusOr<Identity> identity = IdentityFromUri({uris.front().data(), uris.front().size()});
  if (!identity.ok()) {
    return absl::PermissionDeniedError(std::string(identity.status().message()));
  }
  Peer peer{.identity = *std::move(identity), .fingerprint = ""};
  ASSIGN_OR_RETURN(peer.fingerprint,
                   CertificateFingerprint(
                       std::string(certificates.front().data(), certificates.front().size())));
  return peer;
}

std::string NameOfPeer(const grpc::CallbackServerContext& context) {
  const absl::StatusOr<Peer> peer = PeerOf(context);
  return peer.ok() ? NameOf(peer->identity) : "nobody";
}

absl::StatusOr<std::string> PeerAuthentication::Site(
    const grpc::CallbackServerContext& context) const {
  ASSIGN_OR_RETURN(const Peer peer, PeerOf(context));
  if (peer.identity.role != Identity::Role::kSite) {
    return absl::PermissionDeniedError(fmt::format(
        "{} is no site: only a site's certificate may make this call", NameOf(peer.identity)));
  }
  const absl::Status allowed = sites_.IsAllowed(peer.identity.name, peer.fingerprint);
  if (absl::IsPermissionDenied(allowed)) return allowed;
  RETURN_IF_ERROR(JournalTrouble(allowed));
  return peer.identity.name;
}

absl::StatusOr<std::string> PeerAuthentication::Operator(
    const grpc::CallbackServerContext& context) const {
  ASSIGN_OR_RETURN(const Peer peer, PeerOf(context));
  if (peer.identity.role != Identity::Role::kOperator) {
    return absl::PermissionDeniedError(
        fmt::format("{} is no operator: only the coordinator's certificate may make this call",
                    NameOf(peer.identity)));
  }
  return peer.identity.name;
}

}  // namespace isoscan
