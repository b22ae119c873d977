#include <csignal>
#include <string>
#include <vector>

#include "common/process/exit_code.h"
#include "common/weights/safetensors.h"
#include "tests/end_to_end/federation_fixture.h"
#include <sys/resource.h>

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

/// Replaces what stands between `begin` and the end of its line.
std::string WithLine(std::string text, const std::string& begin, const std::string& line) {
  const std::size_t at = text.find(begin);
  EXPECT_NE(at, text.npos) << begin;
  return text.replace(at, text.find('\n', at) - at, line);
}

/// The table of docs/training.md, with real programs.
class BadInputTest : public FederationTest {
 protected:
  static std::string Named(const std::string& name, int steps = 12) {
    std::string text = WithLine(SmallStudy(1), "name = ", "name = \"" + name + "\"");
    return WithLine(text, "steps_per_round", "steps_per_round = " + std::to_string(steps));
  }

  void Enrol(const std::string& site, const fs::path& cohort) {
    ASSERT_OK(federation_.Enrol(site, {}));
    ASSERT_OK(federation_.Configure({.name = site, .cohorts = {{.name = "", .folder = cohort}}},
                                    "cpu", 1));
    const fs::path config = federation_.site_folder(site) / "client.toml";
    ASSERT_OK(WriteFileAtomically(config, TextOf(config) + "\n[checkpoint]\nevery_steps = 1\n"));
  }

  absl::Status Approve(const std::string& site, const std::string& study) {
    return RunToEnd(Client(site, {"study", "approve", study, "--yes"}), {});
  }

  void Start(const std::string& study) {
    ASSERT_OK(RunToEnd(federation_.Admin({"study", "start", study}), {}));
  }

  absl::Status Run(const std::string& site) {
    return RunToEnd(Client(site, {"run", "--until-ended"}), {});
  }

  /// Kills the site's client once it has written what `is_there` waits for.
  template <typename IsThere>
  void KillOnce(const std::string& site, const IsThere& is_there) {
    ChildProcess client = StartClient(site);
    while (!is_there()) {
      ASSERT_FALSE(client.WaitFor(std::chrono::milliseconds(1), {})) << Log(site);
    }
    ASSERT_EQ(::kill(client.id(), SIGKILL), 0);
    ASSERT_TRUE(client.WaitFor(kPatience, {}));
  }

  std::vector<fs::path> FilesIn(const std::string& site, const std::string& folder,
                                const std::string& study) const {
    std::vector<fs::path> files;
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(
             federation_.site_folder(site) / "state" / folder / study, ignored)) {
      if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
    }
    return files;
  }

  std::string FinalModel(const std::string& study) {
    const fs::path file = folder_.path() / (study + ".safetensors");
    EXPECT_OK(RunToEnd(
        federation_.Admin({"model", "download", study, "--round", "1", "--out", file.string()}),
        {}));
    const auto model = SafetensorsFile::Open(file);
    EXPECT_OK(model);
    return model.ok() ? EncodeSafetensors(model->ReadAll(), {}) : "";
  }

  std::string Log(const std::string& site) const { return TextOf(federation_.log(site)); }
};

TEST_F(BadInputTest, APlanThatDoesNotFitMemoryAndASiteOfOneCaseAreToldBeforeTheyApprove) {
  ASSERT_OK(federation_.InitServer({}));
  Enrol("north", MakeCohort("north", 1, 0));
  Enrol("south", MakeCohort("south", 1, 0, /*patients=*/1));
  std::string large = WithLine(Named("large"), "patch_size", "patch_size = [256, 256, 256]");
  large = WithLine(large, "batch_size", "batch_size = 4");
  CreateStudy(WithLine(large, "features", "features = [320, 320]"));
  CreateStudy(Named("small"));

  EXPECT_THAT(Approve("north", "large"),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("training in study large needs "), HasSubstr(" GiB"))));
  EXPECT_THAT(Approve("south", "small"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("this site has one case, and two are the fewest")));
  EXPECT_THAT(FilesIn("south", "prepared", "small"), ::testing::IsEmpty());
}

TEST_F(BadInputTest, VolumesSmallerThanThePatchAndAMissingLabelAreTrainedOn) {
  ASSERT_OK(federation_.InitServer({}));
  Enrol("north", MakeCohort("north", 1, 0));
  Anatomy nobody = Ball();
  nobody.labels.voxels.assign(nobody.labels.voxels.size(), 0);
  const fs::path cohort = folder_.path() / "cohorts" / "south";
  ASSERT_OK(WriteSimulatedCohort(cohort, nobody, {{.name = "ball", .values = {1}}},
                                 {.name = "south", .noise = 0.03}, {.patients = 3}));
  Enrol("south", cohort);
  // The cohorts' volumes have 16 voxels along each axis.
  CreateStudy(WithLine(Named("ball"), "patch_size", "patch_size = [16, 24, 32]"));
  ASSERT_OK(Approve("north", "ball"));
  ASSERT_OK(Approve("south", "ball"));
  EXPECT_THAT(Log("north"), Not(HasSubstr("training cases; it is learnt")));
  EXPECT_THAT(Log("south"), HasSubstr("label ball is in none of this site's training cases"));
  Start("ball");

  ChildProcess south = StartClient("south");
  EXPECT_OK(Run("north"));
  ASSERT_TRUE(south.WaitFor(kPatience, {}));
  EXPECT_OK(south.Outcome());

  EXPECT_THAT(Log("south"), AllOf(HasSubstr("label_missing study=ball label=\"ball\""),
                                  HasSubstr("trained study=ball round=1 steps=12")));
}

TEST_F(BadInputTest, ALossThatIsNoNumberEndsTrainingWithItsNameAndTheLastGoodWeights) {
  ASSERT_OK(federation_.InitServer({}));
  Enrol("north", MakeCohort("north", 1, 0));
  std::string text =
      WithLine(Named("wild", 60), "strides", "strides = [[1, 1, 1], [2, 2, 2]]\nnorm = \"none\"");
  text = WithLine(text, "optimizer", "gradient_norm_limit = 1e6");
  CreateStudy(WithLine(text, "learning_rate", "learning_rate = 10"));
  ASSERT_OK(Approve("north", "wild"));
  Start("wild");

  for (int run = 0; run < 2; ++run) {
    EXPECT_THAT(Run("north"), StatusIs(StatusCodeOf(static_cast<int>(ExitCode::kData)),
                                       AllOf(HasSubstr("study wild, round 1: the "),
                                             HasSubstr("at step "), HasSubstr("are kept in "))));
  }

  const std::vector<fs::path> kept = FilesIn("north", "checkpoints", "wild");
  ASSERT_EQ(kept.size(), 1U);
  ASSERT_OK_AND_ASSIGN(const SafetensorsFile weights, SafetensorsFile::Open(kept[0]));
  for (const auto& [name, tensor] : weights.ReadAll()) {
    for (const float value : tensor.values) ASSERT_TRUE(std::isfinite(value)) << name;
  }
  EXPECT_THAT(Log("north"), HasSubstr("training_resumed study=wild"));
}

TEST_F(BadInputTest, ADiskThatIsFullWhileCasesAreKeptAndADamagedCaseChangeNothingOfTheResult) {
  ASSERT_OK(federation_.InitServer({}));
  Enrol("north", MakeCohort("north", 1, 0, 6, /*spacing_mm=*/1));
  for (const std::string study : {"fine", "damaged", "full"}) CreateStudy(Named(study));
  ASSERT_OK(Approve("north", "fine"));
  Start("fine");
  ASSERT_OK(Run("north"));
  ASSERT_OK(Approve("north", "damaged"));
  Start("damaged");
  const std::vector<fs::path> cases = FilesIn("north", "prepared", "damaged");
  ASSERT_EQ(cases.size(), 6U);
  std::fstream(cases[2], std::ios::in | std::ios::out | std::ios::binary).seekp(90'000) << '?';
  ASSERT_OK(Run("north"));
  EXPECT_THAT(Log("north"), HasSubstr(cases[2].filename().string() + " is damaged"));

  // Enough for a model and too little for a case of 32 x 32 x 32 voxels.
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{.rlim_cur = 100'000, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status approved = Approve("north", "full");
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_OK(approved);
  EXPECT_TRUE(FilesIn("north", "prepared", "full").empty());
  Start("full");
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status run = Run("north");
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_OK(run);

  EXPECT_THAT(Log("north"), AllOf(HasSubstr("cache_trouble study=full"),
                                  HasSubstr("the cases that are not kept stay in memory")));
  const std::string fine = FinalModel("fine");
  EXPECT_EQ(FinalModel("damaged"), fine);
  EXPECT_EQ(FinalModel("full"), fine);
}

TEST_F(BadInputTest, AClientKilledWhileItKeepsCasesAndACheckpointOfAnotherPlanChangeNothing) {
  ASSERT_OK(federation_.InitServer({}));
  Enrol("north", MakeCohort("north", 1, 0));
  for (const std::string study : {"fine", "other", "odd"}) {
    CreateStudy(Named(study, study == "other" ? 5000 : 100));
  }
  ASSERT_OK(Approve("north", "fine"));
  Start("fine");
  KillOnce("north", [&] { return !FilesIn("north", "checkpoints", "fine").empty(); });
  fs::remove_all(federation_.site_folder("north") / "state" / "prepared" / "fine");
  KillOnce("north", [&] { return FilesIn("north", "prepared", "fine").size() >= 3; });
  ASSERT_OK(Run("north"));

  ASSERT_OK(Approve("north", "other"));
  Start("other");
  KillOnce("north", [&] { return !FilesIn("north", "checkpoints", "other").empty(); });
  const std::string of_other = TextOf(FilesIn("north", "checkpoints", "other").front());
  ASSERT_OK(RunToEnd(Client("north", {"study", "withdraw", "other"}), {}));
  ASSERT_OK(Approve("north", "odd"));
  Start("odd");
  KillOnce("north", [&] { return !FilesIn("north", "checkpoints", "odd").empty(); });
  ASSERT_OK(WriteFileAtomically(FilesIn("north", "checkpoints", "odd").front(), of_other));
  ASSERT_OK(Run("north"));

  EXPECT_THAT(Log("north"),
              AllOf(HasSubstr("checkpoint_trouble study=odd"),
                    HasSubstr("was written by other training"), HasSubstr(".set-aside")));
  EXPECT_EQ(FinalModel("odd"), FinalModel("fine"));
}

}  // namespace
}  // namespace isoscan
