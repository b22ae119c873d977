#include <nlohmann/json.hpp>

#include <csignal>
#include <thread>

#include "common/random/philox.h"
#include "common/weights/safetensors.h"
#include "tests/end_to_end/federation_fixture.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// A hospital whose client is killed within its only round.
class SlowKilledClientTest : public FederationTest {
 protected:
  static constexpr int kKills = 10;

  void Offer(const std::string& name) {
    std::string text = SmallStudy(1);
    text.replace(text.find("ball"), 4, name);
    text.replace(text.find("steps_per_round = 12"), 20, "steps_per_round = 1200");
    CreateStudy(text);
    ASSERT_OK(RunToEnd(Client("north", {"study", "approve", name, "--yes"}), {}));
    ASSERT_OK(RunToEnd(federation_.Admin({"study", "start", name}), {}));
  }

  NamedTensors FinalModel(const std::string& study) {
    const fs::path file = folder_.path() / (study + ".safetensors");
    EXPECT_OK(RunToEnd(
        federation_.Admin({"model", "download", study, "--round", "1", "--out", file.string()}),
        {}));
    const auto model = SafetensorsFile::Open(file);
    EXPECT_OK(model);
    return model.ok() ? model->ReadAll() : NamedTensors();
  }

  double MeanLoss(const std::string& study) {
    const fs::path out = folder_.path() / ("report-" + study);
    EXPECT_OK(RunToEnd(federation_.Admin({"report", study, "--out", out.string()}), {}));
    const json report = json::parse(TextOf(out / "report.json"));
    return report.at("participation").at(0).at("sites").at(0).at("mean_loss").get<double>();
  }

  int CountInLog(const std::string& word) const {
    const std::string log = TextOf(federation_.log("north"));
    int count = 0;
    for (std::size_t at = log.find(word); at != log.npos; at = log.find(word, at + 1)) ++count;
    return count;
  }

  fs::path StateFolder() const { return federation_.site_folder("north") / "state"; }
};

TEST_F(SlowKilledClientTest, KilledAtTenMomentsOfARoundEndsWithTheSameBits) {
  ASSERT_OK(federation_.InitServer({}));
  EnrolWithCohort("north", 2, 50);
  const fs::path config = federation_.site_folder("north") / "client.toml";
  ASSERT_OK(WriteFileAtomically(config, TextOf(config) + "\n[checkpoint]\nevery_steps = 9\n"));
  ASSERT_NO_FATAL_FAILURE(Offer("undisturbed"));
  ChildProcess undisturbed = StartClient("north");
  ASSERT_TRUE(undisturbed.WaitFor(kPatience, {}));
  ASSERT_OK(undisturbed.Outcome());
  ASSERT_NO_FATAL_FAILURE(Offer("killed"));

  const fs::path checkpoints = StateFolder() / "checkpoints" / "killed";
  const auto newest = [&] {
    fs::file_time_type time = fs::file_time_type::min();
    std::error_code ignored;
    for (const fs::directory_entry& entry : fs::directory_iterator(checkpoints, ignored)) {
      time = std::max(time, entry.last_write_time(ignored));
    }
    return time;
  };
  // Other moments each time the test runs; they are printed.
  RandomStream random(static_cast<std::uint64_t>(::getpid()), "moments");
  for (int kill = 0; kill < kKills; ++kill) {
    const fs::file_time_type before = newest();
    ChildProcess client = StartClient("north");
    // Every second time from the start of the program, otherwise from its first checkpoint.
    const bool once_training = kill % 2 == 0;
    while (once_training && newest() == before) {
      ASSERT_FALSE(client.WaitFor(std::chrono::milliseconds(1), {})) << "ended by itself";
    }
    const std::chrono::milliseconds delay(random.Below(once_training ? 250 : 700));
    ASSERT_FALSE(client.WaitFor(delay, {})) << "ended by itself";
    ASSERT_EQ(::kill(client.id(), SIGKILL), 0);
    ASSERT_TRUE(client.WaitFor(kPatience, {}));
    std::cout << "killed " << delay.count() << " ms after "
              << (once_training ? "a checkpoint" : "the start") << "\n";
  }
  ASSERT_EQ(CountInLog("trained study=killed"), 0) << "the round was over before the last kill";
  ChildProcess last = StartClient("north");
  ASSERT_TRUE(last.WaitFor(kPatience, {}));
  ASSERT_OK(last.Outcome());

  EXPECT_GE(CountInLog("training_resumed"), kKills / 2);
  EXPECT_EQ(CountInLog("checkpoint_trouble"), 0);
  const NamedTensors expected = FinalModel("undisturbed");
  EXPECT_FALSE(expected.empty());
  EXPECT_EQ(FinalModel("killed"), expected);
  EXPECT_EQ(MeanLoss("killed"), MeanLoss("undisturbed"));
  EXPECT_FALSE(fs::exists(checkpoints)) << "the checkpoint outlived the study";
}

}  // namespace
}  // namespace isoscan
