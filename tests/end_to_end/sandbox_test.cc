#include <nlohmann/json.hpp>

#include "common/process/exit_code.h"
#include "tests/end_to_end/federation_fixture.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using SandboxTest = FederationTest;

/// Processes whose command line holds `text`.
int ProcessesWith(const std::string& text) {
  int found = 0;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    std::ifstream file(entry.path() / "cmdline", std::ios::binary);
    std::ostringstream line;
    line << file.rdbuf();
    if (line.str().find(text) != std::string::npos) ++found;
  }
  return found;
}

Command Sandbox(const fs::path& log, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), (fs::path(ISOSCAN_PROGRAMS) / "isoscan-sandbox").string());
  return {
      .title = "isoscan-sandbox", .arguments = std::move(arguments), .log = log, .environment = {}};
}

TEST_F(SandboxTest, LeavesReportModelPlanAndLogsAndNothingElse) {
  const fs::path study = folder_.path() / "study.toml";
  ASSERT_OK(WriteFileAtomically(study, SmallStudy(1)));
  const fs::path out = folder_.path() / "out";
  const fs::path log = folder_.path() / "sandbox.log";

  ASSERT_OK(RunToEnd(
      Sandbox(log,
              {"run", study.string(), "--site", "north=" + MakeCohort("north", 1, 0).string(),
               "--site", "south=" + MakeCohort("south", 5, 9).string(), "--out", out.string()}),
      {}));

  std::vector<std::string> left;
  for (const auto& entry : fs::directory_iterator(out)) {
    left.push_back(entry.path().filename().string());
  }
  EXPECT_THAT(left, ::testing::UnorderedElementsAre("report.html", "report.json",
                                                    "model.safetensors", "plan.toml", "logs"));
  EXPECT_THAT(TextOf(log), HasSubstr("report: " + (out / "report.html").string() + "\n"));
}

/// One of the server's optimisers, one robust and one fair aggregation, with the real programs.
TEST_F(SandboxTest, RunsStudiesThatAggregateOtherwiseThanByAMean) {
  const std::string north = "north=" + MakeCohort("north", 1, 0).string();
  const std::string south = "south=" + MakeCohort("south", 5, 9).string();
  for (const std::string aggregation : {"fedadam", "median", "qfedavg"}) {
    SCOPED_TRACE(aggregation);
    const fs::path study = folder_.path() / (aggregation + ".toml");
    ASSERT_OK(WriteFileAtomically(study, SmallStudy(2, "aggregation = \"" + aggregation + "\"\n")));
    const fs::path out = folder_.path() / aggregation;
    ASSERT_OK(RunToEnd(
        Sandbox(folder_.path() / "sandbox.log",
                {"run", study.string(), "--site", north, "--site", south, "--out", out.string()}),
        {}));

    const auto report = nlohmann::json::parse(TextOf(out / "report.json"));
    ASSERT_EQ(report.at("participation").size(), 2U);
    for (const auto& round : report.at("participation")) {
      double sum = 0;
      for (const auto& site : round.at("sites")) {
        EXPECT_EQ(site.at("outcome"), "contributed");
        sum += site.at("weight").get<double>();
      }
      EXPECT_NEAR(sum, 1, 1e-9);
    }
    for (const auto& site : report.at("sites")) {
      EXPECT_GT(site.at("dice").at("mean").get<double>(), 0) << site;
    }
    EXPECT_THAT(TextOf(out / "report.html"), HasSubstr(aggregation));
  }
}

/// Two variants, federated, and a scanner that neither trains on; the second call finds everything
/// done.
TEST_F(SandboxTest, ComparesVariantsOnAnUnseenScannerAndKeepsWhatIsDone) {
  const fs::path study = folder_.path() / "study.toml";
  ASSERT_OK(WriteFileAtomically(study, SmallStudy(2)));
  const fs::path axes = folder_.path() / "axes.toml";
  ASSERT_OK(
      WriteFileAtomically(axes,
                          "[[axis]]\nname = \"layers\"\n[[axis.option]]\nname = \"instance\"\n"
                          "[[axis.option]]\nname = \"group\"\nset.network.norm = \"group\"\n"));
  const fs::path out = folder_.path() / "out";
  const fs::path log = folder_.path() / "sandbox.log";
  const Command compare =
      Sandbox(log, {"compare", study.string(), "--arms", "federated", "--variants", axes.string(),
                    "--site", "north=" + MakeCohort("north", 1, 0).string(), "--site",
                    "south=" + MakeCohort("south", 5, 9).string(), "--unseen",
                    "east=" + MakeCohort("east", 30, -4).string(), "--out", out.string()});

  ASSERT_OK(RunToEnd(compare, {}));

  const nlohmann::json json = nlohmann::json::parse(TextOf(out / "comparison.json"));
  ASSERT_EQ(json.at("rows").size(), 2U);
  for (const nlohmann::json& row : json.at("rows")) {
    EXPECT_GT(row.at("dice").at("mean").get<double>(), 0.5) << row;
    EXPECT_LE(row.at("dice").at("low"), row.at("dice").at("high"));
    ASSERT_EQ(row.at("unseen").size(), 1U);
    EXPECT_EQ(row.at("unseen")[0].at("cases"), 6);
    EXPECT_GT(row.at("unseen")[0].at("dice").get<double>(), 0.5) << row;
  }
  EXPECT_THAT(TextOf(log), HasSubstr("unseen east"));
  const auto written = fs::last_write_time(out / "group" / "federated" / "unseen-east.json");
  ASSERT_OK(RunToEnd(compare, {}));
  EXPECT_EQ(fs::last_write_time(out / "group" / "federated" / "unseen-east.json"), written);
  EXPECT_THAT(TextOf(log), HasSubstr("group, federated: done before, kept"));

  // Another text of the study, and other cohorts, under the same OUT: their results are not these.
  ASSERT_OK(WriteFileAtomically(study, SmallStudy(3)));
  EXPECT_THAT(RunToEnd(compare, {}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("plan.toml differs")));
  ASSERT_OK(WriteFileAtomically(study, SmallStudy(2)));
  Command fewer_cohorts = compare;
  fewer_cohorts.arguments.resize(fewer_cohorts.arguments.size() - 4);
  fewer_cohorts.arguments.insert(fewer_cohorts.arguments.end(), {"--out", out.string()});
  EXPECT_THAT(RunToEnd(fewer_cohorts, {}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("other cohorts")));
}

TEST_F(SandboxTest, InterruptLeavesNoProcessAndNoResult) {
  const fs::path study = folder_.path() / "study.toml";
  ASSERT_OK(WriteFileAtomically(study, SmallStudy(1000)));
  const fs::path out = folder_.path() / "interrupted";
  const fs::path log = folder_.path() / "sandbox.log";
  auto sandbox = ChildProcess::Start(
      Sandbox(log, {"run", study.string(), "--site", "north=" + MakeCohort("north", 1, 0).string(),
                    "--out", out.string()}));
  ASSERT_OK(sandbox);
  const std::string of_this_run = out.string();
  for (int attempt = 0; attempt < 300 && ProcessesWith(of_this_run + "/state/sites") == 0;
       ++attempt) {
    sandbox->WaitFor(std::chrono::milliseconds(100), {});
  }
  ASSERT_GT(ProcessesWith(of_this_run + "/state/sites"), 0);

  sandbox->Interrupt();

  ASSERT_TRUE(sandbox->WaitFor(kPatience, {}));
  EXPECT_EQ(sandbox->exit_code(), static_cast<int>(ExitCode::kInterrupted));
  EXPECT_EQ(ProcessesWith(of_this_run), 0);
  EXPECT_FALSE(fs::exists(out / "report.json"));
}

TEST_F(SandboxTest, SaysWhatIsWrongWithTheStudy) {
  const fs::path study = folder_.path() / "study.toml";
  ASSERT_OK(WriteFileAtomically(study, SmallStudy(1, "stamina = 3\n")));
  const fs::path log = folder_.path() / "sandbox.log";
  auto sandbox = ChildProcess::Start(
      Sandbox(log, {"run", study.string(), "--site", "north=" + MakeCohort("north", 1, 0).string(),
                    "--out", (folder_.path() / "out").string()}));
  ASSERT_OK(sandbox);

  ASSERT_TRUE(sandbox->WaitFor(kPatience, {}));
  EXPECT_EQ(sandbox->exit_code(), static_cast<int>(ExitCode::kUsage));
  EXPECT_THAT(TextOf(log), HasSubstr("stamina"));
}

}  // namespace
}  // namespace isoscan
