#include "server/state_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "common/transfer/chunks.h"
#include "common/weights/sha256.h"
#include "server/aggregation_server.h"
#include "server/storage/sqlite_journal.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/server/rpc/running_server.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::MatchesRegex;

constexpr Endpoint LocalPort(int port) { return {.host = "127.0.0.1", .port = port}; }

/// The lines of what is well, if all is; otherwise the first fault.
absl::StatusOr<std::vector<std::string>> WellIn(const StateFolder& folder) {
  ASSIGN_OR_RETURN(const StateFindings findings, CheckState(folder));
  if (!findings.faults.empty()) return findings.faults.front();
  return findings.well;
}

absl::Status Initialize(const fs::path& path) {
  return InitializeState({path}, LocalPort(0), LocalPort(0), SystemClock().Now());
}

TEST(StateFolder, IsMadePrivateAndWhole) {
  const TemporaryDirectory directory;
  const StateFolder folder{directory.path() / "state"};

  ASSERT_OK(Initialize(folder.root));

  EXPECT_EQ(fs::status(folder.root).permissions(), fs::perms::owner_all);
  for (const fs::path& secret : {folder.authority() / "authority.key", folder.tls() / "server.key",
                                 folder.operator_files() / "operator.key"}) {
    EXPECT_EQ(fs::status(secret).permissions(), fs::perms::owner_read | fs::perms::owner_write)
        << secret;
  }
  EXPECT_THAT(WellIn(folder), IsOkAndHolds(Contains(HasSubstr("0 sites, 0 studies"))));
  // Nothing is left beside it.
  EXPECT_EQ(std::distance(fs::directory_iterator(directory.path()), fs::directory_iterator()), 1);
}

TEST(StateFolder, IsNeverMadeOverAnother) {
  const TemporaryDirectory directory;
  ASSERT_OK(Initialize(directory.path() / "state"));

  EXPECT_THAT(Initialize(directory.path() / "state"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("not empty")));
  EXPECT_THAT(Initialize(directory.path() / "no" / "state"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("there is no folder")));
  EXPECT_OK(WellIn({directory.path() / "state"}));
}

TEST(StateFolder, FillsAnEmptyFolder) {
  const TemporaryDirectory directory;

  ASSERT_OK(Initialize(directory.path()));

  EXPECT_OK(WellIn({directory.path()}));
}

TEST(StateFolder, ServesOneServerOnly) {
  const RunningServer server;
  const SystemClock clock;

  EXPECT_THAT(WellIn(server.folder()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("another isoscan-server")));
  EXPECT_THAT(StateLock::Take({"/nowhere"}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("isoscan-server init")));
}

TEST(StateFolder, CheckFindsAChangedModelAndAMissingOne) {
  RunningServer server;
  v1::CreateStudyRequest request;
  request.set_toml(TinyStudyToml());
  ASSERT_OK(
      Call(*server.Operations(server.Operator()), &v1::Operations::Stub::CreateStudy, request));
  server.Stop();
  EXPECT_THAT(WellIn(server.folder()), IsOkAndHolds(Contains(HasSubstr("1 files"))));

  fs::path model;
  for (const fs::directory_entry& entry : fs::directory_iterator(server.folder().models())) {
    if (entry.path().extension() == ".safetensors") model = entry.path();
  }
  std::ofstream(model, std::ios::app) << "x";
  EXPECT_THAT(WellIn(server.folder()),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr(model.filename().string())));
  fs::remove(model);
  EXPECT_THAT(WellIn(server.folder()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(model.filename().string())));
}

TEST(StateFolder, CheckTellsEveryFaultAndWhatNothingNames) {
  RunningServer server;
  v1::CreateStudyRequest request;
  request.set_toml(TinyStudyToml());
  ASSERT_OK(
      Call(*server.Operations(server.Operator()), &v1::Operations::Stub::CreateStudy, request));
  server.Stop();
  const StateFolder& folder = server.folder();
  ASSERT_OK_AND_ASSIGN(StateFindings findings, CheckState(folder));
  EXPECT_THAT(findings.unnamed, IsEmpty());

  fs::create_directories(folder.uploads() / "gone" / "study" / "round-1");
  std::ofstream(folder.uploads() / "gone" / "study" / "round-1" / "left") << "x";
  std::ofstream(folder.models() / (std::string(64, 'e') + ".safetensors")) << "x";
  for (const fs::directory_entry& entry : fs::directory_iterator(folder.models())) {
    if (entry.path().filename().string().starts_with("eeee")) continue;
    std::ofstream(entry.path(), std::ios::app) << "x";
  }
  fs::permissions(folder.authority() / "authority.key",
                  fs::perms::owner_read | fs::perms::group_read);
  fs::remove(folder.tls() / "server.key");
  ASSERT_OK_AND_ASSIGN(findings, CheckState(folder));

  ASSERT_EQ(findings.faults.size(), 3U);
  EXPECT_THAT(findings.faults[0], StatusIs(absl::StatusCode::kPermissionDenied));
  EXPECT_THAT(findings.faults[1], StatusIs(absl::StatusCode::kNotFound, HasSubstr("server.key")));
  EXPECT_THAT(findings.faults[2], StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(findings.unnamed, ElementsAre("models/" + std::string(64, 'e') + ".safetensors",
                                            "uploads/gone/study/round-1/left"));
  EXPECT_THAT(findings.well, Contains(HasSubstr("undamaged")));
}

TEST(StateFolder, CheckFindsAStateThatIsNotWhatTheJournalNames) {
  const TemporaryDirectory directory;
  const StateFolder folder{directory.path() / "state"};
  ASSERT_OK(Initialize(folder.root));
  const std::string digest(64, 'a');
  {
    ASSERT_OK_AND_ASSIGN(const auto journal, SqliteJournal::Open(folder.journal()));
    const fs::path model = folder.models() / "empty";
    ASSERT_OK(WriteFileAtomically(model, ""));
    const std::string empty = Sha256Of("");
    fs::rename(model, folder.models() / (empty + ".safetensors"));
    Study study;
    study.name = "tiny";
    ASSERT_OK(journal->CreateStudy(study, {.digest = empty}, Time{}));
    ASSERT_OK(journal->StartStudy("tiny", {}, {}, Time{}));
    RoundRecord closed;
    closed.round = 1;
    ASSERT_OK(journal->CloseRound(
        "tiny", {closed, {.round = 1, .digest = empty}, {.digest = digest, .bytes = 4}}, {}));
  }
  ASSERT_OK_AND_ASSIGN(StateFindings findings, CheckState(folder));
  EXPECT_THAT(findings.faults,
              ElementsAre(StatusIs(absl::StatusCode::kNotFound, HasSubstr(digest + ".state"))));
  ASSERT_OK(WriteFileAtomically(folder.models() / (digest + ".state"), "none"));
  ASSERT_OK_AND_ASSIGN(findings, CheckState(folder));
  EXPECT_THAT(findings.faults, ElementsAre(StatusIs(absl::StatusCode::kDataLoss,
                                                    HasSubstr(digest + ".state is damaged"))));
  EXPECT_THAT(findings.unnamed, IsEmpty());
}

TEST(StateFolder, CheckFindsAKeyThatOthersMayRead) {
  const TemporaryDirectory directory;
  const StateFolder folder{directory.path() / "state"};
  ASSERT_OK(Initialize(folder.root));
  fs::permissions(folder.authority() / "authority.key",
                  fs::perms::owner_read | fs::perms::group_read);

  EXPECT_THAT(WellIn(folder), StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("chmod")));
}

TEST(AggregationServer, SaysThatThePortIsTaken) {
  const RunningServer first;
  const TemporaryDirectory directory;
  const StateFolder folder{directory.path() / "state"};
  ASSERT_OK(Initialize(folder.root));
  ASSERT_OK_AND_ASSIGN(ServerConfig config, LoadServerConfig(folder.config()));
  ASSERT_OK_AND_ASSIGN(config.listen, ParseEndpoint(first.address()));
  const SystemClock clock;

  EXPECT_THAT(AggregationServer::Start(folder, config, clock),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("cannot listen on " + first.address()),
                             HasSubstr("another program"), HasSubstr("--listen"))));
  // 192.0.2.0/24 is for documentation: no machine has it.
  config.listen = {.host = "192.0.2.1", .port = 0};
  EXPECT_THAT(AggregationServer::Start(folder, config, clock),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no such address")));
}

TEST(AggregationServer, RenewsItsCertificateBeforeItEnds) {
  const TemporaryDirectory directory;
  const StateFolder folder{directory.path() / "state"};
  const SystemClock clock;
  const Time a_year_ago = clock.Now() - std::chrono::hours(24) * 380;
  ASSERT_OK(InitializeState(folder, LocalPort(0), LocalPort(0), a_year_ago));
  ASSERT_OK_AND_ASSIGN(const ServerConfig config, LoadServerConfig(folder.config()));
  EXPECT_THAT(WellIn(folder), IsOkAndHolds(Contains(MatchesRegex("server.pem: 1[67] days left"))));

  ASSERT_OK_AND_ASSIGN(auto server, AggregationServer::Start(folder, config, clock));
  server.reset();

  EXPECT_THAT(WellIn(folder), IsOkAndHolds(Contains(MatchesRegex("server.pem: 39[67] days left"))));
}

}  // namespace
}  // namespace isoscan
