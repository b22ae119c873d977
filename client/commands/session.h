#pragma once

#include <memory>
#include <stop_token>

#include "absl/status/statusor.h"

#include "client/client_config.h"
#include "client/federation/federation_session.h"
#include "client/federation/retry_policy.h"

namespace isoscan {

/// A conversation with the site's own certificate. Nothing is sent yet.
/// Errors: those of LoadTlsFiles; PERMISSION_DENIED a certificate that has ended;
///         FAILED_PRECONDITION one of another site.
absl::StatusOr<std::unique_ptr<FederationSession>> OpenSession(const ClientConfig& config,
                                                               const RetryPolicy& policy);

/// OpenSession for a command: one try, and the greeting is behind it.
absl::StatusOr<std::unique_ptr<FederationSession>> GreetServer(const ClientConfig& config,
                                                               std::stop_token stop);

}  // namespace isoscan
