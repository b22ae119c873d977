#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <functional>

#include "absl/status/status.h"

#include "server/rpc/executor.h"

namespace isoscan {

/// Runs `work` on the executor and ends the call with what it answers. The request, the response
/// and `context` live until then.
grpc::ServerUnaryReactor* ServeUnaryCall(Executor& executor, const char* method,
                                         grpc::CallbackServerContext& context,
                                         std::function<absl::Status()> work,
                                         Executor::Lane lane = Executor::Lane::kQuick);

}  // namespace isoscan
