#pragma once

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>

namespace isoscan {

/// PEM texts of one end of a connection. A client that has not enrolled yet has only `authority`.
struct TlsFiles {
  std::string authority{};
  std::string certificate{};
  std::string private_key{};
};

/// Makes TLS 1.2 impossible for gRPC in this process. gRPC 1.51 has no setter for a minimum
/// version; its TLS 1.2 cipher list is read from the environment, and a list without any suite that
/// both sides could use leaves only TLS 1.3 (docs/decisions/0003-tls-1.3.md). Call first thing in
/// main(), before any thread and any gRPC call.
void RequireTls13();

/// Lets a lost connection come back while no call is under way. gRPC 1.51 moves a handshake on only
/// while some call waits, or else every five seconds, and gives it up after ten: a client whose
/// calls fail at once and which then waits before the next try would never get through again.
/// Programs that dial call it first thing in main(), as RequireTls13().
void ReconnectBetweenCalls();

/// Sends what gRPC logs, on standard error by itself, to our log at level debug: a connection that
/// fails is told by the status of its call. Programs that dial call it beside RequireTls13(); the
/// server takes gRPC's lines itself.
void LogGrpcAsDebug();

/// Server side. A certificate that another authority signed ends the handshake. No certificate at
/// all is let through to the one call that needs none, Enrol; every other call answers
/// UNAUTHENTICATED (server/rpc/peer_authentication.h).
std::shared_ptr<grpc::ServerCredentials> ServerCredentials(const TlsFiles& files);

/// Client side: trusts only `authority`; without one, no server at all.
std::shared_ptr<grpc::ChannelCredentials> ChannelCredentials(const TlsFiles& files);

}  // namespace isoscan
