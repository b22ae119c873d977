#pragma once

#include <string>

#include "absl/status/status.h"

namespace isoscan {

/// Turns gRPC's words for a connection that did not come about into what a hospital's IT can act
/// upon: the address, what is wrong with it as far as TLS and gRPC let a client know, and what to
/// check. Any other error comes back as it is.
///
/// A server that refuses this site's certificate ends the connection after the client's side of the
/// TLS 1.3 handshake is complete, so it cannot be told from a connection that broke: the message
/// names both.
absl::Status ExplainConnectionFailure(const absl::Status& status, const std::string& server);

/// True for localhost, 127.0.0.0/8 and ::1 in "HOST:PORT": never reached through a proxy.
bool IsLoopback(const std::string& server);

/// The proxy that gRPC goes through to reach `server`, from the environment (grpc_proxy,
/// https_proxy, http_proxy, in this order); empty for none. A proxy's password is left out.
std::string ProxyFor(const std::string& server);

}  // namespace isoscan
