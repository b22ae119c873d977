#include <nlohmann/json.hpp>

#include <csignal>
#include <ostream>
#include <thread>

#include "common/random/philox.h"
#include "common/weights/safetensors.h"
#include "tests/end_to_end/federation_fixture.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// What a study adds to SmallStudy, and what a site has of its own with it.
struct Strategy {
  std::string name;
  std::string network;
  std::string training;
  std::string aggregation = "fedavg";
  bool own_model = false;
};
std::ostream& operator<<(std::ostream& out, const Strategy& strategy) {
  return out << strategy.name;
}

/// Real programs that train with a strategy.
class SlowStrategyTest : public FederationTest, public testing::WithParamInterface<Strategy> {
 protected:
  static std::string StudyText(const std::string& name, const Strategy& strategy, int rounds,
                               int steps) {
    std::string text = SmallStudy(rounds, "aggregation = \"" + strategy.aggregation + "\"\n");
    const auto replace = [&](const std::string& from, const std::string& to) {
      text.replace(text.find(from), from.size(), to);
    };
    replace("ball", name);
    replace("[training]\n", strategy.network + "\n[training]\n" + strategy.training + "\n");
    replace("steps_per_round = 12", "steps_per_round = " + std::to_string(steps));
    if (strategy.aggregation == "scaffold") {
      replace("optimizer = \"adamw\"\nlearning_rate = 0.01",
              "optimizer = \"sgd\"\nmomentum = 0\nlearning_rate = 0.05");
    }
    return text;
  }

  void Start(const std::string& study, const std::vector<std::string>& sites) {
    for (const std::string& site : sites) {
      ASSERT_OK(RunToEnd(Client(site, {"study", "approve", study, "--yes"}), {}));
    }
    ASSERT_OK(RunToEnd(federation_.Admin({"study", "start", study}), {}));
  }

  void RunClients(const std::vector<std::string>& sites) {
    std::vector<ChildProcess> clients;
    for (const std::string& site : sites) clients.push_back(StartClient(site));
    for (ChildProcess& client : clients) {
      ASSERT_TRUE(client.WaitFor(kPatience, {}));
      ASSERT_OK(client.Outcome());
    }
  }

  fs::path OwnModel(const std::string& site, const std::string& study) const {
    return federation_.site_folder(site) / "state" / "own" / (study + ".safetensors");
  }
  fs::path ServersModel(const std::string& study, int round) {
    const fs::path file = folder_.path() / (study + ".safetensors");
    EXPECT_OK(RunToEnd(federation_.Admin({"model", "download", study, "--round",
                                          std::to_string(round), "--out", file.string()}),
                       {}));
    return file;
  }
  static NamedTensors Tensors(const fs::path& file) {
    const auto model = SafetensorsFile::Open(file);
    EXPECT_OK(model);
    return model.ok() ? model->ReadAll() : NamedTensors();
  }
  json ReportOf(const std::string& study) {
    const fs::path out = folder_.path() / ("report-" + study);
    EXPECT_OK(RunToEnd(federation_.Admin({"report", study, "--out", out.string()}), {}));
    return json::parse(TextOf(out / "report.json"));
  }
};

INSTANTIATE_TEST_SUITE_P(All, SlowStrategyTest,
                         testing::Values(Strategy{"FedBn",
                                                  "norm = \"batch\"\nlocal_layers = [\"norm\"]", "",
                                                  "fedavg", true},
                                         Strategy{"Ditto", "", "personal = 0.3", "fedavg", true},
                                         Strategy{"Scaffold", "", "", "scaffold"}),
                         [](const auto& strategy) { return strategy.param.name; });

TEST_P(SlowStrategyTest, KilledAgainAndAgainEndsWithTheSameBits) {
  constexpr int kRounds = 3;
  constexpr int kKills = 6;
  const Strategy& strategy = GetParam();
  ASSERT_OK(federation_.InitServer({}));
  EnrolWithCohort("north", 2, 50);
  const fs::path config = federation_.site_folder("north") / "client.toml";
  ASSERT_OK(WriteFileAtomically(config, TextOf(config) + "\n[checkpoint]\nevery_steps = 9\n"));
  CreateStudy(StudyText("undisturbed", strategy, kRounds, 300));
  ASSERT_NO_FATAL_FAILURE(Start("undisturbed", {"north"}));
  ASSERT_NO_FATAL_FAILURE(RunClients({"north"}));
  CreateStudy(StudyText("killed", strategy, kRounds, 300));
  ASSERT_NO_FATAL_FAILURE(Start("killed", {"north"}));

  RandomStream random(static_cast<std::uint64_t>(::getpid()), "moments");
  int killed = 0;
  for (int kill = 0; kill < kKills; ++kill) {
    ChildProcess client = StartClient("north");
    const std::chrono::milliseconds delay(200 + random.Below(900));
    if (client.WaitFor(delay, {})) break;  // It was over sooner than that.
    ASSERT_EQ(::kill(client.id(), SIGKILL), 0);
    ASSERT_TRUE(client.WaitFor(kPatience, {}));
    std::cout << "killed " << delay.count() << " ms after the start\n";
    ++killed;
  }
  EXPECT_GT(killed, 1);
  ASSERT_NO_FATAL_FAILURE(RunClients({"north"}));

  const NamedTensors expected = Tensors(ServersModel("undisturbed", kRounds));
  EXPECT_FALSE(expected.empty());
  EXPECT_EQ(Tensors(ServersModel("killed", kRounds)), expected);
  if (strategy.own_model) {
    EXPECT_EQ(Tensors(OwnModel("north", "killed")), Tensors(OwnModel("north", "undisturbed")));
  }
  EXPECT_FALSE(fs::exists(federation_.site_folder("north") / "state" / "carried" / "killed"));
}

// Two hospitals of other scale and bias, as in WholeFederationTest: it still learns.
TEST_P(SlowStrategyTest, TrainsTwoHospitalsAndLeavesWhatTheyCanUse) {
  constexpr int kRounds = 3;
  const Strategy& strategy = GetParam();
  ASSERT_OK(federation_.InitServer({}));
  EnrolWithCohort("north", 1, 0);
  EnrolWithCohort("south", 40, 1000);
  CreateStudy(StudyText("ball", strategy, kRounds, strategy.aggregation == "scaffold" ? 40 : 12));
  ASSERT_NO_FATAL_FAILURE(Start("ball", {"north", "south"}));
  ASSERT_NO_FATAL_FAILURE(RunClients({"north", "south"}));

  const json report = ReportOf("ball");
  for (const json& site : report.at("sites")) {
    EXPECT_GT(site.at("dice").at("mean").get<double>(), 0.7) << site;
    EXPECT_EQ(site.at("personal").is_object(), strategy.name == "Ditto");
  }
  const std::string servers = ServersModel("ball", kRounds).string();
  const auto evaluate = [&](const std::string& model) {
    return RunToEnd(Client("north", {"evaluate", "--study", "ball", "--model", model}), {});
  };
  EXPECT_EQ(evaluate(servers).ok(), strategy.name != "FedBn");
  if (!strategy.own_model) return;

  EXPECT_OK(evaluate(OwnModel("north", "ball").string()));
  const NamedTensors north = Tensors(OwnModel("north", "ball"));
  const NamedTensors south = Tensors(OwnModel("south", "ball"));
  const NamedTensors shared = Tensors(servers);
  EXPECT_EQ(ShapesOf(north), ShapesOf(south));
  for (const auto& [name, tensor] : north) {
    const bool of_all = strategy.name == "FedBn" && name.find(".norm.") == name.npos;
    if (of_all) {
      EXPECT_EQ(tensor, shared.at(name)) << name;
    } else if (name.ends_with("norm.weight")) {
      EXPECT_NE(tensor, south.at(name)) << name;
    }
  }
}

}  // namespace
}  // namespace isoscan
