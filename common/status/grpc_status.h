#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace isoscan {

/// The two code tables are numerically equal; only the types differ.
grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace isoscan
