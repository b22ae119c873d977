#pragma once

#include <memory>
#include <string>

#include "client/federation/federation_session.h"
#include "client/federation/retry_policy.h"
#include "common/tls/credentials.h"

namespace isoscan {

/// The conversation over gRPC and mutual TLS, always dialled from here. Goes through the HTTP
/// CONNECT proxy that the environment names, but never to loopback; a ping every minute keeps the
/// connection through firewalls that forget idle ones after five.
///
/// One log line says when the connection is lost and one when it is back, whatever the number of
/// tries in between.
std::unique_ptr<FederationSession> ConnectOverGrpc(const std::string& server, const TlsFiles& files,
                                                   const RetryPolicy& policy);

}  // namespace isoscan
