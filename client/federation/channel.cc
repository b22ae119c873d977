#include "client/federation/channel.h"

#include <fmt/format.h>
#include <grpc/grpc.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/support/channel_arguments.h>

#include "client/federation/connection_failure.h"
#include "common/version.h"

namespace isoscan {

std::shared_ptr<grpc::Channel> DialServer(const std::string& server, const TlsFiles& files) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // The retry policy paces the tries; the channel's own back-off must not add to it.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 10'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  // gRPC would take even 127.0.0.1 to the proxy.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, IsLoopback(server) ? 0 : 1);
  // Each session has its own connection: two of one process must not share a broken one.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetUserAgentPrefix(fmt::format("isoscan-client/{}", kVersion));
  return grpc::CreateCustomChannel(server, ChannelCredentials(files), arguments);
}

}  // namespace isoscan
