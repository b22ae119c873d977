#include "server/rpc/unary_call.h"

#include <utility>

#include "server/rpc/refusal.h"

namespace isoscan {

grpc::ServerUnaryReactor* ServeUnaryCall(Executor& executor, const char* method,
                                         grpc::CallbackServerContext& context,
                                         std::function<absl::Status()> work, Executor::Lane lane) {
  grpc::ServerUnaryReactor* const reactor = context.DefaultReactor();
  const bool taken = executor.TryRun(
      [reactor, method, &context, work = std::move(work)] {
        reactor->Finish(EndOfCall(method, context, work()));
      },
      lane);
  if (!taken) reactor->Finish(EndOfCall(method, context, TooManyCalls()));
  return reactor;
}

}  // namespace isoscan
