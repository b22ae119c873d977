// Drafts: each site sends its fingerprint, the server plans from them, each site approves the plan.
#include <nlohmann/json.hpp>

#include "common/process/exit_code.h"
#include "common/study/study.h"
#include "tests/end_to_end/federation_fixture.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class PlanningTest : public FederationTest {
 protected:
  /// One case in three is held out: six of nine patients are trained on, and four of six.
  static std::string Draft(const std::string& name, const std::string& sites,
                           const std::string& training = "") {
    return "name = \"" + name + "\"\nchannels = [\"T1w\"]\nlabels = [\"ball\"]\nsites = [" + sites +
           "]\n[held_out]\nrule = \"every\"\nevery = 3\n[planning]\n"
           "[training]\nsteps_per_round = 2\n" +
           training + "[rounds]\nrounds = 1\n";
  }

  absl::Status Approve(const std::string& site, const std::string& study) {
    return RunToEnd(Client(site, {"study", "approve", study, "--yes"}), {});
  }
  /// What the command printed; it has a log of its own.
  std::string Output(Command command) {
    command.log = folder_.path() / "output.log";
    fs::remove(command.log);
    EXPECT_OK(RunToEnd(command, {}));
    return TextOf(command.log);
  }
  /// Creates the draft, lets `sites` approve it, and plans it.
  Study Plan(const std::string& draft, const std::string& name,
             const std::vector<std::string>& sites) {
    CreateStudy(draft);
    for (const std::string& site : sites) EXPECT_OK(Approve(site, name));
    const fs::path plan = folder_.path() / (name + ".plan.toml");
    EXPECT_OK(RunToEnd(federation_.Admin({"study", "plan", name, "--out", plan.string()}), {}));
    absl::StatusOr<Study> planned = LoadStudy(plan);
    EXPECT_OK(planned);
    return *std::move(planned);
  }
};

TEST_F(PlanningTest, GivesThePlanThatOneSiteWithAllCasesWouldGet) {
  ASSERT_OK(federation_.InitServer({}));
  const fs::path north = MakeCohort("north", 1, 0, 9);
  const fs::path south = MakeCohort("south", 40, -9, 9);
  const auto configure = [this](const SandboxSite& site) {
    ASSERT_OK(federation_.Enrol(site.name, {}));
    ASSERT_OK(federation_.Configure(site, "cpu", 1));
  };
  configure({.name = "north", .cohorts = {{.name = "", .folder = north}}});
  configure({.name = "south", .cohorts = {{.name = "", .folder = south}}});
  configure({.name = "small", .cohorts = {{.name = "", .folder = MakeCohort("small", 1, 0)}}});
  configure({.name = "all",
             .cohorts = {{.name = "north", .folder = north}, {.name = "south", .folder = south}}});

  const Study federated =
      Plan(Draft("federated", "\"north\", \"south\""), "federated", {"north", "south"});
  const Study pooled = Plan(Draft("pooled", "\"all\""), "pooled", {"all"});

  EXPECT_EQ(federated.training.patch_size, (Triple{16, 16, 16}));
  EXPECT_EQ(federated.training.patch_size, pooled.training.patch_size);
  EXPECT_EQ(federated.training.batch_size, pooled.training.batch_size);
  EXPECT_EQ(federated.network.features, pooled.network.features);
  EXPECT_EQ(federated.network.strides, pooled.network.strides);
  EXPECT_EQ(federated.network.kernels, pooled.network.kernels);
  EXPECT_EQ(federated.harmonization.spacing_mm, pooled.harmonization.spacing_mm);
  EXPECT_THAT(federated.toml, HasSubstr("from 12 training cases, 12 of them described"));

  const Study few = Plan(Draft("few", "\"north\", \"small\""), "few", {"north", "small"});
  EXPECT_THAT(few.toml, HasSubstr("from 10 training cases, 6 of them described"));
  EXPECT_THAT(TextOf(federation_.log("small")), HasSubstr("4 training cases are too few"));
}

TEST_F(PlanningTest, AsksEverySiteAgainBeforeAnythingStarts) {
  ASSERT_OK(federation_.InitServer({}));
  ASSERT_OK(federation_.Enrol("north", {}));
  ASSERT_OK(federation_.Configure(
      {.name = "north", .cohorts = {{.name = "", .folder = MakeCohort("north", 1, 0, 9)}}}, "cpu",
      1));
  CreateStudy(Draft("ball", "\"north\""));
  EXPECT_THAT(Output(Client("north", {"study", "show", "ball"})),
              AllOf(HasSubstr("Approving the draft sends"), HasSubstr("not approved")));
  ASSERT_OK(Approve("north", "ball"));
  EXPECT_THAT(TextOf(federation_.log("north")), HasSubstr("the fingerprint of 6 training cases"));
  EXPECT_THAT(RunToEnd(federation_.Admin({"study", "start", "ball"}), {}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("is a draft")));

  const nlohmann::json plan =
      nlohmann::json::parse(Output(federation_.Admin({"study", "plan", "ball", "--json"})));

  EXPECT_EQ(plan.at("patch_size"), nlohmann::json({16, 16, 16}));
  EXPECT_EQ(nlohmann::json::parse(Output(federation_.Admin({"study", "plan", "ball", "--json"}))),
            plan);
  EXPECT_THAT(RunToEnd(federation_.Admin({"study", "start", "ball"}), {}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("north")));
  EXPECT_THAT(Output(Client("north", {"study", "list"})), HasSubstr("planned, approve again"));
  EXPECT_THAT(Output(Client("north", {"check"})),
              HasSubstr("ball has been planned since its draft was approved here"));
  EXPECT_THAT(Output(Client("north", {"study", "show", "ball"})),
              AllOf(HasSubstr("patches of 16 x 16 x 16"), HasSubstr("GiB for training"),
                    HasSubstr(plan.at("digest").get<std::string>())));

  ASSERT_OK(Approve("north", "ball"));
  ASSERT_OK(RunToEnd(federation_.Admin({"study", "start", "ball"}), {}));
  ChildProcess client = StartClient("north");
  ASSERT_TRUE(client.WaitFor(kPatience, {}));
  EXPECT_OK(client.Outcome());
  EXPECT_THAT(Report(), HasSubstr("\"held_out_cases\": 3"));
}

TEST_F(PlanningTest, TellsASiteWhoseMemoryCannotHoldThePlanBeforeTheStart) {
  ASSERT_OK(federation_.InitServer({}));
  ASSERT_OK(federation_.Enrol("north", {}));
  // 256 patches of 32^3 voxels take some 24 GB.
  const fs::path cohort = MakeCohort("north", 1, 0, 9, /*spacing_mm=*/1);
  ASSERT_OK(federation_.Configure({.name = "north", .cohorts = {{.name = "", .folder = cohort}}},
                                  "cpu", 1));
  Plan(Draft("ball", "\"north\"", "batch_size = 256\n"), "ball", {"north"});
  const auto with_little_memory = [this](std::vector<std::string> arguments) {
    Command command = Client("north", std::move(arguments));
    command.arguments.insert(command.arguments.begin(),
                             {"/bin/sh", "-c", "ulimit -v 8000000; exec \"$@\"", "isoscan-client"});
    return command;
  };

  EXPECT_THAT(RunToEnd(with_little_memory({"study", "approve", "ball", "--yes"}), {}),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("GiB")));

  auto check = ChildProcess::Start(with_little_memory({"check"}));
  ASSERT_OK(check);
  ASSERT_TRUE(check->WaitFor(kPatience, {}));
  EXPECT_EQ(check->exit_code(), static_cast<int>(ExitCode::kResources));
  EXPECT_THAT(RunToEnd(federation_.Admin({"study", "start", "ball"}), {}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("north")));
}

TEST_F(PlanningTest, IsDoneByTheSandboxByItself) {
  const fs::path draft = folder_.path() / "draft.toml";
  ASSERT_OK(WriteFileAtomically(draft, Draft("ball", "\"north\", \"south\"")));
  const fs::path out = folder_.path() / "out";
  const Command run{
      .title = "isoscan-sandbox",
      .arguments = {(Programs() / "isoscan-sandbox").string(), "run", draft.string(), "--site",
                    "north=" + MakeCohort("north", 1, 0, 9).string(), "--site",
                    "south=" + MakeCohort("south", 5, 9, 9).string(), "--out", out.string()},
      .log = folder_.path() / "sandbox.log",
      .environment = {}};

  ASSERT_OK(RunToEnd(run, {}));

  ASSERT_OK_AND_ASSIGN(const Study plan, LoadStudy(out / "plan.toml"));
  EXPECT_FALSE(plan.planning.has_value());
  EXPECT_EQ(plan.training.patch_size, (Triple{16, 16, 16}));
  EXPECT_EQ(TextOf(out / "draft.toml"), TextOf(draft));
  EXPECT_TRUE(fs::exists(out / "model.safetensors"));
  EXPECT_THAT(TextOf(run.log), HasSubstr("2 patches of 16 x 16 x 16"));
  EXPECT_FALSE(fs::exists(out / "state"));
}

}  // namespace
}  // namespace isoscan
