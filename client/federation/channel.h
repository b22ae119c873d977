#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "common/tls/credentials.h"

namespace isoscan {

/// A channel to `server` ("HOST:PORT") as every call of a site uses it: keepalive, proxy, quick
/// reconnection. Nothing is sent before the first call.
std::shared_ptr<grpc::Channel> DialServer(const std::string& server, const TlsFiles& files);

}  // namespace isoscan
