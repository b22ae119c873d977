#include "server/trust/invitation_token.h"

#include <fmt/format.h>

#include <array>

#include "common/tls/openssl_handles.h"
#include <openssl/rand.h>

namespace isoscan {

absl::StatusOr<std::string> CreateInvitationToken() {
  std::array<unsigned char, 32> bytes;
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) {
    return absl::InternalError(
        fmt::format("cannot draw an invitation's random token: {}", OpenSslError()));
  }
  return fmt::format("{:02x}", fmt::join(bytes, ""));
}

}  // namespace isoscan
