#pragma once

#include <filesystem>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/federation/federation_session.h"

namespace isoscan {

/// Writes what belongs to an update beside its weights, as the JSON form of the message that will
/// carry it, so that a client which was killed hands it in again without training again. Appears
/// whole or not at all.
absl::Status WriteUpdateRecord(const std::filesystem::path& path, const RoundUpdate& update);

/// Errors: NOT_FOUND no such file; DATA_LOSS not such a record.
absl::StatusOr<RoundUpdate> ReadUpdateRecord(const std::filesystem::path& path);

}  // namespace isoscan
