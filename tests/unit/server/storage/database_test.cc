#include "server/storage/database.h"

#include <cmath>
#include <fstream>

#include "server/storage/migrations.h"
#include "server/storage/sqlite_journal.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::Ge;
using testing::HasSubstr;

absl::StatusOr<std::int64_t> Count(Database& database, const char* sql) {
  std::int64_t count = 0;
  RETURN_IF_ERROR(database.Each([&](const Statement& row) { count = row.Integer(0); }, sql));
  return count;
}

TEST(Database, RollsBackWhatIsNotCommitted) {
  const TemporaryDirectory folder;
  ASSERT_OK_AND_ASSIGN(const auto database, Database::Open(folder.path() / "a.db"));
  ASSERT_OK(database->RunScript("CREATE TABLE t (x REAL) STRICT"));
  {
    ASSERT_OK_AND_ASSIGN(Transaction transaction, Transaction::Begin(*database));
    ASSERT_OK(database->Run("INSERT INTO t VALUES (?1)", 1.5));
  }
  EXPECT_THAT(Count(*database, "SELECT count(*) FROM t"), IsOkAndHolds(0));
  {
    ASSERT_OK_AND_ASSIGN(Transaction transaction, Transaction::Begin(*database));
    ASSERT_OK(database->Run("INSERT INTO t VALUES (?1)", 1.5));
    ASSERT_OK(std::move(transaction).Commit());
  }
  EXPECT_THAT(Count(*database, "SELECT count(*) FROM t"), IsOkAndHolds(1));
}

TEST(Database, KeepsNaNApart) {
  const TemporaryDirectory folder;
  ASSERT_OK_AND_ASSIGN(const auto database, Database::Open(folder.path() / "a.db"));
  ASSERT_OK(database->RunScript("CREATE TABLE t (x REAL) STRICT"));
  ASSERT_OK(database->Run("INSERT INTO t VALUES (?1)", std::nan("")));

  double value = 0;
  ASSERT_OK(
      database->Each([&](const Statement& row) { value = row.Number(0); }, "SELECT x FROM t"));
  EXPECT_TRUE(std::isnan(value));
}

TEST(Database, IsHeldByOneServerAtATime) {
  const TemporaryDirectory folder;
  ASSERT_OK_AND_ASSIGN(auto first, SqliteJournal::Open(folder.path() / "journal.db"));

  EXPECT_THAT(SqliteJournal::Open(folder.path() / "journal.db"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("another isoscan-server uses"), HasSubstr("journal.db"))));
  first.reset();
  EXPECT_OK(SqliteJournal::Open(folder.path() / "journal.db"));
}

TEST(Database, SaysThatTheDiskIsFullAndKeepsWhatWasThere) {
  const TemporaryDirectory folder;
  ASSERT_OK_AND_ASSIGN(const auto database, Database::Open(folder.path() / "a.db"));
  ASSERT_OK(database->RunScript("CREATE TABLE t (x TEXT) STRICT; PRAGMA max_page_count = 4"));
  ASSERT_OK(database->Run("INSERT INTO t VALUES ('kept')"));
  {
    ASSERT_OK_AND_ASSIGN(Transaction transaction, Transaction::Begin(*database));
    EXPECT_THAT(database->Run("INSERT INTO t VALUES (?1)", std::string(100'000, 'x')),
                StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("is full")));
  }
  EXPECT_THAT(Count(*database, "SELECT count(*) FROM t"), IsOkAndHolds(1));
  EXPECT_OK(database->Run("INSERT INTO t VALUES ('again')"));
}

TEST(Database, SaysThatADiskWhichMayNotBeWrittenAnyMorePasses) {
  const TemporaryDirectory folder;
  ASSERT_OK_AND_ASSIGN(const auto database, Database::Open(folder.path() / "a.db"));
  ASSERT_OK(database->RunScript("CREATE TABLE t (x REAL) STRICT"));
  ASSERT_OK(database->RunScript("PRAGMA query_only = ON"));  // Fails as a read-only disk does.

  EXPECT_THAT(database->Run("INSERT INTO t VALUES (?1)", 1.5),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("may not be written")));

  ASSERT_OK(database->RunScript("PRAGMA query_only = OFF"));
  EXPECT_OK(database->Run("INSERT INTO t VALUES (?1)", 1.5));
}

TEST(Database, RefusesWhatIsNoJournal) {
  const TemporaryDirectory folder;
  std::ofstream(folder.path() / "journal.db") << std::string(5000, 'x');
  EXPECT_THAT(SqliteJournal::Open(folder.path() / "journal.db"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("journal.db is damaged")));

  EXPECT_THAT(SqliteJournal::Open(folder.path() / "absent" / "journal.db"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("its folder must exist")));
  {
    ASSERT_OK_AND_ASSIGN(const auto other, Database::Open(folder.path() / "other.db"));
    ASSERT_OK(other->RunScript("CREATE TABLE t (x TEXT)"));
  }
  EXPECT_THAT(SqliteJournal::Open(folder.path() / "other.db"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("another program")));
}

class OldJournal : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Migrations, OldJournal, testing::Values(1, 2, 3, 4));

TEST_P(OldJournal, IsBroughtUpWithWhatIsInIt) {
  const TemporaryDirectory folder;
  const std::filesystem::path path = folder.path() / "a.db";
  {
    ASSERT_OK_AND_ASSIGN(const auto database, Database::Open(path));
    ASSERT_OK(Migrate(*database, Time(), /*up_to=*/GetParam()));
    ASSERT_OK(
        database->RunScript("INSERT INTO sites VALUES ('berlin', 'enrolled', 'f', 0);"
                            "INSERT INTO studies VALUES ('tiny', 'd', 'text', 'running', 0, 0, 1);"
                            "INSERT INTO participants VALUES "
                            "('tiny', 'berlin', 7, 2, 0, 0, 1, '1,2', 0, 1, '3,4', 0, 1, 0)"));
  }

  std::vector<JournaledStudy> studies;
  {
    ASSERT_OK_AND_ASSIGN(const auto journal, SqliteJournal::Open(path));
    ASSERT_OK_AND_ASSIGN(studies, journal->Studies());
  }

  ASSERT_EQ(studies.size(), 1);
  EXPECT_EQ(studies[0].standard, std::vector<double>());
  ASSERT_EQ(studies[0].participants.size(), 1);
  EXPECT_EQ(studies[0].participants[0].cohort.training_cases, 7);
  EXPECT_EQ(studies[0].participants[0].cohort.standard, CaseSum());
  ASSERT_OK_AND_ASSIGN(const auto database, Database::Open(path));
  EXPECT_THAT(Count(*database, "SELECT max(version) FROM migrations"), IsOkAndHolds(Ge(5)));
  EXPECT_THAT(Count(*database, "SELECT count(*) FROM certificates"), IsOkAndHolds(0));
  EXPECT_THAT(Count(*database, "SELECT count(*) FROM sites"), IsOkAndHolds(1));
}

TEST(Migrations, RefuseAJournalOfANewerServer) {
  const TemporaryDirectory folder;
  ASSERT_OK_AND_ASSIGN(const auto database, Database::Open(folder.path() / "a.db"));
  ASSERT_OK(Migrate(*database, Time()));
  ASSERT_OK(Migrate(*database, Time())) << "a second time does nothing";
  EXPECT_THAT(Count(*database, "SELECT count(*) FROM migrations"), IsOkAndHolds(Ge(5)));
  ASSERT_OK(database->Run("INSERT INTO migrations VALUES (99, 0)"));

  EXPECT_THAT(Migrate(*database, Time()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("schema version 99"), HasSubstr("update the server"))));
}

}  // namespace
}  // namespace isoscan
