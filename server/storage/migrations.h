#pragma once

#include "absl/status/status.h"

#include "common/clock/clock.h"
#include "server/storage/database.h"

namespace isoscan {

/// Brings the database to the schema of this program, one transaction per version; the table
/// `migrations` tells when each was applied.
///
/// Errors: FAILED_PRECONDITION the file belongs to another program, or was written by a newer
///         isoscan-server.
absl::Status Migrate(Database& database, Time now);

}  // namespace isoscan
