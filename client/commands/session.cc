#include "client/commands/session.h"

#include <fmt/format.h>

#include "client/federation/grpc_federation_session.h"
#include "common/status/status_macros.h"
#include "common/tls/keys.h"

namespace isoscan {

absl::StatusOr<std::unique_ptr<FederationSession>> OpenSession(const ClientConfig& config,
                                                               const RetryPolicy& policy) {
  ASSIGN_OR_RETURN(const TlsFiles files, LoadTlsFiles(config.certificate));
  ASSIGN_OR_RETURN(const int days, DaysUntilExpiry(files.certificate));
  if (days < 0) {
    return absl::PermissionDeniedError(
        fmt::format("the certificate {} ended {} days ago; ask the coordinator for an invitation "
                    "and enrol again",
                    config.certificate.certificate.string(), -days));
  }
  ASSIGN_OR_RETURN(const Identity identity, IdentityOf(files.certificate));
  if (identity != Identity{.role = Identity::Role::kSite, .name = config.site}) {
    return absl::FailedPreconditionError(
        fmt::format("the certificate {} is for {}, client.toml says site = \"{}\"; correct one of "
                    "the two",
                    config.certificate.certificate.string(), ToUri(identity), config.site));
  }
  return ConnectOverGrpc(config.server, files, policy);
}

absl::StatusOr<std::unique_ptr<FederationSession>> GreetServer(const ClientConfig& config,
                                                               std::stop_token stop) {
  ASSIGN_OR_RETURN(std::unique_ptr<FederationSession> session,
                   OpenSession(config, RetryPolicy::Once()));
  RETURN_IF_ERROR(session->Hello(stop).status());
  return session;
}

}  // namespace isoscan
