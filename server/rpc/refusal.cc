#include "server/rpc/refusal.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cstddef>
#include <string>
#include <string_view>

#include "common/status/grpc_status.h"
#include "common/status/printable.h"
#include "server/rpc/peer_authentication.h"

namespace isoscan {
namespace {

/// Parts of a reason come from the other side: they must not forge further lines of the log.
std::string OneLine(std::string_view text) {
  constexpr std::size_t kLongest = 500;
  return Printable(text.substr(0, kLongest));
}

}  // namespace

grpc::Status EndOfCall(const char* method, const grpc::CallbackServerContext& context,
                       const absl::Status& status) {
  if (!status.ok() && !absl::IsCancelled(status)) {
    const bool is_our_defect = absl::IsInternal(status) || absl::IsUnknown(status);
    spdlog::log(is_our_defect ? spdlog::level::err : spdlog::level::warn,
                "call refused method={} caller=\"{}\" address={} code={} reason=\"{}\"", method,
                NameOfPeer(context), context.peer(), absl::StatusCodeToString(status.code()),
                OneLine(std::string(status.message())));
  }
  return ToGrpcStatus(status);
}

absl::Status FileTrouble(const absl::Status& status) {
  if (status.ok()) return status;
  const bool is_full = absl::IsResourceExhausted(status);
  return {is_full ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kUnavailable,
          fmt::format("the server has trouble with a file: {}", std::string(status.message()))};
}

absl::Status TooManyCalls() {
  return absl::UnavailableError("the server has more calls waiting than it may; try again");
}

}  // namespace isoscan
