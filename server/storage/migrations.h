#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/status.h"

#include "common/clock/clock.h"
#include "server/storage/database.h"

namespace isoscan {

/// Brings the database to the schema of this program, one transaction per version; the table
/// `migrations` tells when each was applied.
///
/// `up_to` an older version: for tests of what leads on from there.
/// Errors: FAILED_PRECONDITION the file belongs to another program, or was written by a newer
///         isoscan-server.
absl::Status Migrate(Database& database, Time now, std::optional<std::int64_t> up_to = {});

}  // namespace isoscan
