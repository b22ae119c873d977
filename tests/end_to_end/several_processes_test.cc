/// A hospital whose client is several processes, started as PyTorch jobs are.
#include <csignal>
#include <string>

#include "common/weights/safetensors.h"
#include "tests/end_to_end/federation_fixture.h"
#include "tests/support/free_port.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;

class SlowSeveralProcessesTest : public FederationTest {
 protected:
  void Offer(const std::string& name, int steps = 12) {
    std::string text = SmallStudy(2);
    text.replace(text.find("ball"), 4, name);
    const std::string key = "steps_per_round = ";
    text.replace(text.find(key + "12"), key.size() + 2, key + std::to_string(steps));
    CreateStudy(text);
    ASSERT_OK(RunToEnd(Client("north", {"study", "approve", name, "--yes"}), {}));
    ASSERT_OK(RunToEnd(federation_.Admin({"study", "start", name}), {}));
  }

  ChildProcess StartRank(int rank, std::uint16_t port) {
    Command command = Client("north", {"run", "--until-ended"});
    command.title = "rank " + std::to_string(rank);
    command.log = Log(rank);
    command.environment = {{"RANK", std::to_string(rank)},
                           {"WORLD_SIZE", "2"},
                           {"MASTER_ADDR", "127.0.0.1"},
                           {"MASTER_PORT", std::to_string(port)}};
    auto client = ChildProcess::Start(command);
    EXPECT_OK(client);
    return *std::move(client);
  }

  fs::path Log(int rank) const { return folder_.path() / ("rank-" + std::to_string(rank)); }

  NamedTensors FinalModel(const std::string& study) {
    const fs::path file = folder_.path() / (study + ".safetensors");
    EXPECT_OK(RunToEnd(
        federation_.Admin({"model", "download", study, "--round", "2", "--out", file.string()}),
        {}));
    const auto model = SafetensorsFile::Open(file);
    EXPECT_OK(model);
    return model.ok() ? model->ReadAll() : NamedTensors();
  }
};

TEST_F(SlowSeveralProcessesTest, TwoClientsOfOneSiteTrainToTheBitsOfOneWithTheJointBatch) {
  ASSERT_OK(federation_.InitServer({}));
  EnrolWithCohort("north", 2, 50);
  const fs::path config = federation_.site_folder("north") / "client.toml";
  const std::string text = TextOf(config);
  std::string in_pieces = text;
  const std::string threads = "threads = 1\n";
  ASSERT_NE(text.find(threads), std::string::npos) << text;
  in_pieces.insert(in_pieces.find(threads), "patches_at_once = 1\n");
  ASSERT_OK(WriteFileAtomically(config, in_pieces));
  ASSERT_NO_FATAL_FAILURE(Offer("one"));
  ChildProcess alone = StartClient("north");
  ASSERT_TRUE(alone.WaitFor(kPatience, {}));
  ASSERT_OK(alone.Outcome());
  ASSERT_OK(WriteFileAtomically(config, text));
  ASSERT_NO_FATAL_FAILURE(Offer("two"));

  const std::uint16_t port = FreePort();
  ChildProcess second = StartRank(1, port);  // In any order.
  ChildProcess first = StartRank(0, port);

  ASSERT_TRUE(first.WaitFor(kPatience, {}));
  ASSERT_OK(first.Outcome());
  ASSERT_TRUE(second.WaitFor(kPatience, {}));
  ASSERT_OK(second.Outcome());
  EXPECT_NE(TextOf(Log(0)).find("trained study=two round=2"), std::string::npos);
  EXPECT_EQ(TextOf(Log(1)).find("connected server="), std::string::npos)
      << "rank 1 has asked the server";
  const NamedTensors expected = FinalModel("one");
  EXPECT_FALSE(expected.empty());
  EXPECT_EQ(FinalModel("two"), expected);
}

TEST_F(SlowSeveralProcessesTest, AKilledRankEndsTheOtherAndBothGoOnFromTheCheckpoint) {
  ASSERT_OK(federation_.InitServer({}));
  EnrolWithCohort("north", 2, 50);
  const fs::path config = federation_.site_folder("north") / "client.toml";
  ASSERT_OK(WriteFileAtomically(config, TextOf(config) + "\n[checkpoint]\nevery_steps = 1\n"));
  ASSERT_NO_FATAL_FAILURE(Offer("undisturbed", 300));
  const std::uint16_t port = FreePort();
  ChildProcess second = StartRank(1, port);
  ChildProcess first = StartRank(0, port);
  ASSERT_TRUE(first.WaitFor(kPatience, {}));
  ASSERT_OK(first.Outcome());
  ASSERT_TRUE(second.WaitFor(kPatience, {}));
  ASSERT_NO_FATAL_FAILURE(Offer("disturbed", 300));

  const std::uint16_t next_port = FreePort();
  ChildProcess killed = StartRank(1, next_port);
  ChildProcess left = StartRank(0, next_port);
  const fs::path checkpoints =
      federation_.site_folder("north") / "state" / "checkpoints" / "disturbed";
  while (!fs::exists(checkpoints) || fs::is_empty(checkpoints)) {
    ASSERT_FALSE(left.WaitFor(std::chrono::milliseconds(1), {})) << TextOf(Log(0));
  }
  ASSERT_EQ(::kill(killed.id(), SIGKILL), 0);
  ASSERT_TRUE(left.WaitFor(kPatience, {}));
  EXPECT_THAT(left.Outcome(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                       testing::HasSubstr("has lost another rank")));

  const std::uint16_t last_port = FreePort();
  ChildProcess second_again = StartRank(1, last_port);
  ChildProcess first_again = StartRank(0, last_port);
  ASSERT_TRUE(first_again.WaitFor(kPatience, {}));
  ASSERT_OK(first_again.Outcome());
  ASSERT_TRUE(second_again.WaitFor(kPatience, {}));
  ASSERT_OK(second_again.Outcome());
  EXPECT_NE(TextOf(Log(0)).find("training_resumed"), std::string::npos);
  EXPECT_EQ(FinalModel("disturbed"), FinalModel("undisturbed"));
}

}  // namespace
}  // namespace isoscan
