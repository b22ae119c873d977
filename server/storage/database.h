#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "common/clock/clock.h"
#include "common/status/status_macros.h"

namespace isoscan {

/// One prepared SQL statement; its parameters are ?1, ?2, ...
///
/// Lives no longer than its Database, and is used under the database's mutex.
class Statement {
 public:
  void Bind(int index, std::int64_t value);
  void Bind(int index, int value) { Bind(index, std::int64_t{value}); }
  void Bind(int index, bool value) { Bind(index, std::int64_t{value}); }
  /// NaN is stored as NULL.
  void Bind(int index, double value);
  void Bind(int index, std::string_view value);
  void Bind(int index, const std::string& value) { Bind(index, std::string_view(value)); }
  void Bind(int index, const char* value) { Bind(index, std::string_view(value)); }
  void Bind(int index, Time value) { Bind(index, value.time_since_epoch().count()); }

  /// True: a row is there to be read. False: the statement is done.
  absl::StatusOr<bool> Step();
  /// Ready to be bound and stepped again.
  void Reset();

  bool IsNull(int column) const;
  std::int64_t Integer(int column) const;
  int Small(int column) const { return static_cast<int>(Integer(column)); }
  /// NULL is read as NaN.
  double Number(int column) const;
  std::string Text(int column) const;
  Time Moment(int column) const { return Time(Time::duration(Integer(column))); }

 private:
  friend class Database;
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  Statement(sqlite3_stmt* statement, const std::string* path)
      : statement_(statement), path_(path) {}

  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  const std::string* path_;  // The database's file, for messages.
};

/// One SQLite file in WAL mode with synchronous=FULL and foreign keys: a committed transaction has
/// reached the disk. The process holds the file alone, until it ends in any way.
///
/// Errors of every method: RESOURCE_EXHAUSTED disk full; DATA_LOSS the file is damaged; UNAVAILABLE
/// other I/O errors; INTERNAL a statement that is wrong or breaks a constraint.
/// Thread safety: hold mutex() while a statement or transaction is in use. No method takes it.
class Database {
 public:
  /// Opens or creates the file.
  /// Errors: FAILED_PRECONDITION another process has it open; NOT_FOUND there is no such folder;
  ///         PERMISSION_DENIED; DATA_LOSS not a database.
  static absl::StatusOr<std::unique_ptr<Database>> Open(const std::filesystem::path& path);

  absl::Mutex& mutex() ABSL_LOCK_RETURNED(mutex_) { return mutex_; }
  const std::string& path() const { return path_; }

  absl::StatusOr<Statement> Prepare(std::string_view sql);

  /// Runs one statement that answers no rows.
  template <typename... Values>
  absl::Status Run(std::string_view sql, const Values&... values) {
    return Each([](const Statement&) {}, sql, values...);
  }

  /// Calls `row` for each row of the answer.
  template <typename Row, typename... Values>
  absl::Status Each(Row row, std::string_view sql, const Values&... values) {
    ASSIGN_OR_RETURN(Statement statement, Prepare(sql));
    int index = 0;
    (statement.Bind(++index, values), ...);
    while (true) {
      ASSIGN_OR_RETURN(const bool found, statement.Step());
      if (!found) return absl::OkStatus();
      row(std::as_const(statement));
    }
  }

  /// Runs a script of several statements without parameters.
  absl::Status RunScript(const char* sql);

  /// Rows that the last statement changed.
  std::int64_t changes() const { return sqlite3_changes64(connection_.get()); }

 private:
  struct Close {
    void operator()(sqlite3* connection) const { sqlite3_close_v2(connection); }
  };
  Database(sqlite3* connection, std::string path)
      : connection_(connection), path_(std::move(path)) {}

  absl::Mutex mutex_;
  std::unique_ptr<sqlite3, Close> connection_;
  std::string path_;
};

/// All or nothing: what is not committed when it ends is rolled back.
class Transaction {
 public:
  static absl::StatusOr<Transaction> Begin(Database& database);
  Transaction(Transaction&& other) noexcept : database_(std::exchange(other.database_, nullptr)) {}
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();

  absl::Status Commit() &&;

 private:
  explicit Transaction(Database* database) : database_(database) {}
  Database* database_;  // Null once committed or moved from.
};

}  // namespace isoscan
