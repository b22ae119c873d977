#include "server/storage/database.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

namespace isoscan {
namespace {

absl::Status ErrorOf(sqlite3* connection, const std::string& path) {
  const int extended = sqlite3_extended_errcode(connection);
  const std::string detail = sqlite3_errmsg(connection);
  switch (extended & 0xff) {
    case SQLITE_FULL:
      return absl::ResourceExhaustedError(
          fmt::format("the disk of {} is full: free some space, nothing is lost", path));
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(fmt::format(
          "{} is damaged or no journal of Isoscan ({}): restore it from a backup", path, detail));
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::FailedPreconditionError(
          fmt::format("another isoscan-server uses {}: stop it first", path));
    case SQLITE_CANTOPEN:
      return absl::NotFoundError(
          fmt::format("cannot open {} ({}): its folder must exist and be writable", path, detail));
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return absl::PermissionDeniedError(
          fmt::format("{} may not be written ({}): check its owner and mode", path, detail));
    case SQLITE_IOERR:
    case SQLITE_NOMEM:
    case SQLITE_PROTOCOL:
      return absl::UnavailableError(
          fmt::format("{}: {} (SQLite error {})", path, detail, extended));
    default:
      return absl::InternalError(fmt::format("{}: {} (SQLite error {})", path, detail, extended));
  }
}

// What goes wrong once the database is open: a file that may not be written any more, or a disk
// that was remounted, passes once somebody mends it, and says nothing about the caller's request.
absl::Status TroubleOf(sqlite3* connection, const std::string& path) {
  const absl::Status error = ErrorOf(connection, path);
  switch (error.code()) {
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kInternal:
      return error;
    default:
      return absl::UnavailableError(error.message());
  }
}

}  // namespace

// Binding fails only for an index that the statement does not have: a defect that Step() would
// show as a missing value, caught by the schema's NOT NULL.
void Statement::Bind(int index, std::int64_t value) {
  sqlite3_bind_int64(statement_.get(), index, value);
}

void Statement::Bind(int index, double value) {
  if (std::isnan(value)) {
    sqlite3_bind_null(statement_.get(), index);
  } else {
    sqlite3_bind_double(statement_.get(), index, value);
  }
}

void Statement::Bind(int index, std::string_view value) {
  sqlite3_bind_text64(statement_.get(), index, value.data(), value.size(), SQLITE_TRANSIENT,
                      SQLITE_UTF8);
}

absl::StatusOr<bool> Statement::Step() {
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return TroubleOf(sqlite3_db_handle(statement_.get()), *path_);
}

void Statement::Reset() { sqlite3_reset(statement_.get()); }

bool Statement::IsNull(int column) const {
  return sqlite3_column_type(statement_.get(), column) == SQLITE_NULL;
}

std::int64_t Statement::Integer(int column) const {
  return sqlite3_column_int64(statement_.get(), column);
}

double Statement::Number(int column) const {
  if (IsNull(column)) return std::numeric_limits<double>::quiet_NaN();
  return sqlite3_column_double(statement_.get(), column);
}

std::string Statement::Text(int column) const {
  const unsigned char* text = sqlite3_column_text(statement_.get(), column);
  if (text == nullptr) return "";
  return {reinterpret_cast<const char*>(text),
          static_cast<std::size_t>(sqlite3_column_bytes(statement_.get(), column))};
}

absl::StatusOr<std::unique_ptr<Database>> Database::Open(const std::filesystem::path& path) {
  sqlite3* connection = nullptr;
  const int code = sqlite3_open_v2(
      path.c_str(), &connection,
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
      nullptr);
  std::unique_ptr<Database> database(new Database(connection, path.string()));
  if (code != SQLITE_OK) return ErrorOf(connection, path.string());
  // Exclusive locking: the kernel frees the lock of a killed server, and a second server is told.
  constexpr char kSettings[] = R"(
      PRAGMA locking_mode = EXCLUSIVE;
      PRAGMA journal_mode = WAL;
      PRAGMA synchronous = FULL;
      PRAGMA foreign_keys = ON;
      BEGIN EXCLUSIVE;
      COMMIT;
  )";
  if (sqlite3_exec(connection, kSettings, nullptr, nullptr, nullptr) != SQLITE_OK) {
    return ErrorOf(connection, path.string());
  }
  return database;
}

absl::StatusOr<Statement> Database::Prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(connection_.get(), sql.data(), static_cast<int>(sql.size()), &statement,
                         nullptr) != SQLITE_OK) {
    return TroubleOf(connection_.get(), path_);
  }
  return Statement(statement, &path_);
}

absl::Status Database::RunScript(const char* sql) {
  if (sqlite3_exec(connection_.get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK) {
    return TroubleOf(connection_.get(), path_);
  }
  return absl::OkStatus();
}

absl::StatusOr<Transaction> Transaction::Begin(Database& database) {
  RETURN_IF_ERROR(database.RunScript("BEGIN IMMEDIATE"));
  return Transaction(&database);
}

Transaction::~Transaction() {
  // A disk that is full has already rolled back; then there is nothing left to do.
  if (database_ != nullptr) database_->RunScript("ROLLBACK").IgnoreError();
}

absl::Status Transaction::Commit() && {
  RETURN_IF_ERROR(database_->RunScript("COMMIT"));
  database_ = nullptr;
  return absl::OkStatus();
}

}  // namespace isoscan
