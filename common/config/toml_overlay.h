#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace isoscan {

/// `base` with what `overlay` says: tables are merged key by key, every other value of the overlay
/// takes the place of the base's. Comments and the order of keys are lost.
/// Errors: INVALID_ARGUMENT one of the two is not TOML, with its place in the text.
absl::StatusOr<std::string> WithOverlay(std::string_view base, std::string_view overlay);

/// `text` without the table (or value) `key` of its top level, where it has one. Comments and the
/// order of keys are lost. Errors: INVALID_ARGUMENT it is not TOML, with its place in the text.
absl::StatusOr<std::string> WithoutKey(std::string_view text, std::string_view key);

}  // namespace isoscan
