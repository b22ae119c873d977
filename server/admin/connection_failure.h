#pragma once

#include <string>

#include "absl/status/status.h"

namespace isoscan {

/// Puts gRPC's words for a connection that did not come about into the operator's: the address and
/// what to check. Other errors come back as they are.
absl::Status ExplainOperatorConnection(const absl::Status& status, const std::string& server);

}  // namespace isoscan
