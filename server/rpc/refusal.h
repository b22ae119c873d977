#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace isoscan {

/// What a call ends with. A refusal is logged in one line, as a warning; a defect of ours as an
/// error; OK and a caller that went away not at all. No message of ours holds a token or a key.
grpc::Status EndOfCall(const char* method, const grpc::CallbackServerContext& context,
                       const absl::Status& status);

/// A file of the server's own that it cannot read or write, told to a site as such: UNAVAILABLE, or
/// RESOURCE_EXHAUSTED as it was, so that the site keeps what it has and tries again until somebody
/// has mended it. OK stays.
absl::Status FileTrouble(const absl::Status& status);

/// For a call that the executor has no room for. UNAVAILABLE: clients try again.
absl::Status TooManyCalls();

}  // namespace isoscan
