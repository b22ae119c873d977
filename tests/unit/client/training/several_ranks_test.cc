/// Training in several real processes on this machine, through c10d and Gloo. Rank 0 is the test.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/process_group/process_group.h"
#include "client/training/trainer.h"
#include "common/status/status_macros.h"
#include "common/study/initial_weights.h"
#include "tests/support/file_content.h"
#include "tests/support/free_port.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/training/training_phantom.h"
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

namespace isoscan {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr milliseconds kPatience = std::chrono::seconds(60);

/// training_rank as a child of this process; killed at the end of this object.
class RankProcess {
 public:
  RankProcess(const Launch& launch, std::vector<std::string> arguments,
              const std::filesystem::path& log) {
    std::vector<std::string> environment;
    for (char** variable = environ; *variable != nullptr; ++variable) {
      environment.emplace_back(*variable);
    }
    environment.push_back("RANK=" + std::to_string(launch.rank));
    environment.push_back("WORLD_SIZE=" + std::to_string(launch.world_size));
    environment.push_back("MASTER_ADDR=" + launch.master_address);
    environment.push_back("MASTER_PORT=" + std::to_string(launch.master_port));
    arguments.insert(arguments.begin(), TRAINING_RANK);
    posix_spawn_file_actions_t actions{};
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log.c_str(),
                                     O_WRONLY | O_CREAT | O_TRUNC, 0600);
    EXPECT_EQ(posix_spawn(&id_, TRAINING_RANK, &actions, nullptr, Pointers(arguments).data(),
                          Pointers(environment).data()),
              0);
    posix_spawn_file_actions_destroy(&actions);
  }
  ~RankProcess() {
    if (id_ > 0) {
      Signal(SIGKILL);
      Wait(kPatience);
    }
  }
  RankProcess(RankProcess&& other) noexcept : id_(std::exchange(other.id_, 0)) {}

  void Signal(int signal) const { EXPECT_EQ(::kill(id_, signal), 0); }

  /// Its exit code, or minus the signal that ended it; -1000 when it goes on.
  int Wait(milliseconds limit) {
    const steady_clock::time_point deadline = steady_clock::now() + limit;
    int status = 0;
    while (::waitpid(id_, &status, WNOHANG) == 0) {
      if (steady_clock::now() > deadline) return -1000;
      std::this_thread::sleep_for(milliseconds(5));
    }
    id_ = 0;
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  }

 private:
  static std::vector<char*> Pointers(std::vector<std::string>& texts) {
    std::vector<char*> pointers;
    for (std::string& text : texts) pointers.push_back(text.data());
    pointers.push_back(nullptr);
    return pointers;
  }

  pid_t id_ = 0;
};

/// The phantoms' study as a text, which is how other ranks get it.
Study StudyOf(const std::string& variant, int batch) {
  std::string text = R"(
name = "phantoms"
seed = 11
channels = ["T1w"]
labels = ["bright", "dark"]
[network]
features = [8, 16, 32]
strides = [[1,1,1],[2,2,2],[2,2,2]]
)";
  if (variant == "BatchNorm") text += "norm = \"batch\"\n";
  if (variant == "GroupNorm") text += "norm = \"group\"\n";
  text += R"(
[training]
patch_size = [16, 16, 16]
momentum = 0.9
mirror_axes = [0, 2]
augmentation = "nnunet"
)";
  text += "batch_size = " + std::to_string(batch) + "\n";
  if (variant == "DeepSupervision") text += "deep_supervision = true\n";
  if (variant == "Mixed") text += "precision = \"mixed\"\n";
  if (variant == "AdamW") text += "optimizer = \"adamw\"\nlearning_rate = 0.003\n";
  if (variant == "FedProx") text += "proximal = 0.1\n";
  if (variant == "Ditto") text += "personal = 0.5\n";
  const absl::StatusOr<Study> study = ParseStudy(text, variant);
  EXPECT_OK(study);
  return *study;
}

TrainingTask Steps(std::int64_t steps) {
  return {
      .first_step = 7, .steps = steps, .total_steps = 40, .random_stream = "st-marys", .round = 3};
}

class SeveralRanks : public testing::Test {
 protected:
  /// Starts ranks 1 ... size - 1 and meets them as rank 0.
  void Start(int size, int patches_at_once = 0, milliseconds limit = kPatience) {
    Launch launch{.world_size = size, .master_address = "127.0.0.1", .master_port = FreePort()};
    for (launch.rank = 1; launch.rank < size; ++launch.rank) {
      others_.emplace_back(launch,
                           std::vector<std::string>{"serve", std::to_string(limit.count()),
                                                    std::to_string(patches_at_once)},
                           Log(launch.rank));
    }
    launch.rank = 0;
    absl::StatusOr<std::unique_ptr<ProcessGroup>> group =
        ProcessGroup::Join(launch, "test", {.join = kPatience, .collective = limit}, {});
    ASSERT_OK(group);
    group_ = *std::move(group);
  }

  void ExpectCleanEnd() {
    group_.reset();
    for (RankProcess& other : others_) EXPECT_EQ(other.Wait(kPatience), 0);
  }

  std::filesystem::path Log(int rank) const {
    return folder_.path() / ("rank-" + std::to_string(rank) + ".log");
  }

  static absl::StatusOr<TrainingResult> TrainAlone(const Study& study, const TrainingTask& task,
                                                   std::int64_t patches_at_once) {
    ASSIGN_OR_RETURN(Trainer trainer,
                     Trainer::Create(study, "cpu", 1, {.patches_at_once = patches_at_once}));
    return trainer.Train(InitialWeights(study), HarmonizedPhantoms(3, study), task, {}, {});
  }

  absl::StatusOr<TrainingResult> TrainTogether(const Study& study, const TrainingTask& task,
                                               std::stop_token stop = {},
                                               const StepObserver& observe = {},
                                               std::int64_t patches_at_once = 0) {
    ASSIGN_OR_RETURN(Trainer trainer,
                     Trainer::Create(study, "cpu", 1,
                                     {.patches_at_once = patches_at_once, .group = group_.get()}));
    return trainer.Train(InitialWeights(study), HarmonizedPhantoms(3, study), task, std::move(stop),
                         observe);
  }

  TemporaryDirectory folder_;
  std::vector<RankProcess> others_;
  std::unique_ptr<ProcessGroup> group_;
};

class SeveralRanksVariants : public SeveralRanks,
                             public testing::WithParamInterface<const char*> {};

TEST_P(SeveralRanksVariants, TwoGiveTheBitsOfOneThatTakesTheJointBatchInTwoPieces) {
  const Study study = StudyOf(GetParam(), 4);
  ASSERT_NO_FATAL_FAILURE(Start(2));

  NamedTensors other = InitialWeights(study);
  for (auto& [name, tensor] : other) {
    for (float& value : tensor.values) value = value * 0.5F + 0.01F;
  }
  TrainingTask task = Steps(5);
  if (GetParam() == std::string("Ditto")) task.drawn_to = &other;
  if (GetParam() == std::string("Scaffold")) task.correction = &other;

  ASSERT_OK_AND_ASSIGN(const TrainingResult together, TrainTogether(study, task));
  ASSERT_OK_AND_ASSIGN(const TrainingResult alone, TrainAlone(study, task, 2));

  EXPECT_NE(together.weights, InitialWeights(study));
  EXPECT_EQ(together.weights, alone.weights);
  EXPECT_EQ(together.mean_loss, alone.mean_loss);
  ExpectCleanEnd();
}

INSTANTIATE_TEST_SUITE_P(All, SeveralRanksVariants,
                         testing::Values("Plain", "AdamW", "GroupNorm", "DeepSupervision", "Mixed",
                                         "FedProx", "Ditto", "Scaffold"),
                         [](const auto& variant) { return std::string(variant.param); });

TEST_F(SeveralRanks, ThreeAddUpInTheirOrder) {
  const Study study = StudyOf("Plain", 3);
  ASSERT_NO_FATAL_FAILURE(Start(3));

  ASSERT_OK_AND_ASSIGN(const TrainingResult together, TrainTogether(study, Steps(3)));
  ASSERT_OK_AND_ASSIGN(const TrainingResult alone, TrainAlone(study, Steps(3), 1));

  EXPECT_EQ(together.weights, alone.weights);
  ExpectCleanEnd();
}

/// A batch of 5 is 2 and 3, the second rank's in pieces of 2 and 1.
TEST_F(SeveralRanks, UnequalPartsAndPiecesGiveTheJointBatchButForRounding) {
  const Study study = StudyOf("DeepSupervision", 5);
  ASSERT_NO_FATAL_FAILURE(Start(2, /*patches_at_once=*/2));

  ASSERT_OK_AND_ASSIGN(const TrainingResult together,
                       TrainTogether(study, Steps(1), {}, {}, /*patches_at_once=*/2));
  ASSERT_OK_AND_ASSIGN(const TrainingResult alone, TrainAlone(study, Steps(1), 0));

  const NamedTensors start = InitialWeights(study);
  double difference = 0;
  double change = 0;
  for (const auto& [name, tensor] : alone.weights) {
    for (std::size_t i = 0; i < tensor.values.size(); ++i) {
      const double one = tensor.values[i];
      difference = std::max(difference, std::abs(one - together.weights.at(name).values[i]));
      change = std::max(change, std::abs(one - start.at(name).values[i]));
    }
  }
  EXPECT_LT(difference, 1e-4 * change);
  EXPECT_NEAR(together.mean_loss, alone.mean_loss, 1e-5);
  RecordProperty("difference_over_change", std::to_string(difference / change));
  std::cout << "largest difference / largest change of a weight: " << difference / change << "\n";
  ExpectCleanEnd();
}

TEST_F(SeveralRanks, StopTogetherAndGoOnFromTheCheckpointToTheSameBits) {
  const Study study = StudyOf("Plain", 4);
  ASSERT_NO_FATAL_FAILURE(Start(2));
  TrainingTask task = Steps(6);
  ASSERT_OK_AND_ASSIGN(const TrainingResult undisturbed, TrainTogether(study, task));
  std::int64_t resumed_at = 0;
  task.checkpoint = {.file = folder_.path() / "checkpoint",
                     .on_resumed = [&](std::int64_t done) { resumed_at = done; }};
  std::stop_source stop;

  EXPECT_THAT(TrainTogether(study, task, stop.get_token(),
                            [&](std::int64_t step, double) {
                              if (step == 9) stop.request_stop();
                            }),
              StatusIs(absl::StatusCode::kCancelled));
  ASSERT_OK_AND_ASSIGN(const TrainingResult resumed, TrainTogether(study, task));

  EXPECT_EQ(resumed_at, 3);
  EXPECT_EQ(resumed.weights, undisturbed.weights);
  EXPECT_EQ(resumed.mean_loss, undisturbed.mean_loss);
  ExpectCleanEnd();
}

TEST_F(SeveralRanks, AKilledRankIsAnErrorAtOnceAndTheCheckpointIsKept) {
  const Study study = StudyOf("Plain", 4);
  ASSERT_NO_FATAL_FAILURE(Start(2));
  TrainingTask task = Steps(30);
  task.checkpoint = {.file = folder_.path() / "checkpoint"};
  steady_clock::time_point killed;

  const auto result = TrainTogether(study, task, {}, [&](std::int64_t step, double) {
    if (step != 9) return;
    others_[0].Signal(SIGKILL);
    killed = steady_clock::now();
  });

  EXPECT_THAT(result, StatusIs(absl::StatusCode::kAborted,
                               AllOf(HasSubstr("lost another rank"), HasSubstr("checkpoint"))));
  EXPECT_LT(steady_clock::now() - killed, kPatience / 4);
  EXPECT_EQ(others_[0].Wait(kPatience), -SIGKILL);
  EXPECT_TRUE(std::filesystem::exists(task.checkpoint.file));
}

TEST_F(SeveralRanks, ARankThatHangsIsAnErrorAfterTheLimit) {
  const Study study = StudyOf("Plain", 4);
  ASSERT_NO_FATAL_FAILURE(Start(2, 0, milliseconds(3000)));

  const auto result = TrainTogether(study, Steps(30), {}, [&](std::int64_t step, double) {
    if (step == 9) others_[0].Signal(SIGSTOP);
  });

  EXPECT_THAT(result, StatusIs(absl::StatusCode::kAborted, HasSubstr("waited 3 s")));
}

TEST_F(SeveralRanks, OthersEndWithAnErrorWhenRankZeroIsKilled) {
  Launch launch{.world_size = 2, .master_address = "127.0.0.1", .master_port = FreePort()};
  RankProcess first(launch, {"idle"}, Log(0));
  launch.rank = 1;
  RankProcess second(launch, {"serve", "60000", "0"}, Log(1));
  const steady_clock::time_point deadline = steady_clock::now() + kPatience;
  while (TextOf(Log(0)) != "met\n" && steady_clock::now() < deadline) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  ASSERT_EQ(second.Wait(std::chrono::seconds(1)), -1000) << TextOf(Log(1));

  first.Signal(SIGKILL);

  EXPECT_EQ(second.Wait(kPatience / 4), 1);
  EXPECT_THAT(TextOf(Log(1)), HasSubstr("rank 1 has lost rank 0"));
}

TEST_F(SeveralRanks, RefuseWhatCannotBeDividedBeforeTheOthersHearOfIt) {
  ASSERT_NO_FATAL_FAILURE(Start(2));

  EXPECT_THAT(TrainTogether(StudyOf("BatchNorm", 4), Steps(1)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("norm = \"batch\"")));
  EXPECT_THAT(TrainTogether(StudyOf("Plain", 1), Steps(1)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("batch of 1"), HasSubstr("2 ranks"))));
  ExpectCleanEnd();
}

}  // namespace
}  // namespace isoscan
