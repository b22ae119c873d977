/// `isoscan-client import` and `export`, `isoscan-server import`, and between them a study that
/// starts from what was imported: real programs.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/process/exit_code.h"
#include "common/study/initial_weights.h"
#include "common/study/study.h"
#include "common/weights/safetensors.h"
#include "tests/end_to_end/federation_fixture.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

class InteropCommands : public FederationTest {
 protected:
  void SetUp() override {
    ASSERT_OK(WriteFileAtomically(study_, SmallStudy(1)));
    ASSERT_OK_AND_ASSIGN(Study other, ParseStudy(SmallStudy(1), "study.toml"));
    other.seed = 99;
    trained_ = InitialWeights(other);
    ASSERT_OK(WriteSafetensors(weights_, trained_, {}));
  }

  /// The small study that starts from weights; each site also trains alone.
  static std::string StudyFrom(const NamedTensors& weights) {
    std::string toml = SmallStudy(1, "[evaluation]\nlocal_only = true\n");
    const std::string line = fmt::format("initial_weights = \"{}\"\n", WeightsDigest(weights));
    return toml.insert(toml.find("[training]"), line);
  }

  /// The exit code; what the program printed is in `log_`.
  int Run(const std::string& program, std::vector<std::string> arguments) {
    std::error_code ignored;
    fs::remove(log_, ignored);
    arguments.insert(arguments.begin(), (Programs() / program).string());
    auto child = ChildProcess::Start(
        {.title = program, .arguments = std::move(arguments), .log = log_, .environment = {}});
    EXPECT_OK(child);
    EXPECT_TRUE(child->WaitFor(kPatience, {})) << program << " hangs";
    return child->exit_code().value_or(-1);
  }
  int Import(const fs::path& weights) {
    return Run("isoscan-client",
               {"import", weights.string(), model_.string(), "--study", study_.string()});
  }
  int Sandbox(const std::vector<std::string>& more) {
    std::vector<std::string> arguments{
        "run",   study_.string(), "--site",      "north=" + cohort_.string(),
        "--out", out_.string(),   "--keep-state"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Run("isoscan-sandbox", std::move(arguments));
  }

  static constexpr int kUsage = static_cast<int>(ExitCode::kUsage);

  const fs::path log_ = folder_.path() / "log";
  const fs::path study_ = folder_.path() / "study.toml";
  const fs::path weights_ = folder_.path() / "weights.safetensors";
  const fs::path model_ = folder_.path() / "model.safetensors";
  const fs::path out_ = folder_.path() / "out";
  fs::path cohort_ = folder_.path();
  NamedTensors trained_;
};

TEST_F(InteropCommands, StartAStudyFromImportedWeightsAndExportWhatBecameOfThem) {
  cohort_ = MakeCohort("north", 1, 0);
  ASSERT_EQ(Import(weights_), 0) << TextOf(log_);
  EXPECT_THAT(TextOf(log_), HasSubstr("initial_weights = \"" + WeightsDigest(trained_) + "\"\n"));
  ASSERT_OK(WriteFileAtomically(study_, StudyFrom(trained_)));

  ASSERT_EQ(Sandbox({"--initial-weights", model_.string(), "--threads", "1"}), 0) << TextOf(log_);

  std::map<std::string, bool> is_the_start;
  for (const auto& entry : fs::directory_iterator(out_ / "state" / "server" / "models")) {
    if (entry.path().extension() != ".safetensors") continue;  // The sums of its blocks.
    ASSERT_OK_AND_ASSIGN(const SafetensorsFile file, SafetensorsFile::Open(entry.path()));
    if (!file.metadata().contains("round")) continue;  // As imported.
    is_the_start[file.metadata().at("round")] = file.ReadAll() == trained_;
  }
  EXPECT_THAT(is_the_start, ElementsAre(Pair("0", true), Pair("1", false)));
  const nlohmann::json report = nlohmann::json::parse(TextOf(out_ / "report.json"));
  const nlohmann::json& site = report["sites"][0];
  // Alone, the one site does what it did in the study: from the same start to the same scores.
  EXPECT_GT(site["dice"]["mean"], 0.1);
  EXPECT_EQ(site["local_only"]["dice"]["mean"], site["dice"]["mean"]) << site.dump(1);

  const fs::path exported = folder_.path() / "exported";
  ASSERT_EQ(Run("isoscan-client", {"export", exported.string(), "--study", study_.string(),
                                   "--model", (out_ / "model.safetensors").string()}),
            0)
      << TextOf(log_);
  EXPECT_TRUE(fs::exists(exported / "fold_all" / "checkpoint_final.pth"));
}

TEST_F(InteropCommands, RefuseWhatDoesNotFitAndWriteNothing) {
  ASSERT_OK_AND_ASSIGN(const Study study, LoadStudy(study_));
  ASSERT_OK(WriteSafetensors(weights_, trained_, WeightsMetadataOf(study, 1)));
  // Two stages are too few for a DynUNet.
  EXPECT_EQ(Run("isoscan-client", {"export", out_.string(), "--format", "dynunet", "--study",
                                   study_.string(), "--model", weights_.string()}),
            kUsage);
  EXPECT_THAT(TextOf(log_), HasSubstr("at least 3 stages, the study 2"));

  const std::string head = "decoder.seg_layers.0.bias";
  NamedTensors weights = trained_;
  weights.erase(head);
  ASSERT_OK(WriteSafetensors(weights_, weights, {}));
  EXPECT_EQ(Import(weights_), kUsage);
  EXPECT_THAT(TextOf(log_), HasSubstr(head + " is missing"));

  weights[head] = {.shape = {3}, .values = {0, 0, 0}};
  ASSERT_OK(WriteSafetensors(weights_, weights, {}));
  EXPECT_EQ(Import(weights_), kUsage);
  EXPECT_THAT(TextOf(log_), AllOf(HasSubstr(head), HasSubstr("[3]"), HasSubstr("[2]")));

  weights[head] = {.shape = {2}, .values = {0, std::numeric_limits<float>::quiet_NaN()}};
  ASSERT_OK(WriteSafetensors(weights_, weights, {}));
  EXPECT_EQ(Import(weights_), kUsage);
  EXPECT_THAT(TextOf(log_), HasSubstr(head + " has the value nan at index 1"));
  EXPECT_FALSE(fs::exists(model_));
  EXPECT_FALSE(fs::exists(out_));
}

// The smallest archive and the smallest pickle that would run a program, were they ever read.
TEST_F(InteropCommands, ReadNoPickle) {
  const std::string archive("PK\x03\x04\x00\x00\x08\x08\x00\x00", 10);
  const std::string pickle(
      "\x80\x02"
      "cposix\nsystem\nX\x06\x00\x00\x00"
      "reboot\x85R.",
      32);
  for (const std::string& bytes : {archive, pickle}) {
    const fs::path file = folder_.path() / "checkpoint_final.pth";
    ASSERT_OK(WriteFileAtomically(file, bytes));
    EXPECT_EQ(Import(file), kUsage) << TextOf(log_);
    EXPECT_THAT(TextOf(log_), AllOf(HasSubstr("checkpoint_final.pth"), HasSubstr("PyTorch"),
                                    HasSubstr("deploy/convert_model.py")));
  }
  EXPECT_FALSE(fs::exists(model_));
}

TEST_F(InteropCommands, StartNoStudyFromOtherWeightsThanItNames) {
  NamedTensors others = trained_;
  others.at("decoder.seg_layers.0.bias").values[0] += 1;
  ASSERT_OK(WriteFileAtomically(study_, StudyFrom(others)));

  EXPECT_EQ(Import(weights_), kUsage);
  EXPECT_THAT(TextOf(log_),
              AllOf(HasSubstr(WeightsDigest(others)), HasSubstr(WeightsDigest(trained_))));
  EXPECT_EQ(Sandbox({"--initial-weights", weights_.string()}), kUsage);
  EXPECT_THAT(TextOf(log_),
              AllOf(HasSubstr(WeightsDigest(others)), HasSubstr(WeightsDigest(trained_))));
  EXPECT_EQ(Sandbox({}), kUsage);
  EXPECT_THAT(TextOf(log_),
              AllOf(HasSubstr(WeightsDigest(others)), HasSubstr("--initial-weights FILE")));
  ASSERT_OK(WriteFileAtomically(study_, SmallStudy(1)));
  EXPECT_EQ(Sandbox({"--initial-weights", weights_.string()}), kUsage);
  EXPECT_THAT(TextOf(log_), HasSubstr("drawn from its seed"));
  EXPECT_FALSE(fs::exists(out_));
}

TEST_F(InteropCommands, ImportIntoAServerThatRuns) {
  ASSERT_OK(federation_.InitServer({}));
  ASSERT_OK(WriteFileAtomically(study_, StudyFrom(trained_)));
  const Command create = federation_.Admin({"study", "create", study_.string()});
  EXPECT_THAT(RunToEnd(create, {}), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(TextOf(create.log),
              AllOf(HasSubstr(WeightsDigest(trained_)), HasSubstr("isoscan-server import")));

  EXPECT_EQ(Run("isoscan-server",
                {"import", weights_.string(), "--state", (folder_.path() / "nowhere").string()}),
            static_cast<int>(ExitCode::kData));
  EXPECT_THAT(TextOf(log_), HasSubstr("nowhere"));
  ASSERT_EQ(Run("isoscan-server",
                {"import", weights_.string(), "--state", federation_.server_state().string()}),
            0)
      << TextOf(log_);

  EXPECT_THAT(TextOf(log_), HasSubstr(WeightsDigest(trained_)));
  EXPECT_OK(RunToEnd(create, {}));
}

}  // namespace
}  // namespace isoscan
