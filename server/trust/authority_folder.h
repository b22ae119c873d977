#pragma once

#include <filesystem>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "server/trust/authority.h"

namespace isoscan {

/// Writes authority.pem and authority.key (mode 0600) into `folder`.
/// Errors: RESOURCE_EXHAUSTED disk full; NOT_FOUND no such folder, or not writable.
absl::Status SaveAuthority(const Authority& authority, const std::filesystem::path& folder);

/// Errors: NOT_FOUND; PERMISSION_DENIED when others than the owner may read the key;
///         INVALID_ARGUMENT naming the file, when the two are no authority.
absl::StatusOr<Authority> LoadAuthority(const std::filesystem::path& folder);

/// Reads a small text, such as a certificate. Errors: NOT_FOUND naming the file.
absl::StatusOr<std::string> ReadPem(const std::filesystem::path& path);

}  // namespace isoscan
