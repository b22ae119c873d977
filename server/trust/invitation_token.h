#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace isoscan {

/// A new secret for an invitation: 256 random bits as 64 hexadecimal digits. The server stores its
/// SHA-256 only. Never log it.
absl::StatusOr<std::string> CreateInvitationToken();

}  // namespace isoscan
