#include "client/training/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <stop_token>
#include <string>
#include <vector>

#include "client/training/trainer.h"
#include "common/study/initial_weights.h"
#include "common/weights/sha256.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/training/training_phantom.h"
#include <sys/resource.h>

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr std::int64_t kSteps = 6;

TrainingState SmallState() {
  return {.steps_done = 41,
          .loss_sum = 1.0 / 3,
          .weights = {{"a", {.shape = {2}, .values = {1.5F, -2}}}},
          .moments = {{"first.0", {.shape = {2}, .values = {0.1F, 1e-30F}}}}};
}

std::string BytesOf(const fs::path& file) {
  std::ostringstream bytes;
  bytes << std::ifstream(file, std::ios::binary).rdbuf();
  return bytes.str();
}

void Write(const fs::path& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary) << bytes;
}

class CheckpointTest : public testing::Test {
 protected:
  /// What a client that is told to keep every step would have, and what it says.
  TrainingTask Task(std::int64_t every_steps) {
    TrainingTask task{
        .first_step = 20, .steps = kSteps, .total_steps = 40, .random_stream = "a", .round = 3};
    task.drawn_to = drawn_to_;
    task.correction = correction_;
    task.checkpoint = {.file = file_, .every_steps = every_steps};
    task.checkpoint.on_resumed = [this](std::int64_t done) { resumed_.push_back(done); };
    task.checkpoint.on_trouble = [this](const absl::Status& trouble) {
      troubles_.push_back(trouble.ToString());
    };
    return task;
  }

  /// Trains until `steps` are done, then stops without warning; the file is left as it then was.
  void TrainUntil(std::int64_t steps, const Study& study, const std::vector<PreparedCase>& cases) {
    ASSERT_OK_AND_ASSIGN(Trainer trainer, Trainer::Create(study, "cpu", 2));
    std::stop_source stop;
    std::string as_killed;
    const TrainingTask task = Task(/*every_steps=*/2);
    const auto result = trainer.Train(InitialWeights(study), cases, task, stop.get_token(),
                                      [&](std::int64_t step, double) {
                                        if (step + 1 - task.first_step < steps) return;
                                        as_killed = fs::exists(file_) ? BytesOf(file_) : "";
                                        stop.request_stop();
                                      });
    // The last step may have been the task's.
    ASSERT_TRUE(result.ok() || absl::IsCancelled(result.status())) << result.status();
    as_killed.empty() ? static_cast<void>(fs::remove(file_)) : Write(file_, as_killed);
  }

  absl::StatusOr<TrainingResult> Train(const Study& study, const std::vector<PreparedCase>& cases,
                                       const TrainingTask& task) {
    auto trainer = Trainer::Create(study, "cpu", 2);
    if (!trainer.ok()) return trainer.status();
    return trainer->Train(InitialWeights(study), cases, task, {}, {});
  }

  TemporaryDirectory folder_;
  fs::path file_ = folder_.path() / "3-model.safetensors";
  const NamedTensors* drawn_to_ = nullptr;
  const NamedTensors* correction_ = nullptr;
  std::vector<std::int64_t> resumed_;
  std::vector<std::string> troubles_;
};

TEST_F(CheckpointTest, ComesBackAsItWas) {
  ASSERT_OK(WriteCheckpoint(file_, "task", SmallState()));
  ASSERT_OK_AND_ASSIGN(const TrainingState state, ReadCheckpoint(file_, "task"));

  EXPECT_EQ(state.steps_done, 41);
  EXPECT_EQ(state.loss_sum, 1.0 / 3);
  EXPECT_EQ(state.weights, SmallState().weights);
  EXPECT_EQ(state.moments, SmallState().moments);
}

TEST_F(CheckpointTest, IsRefusedForOtherTraining) {
  ASSERT_OK(WriteCheckpoint(file_, "task", SmallState()));

  EXPECT_THAT(ReadCheckpoint(file_, "another"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("3-model")));
  EXPECT_THAT(ReadCheckpoint(folder_.path() / "none", "task"),
              StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(CheckpointTest, NeverHoldsAValueThatIsNotFinite) {
  ASSERT_OK(WriteCheckpoint(file_, "task", SmallState()));
  TrainingState broken = SmallState();
  broken.moments["first.0"].values[1] = std::numeric_limits<float>::quiet_NaN();

  EXPECT_THAT(WriteCheckpoint(file_, "task", broken),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("41 steps")));
  EXPECT_OK(ReadCheckpoint(file_, "task"));
}

class ResumeTest : public CheckpointTest, public testing::WithParamInterface<const char*> {
 protected:
  static Study StudyOf(const std::string& variant) {
    Study study = PhantomStudy();
    if (variant == "AdamW") study.training.optimizer = TrainingPlan::Optimizer::kAdamW;
    if (variant == "BatchNorm") study.network.norm = NetworkPlan::Norm::kBatch;
    if (variant == "DeepSupervision") study.training.deep_supervision = true;
    if (variant == "Personal") study.training.personal = 0.5;
    if (variant == "Scaffold") study.training.momentum = 0;
    if (variant == "Mixed") study.training.precision = TrainingPlan::Precision::kMixed;
    return study;
  }
};

TEST_P(ResumeTest, EndsWithTheSameBitsWhereverItWasStopped) {
  const Study study = StudyOf(GetParam());
  const std::vector<PreparedCase> cases = HarmonizedPhantoms(2, study);
  Study of_another_seed = study;
  of_another_seed.seed = 77;
  const NamedTensors others = InitialWeights(of_another_seed);
  if (std::string(GetParam()) == "Personal") drawn_to_ = &others;
  if (std::string(GetParam()) == "Scaffold") correction_ = &others;
  TrainingTask undisturbed = Task(0);
  undisturbed.checkpoint.file.clear();
  ASSERT_OK_AND_ASSIGN(const TrainingResult expected, Train(study, cases, undisturbed));

  for (std::int64_t stopped = 1; stopped <= kSteps; ++stopped) {
    fs::remove(file_);
    resumed_.clear();
    ASSERT_NO_FATAL_FAILURE(TrainUntil(stopped, study, cases));
    ASSERT_OK_AND_ASSIGN(const TrainingResult result, Train(study, cases, Task(2)));

    EXPECT_EQ(result.weights, expected.weights) << "stopped after " << stopped;
    EXPECT_EQ(result.mean_loss, expected.mean_loss) << "stopped after " << stopped;
    // Every second step is kept; what step `stopped` itself would write came too late.
    const std::int64_t kept = (stopped - 1) / 2 * 2;
    EXPECT_EQ(resumed_, kept == 0 ? std::vector<std::int64_t>{} : std::vector{kept});
  }
  EXPECT_THAT(troubles_, IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(All, ResumeTest,
                         testing::Values("Plain", "AdamW", "BatchNorm", "DeepSupervision", "Mixed",
                                         "Personal", "Scaffold"),
                         [](const auto& variant) { return std::string(variant.param); });

TEST_F(CheckpointTest, IsUpToDateWhenTrainingWasInterrupted) {
  const Study study = PhantomStudy();
  const std::vector<PreparedCase> cases = HarmonizedPhantoms(1, study);
  ASSERT_OK_AND_ASSIGN(Trainer trainer, Trainer::Create(study, "cpu", 2));
  std::stop_source stop;

  EXPECT_THAT(trainer.Train(InitialWeights(study), cases, Task(1000), stop.get_token(),
                            [&](std::int64_t step, double) {
                              if (step == 22) stop.request_stop();
                            }),
              StatusIs(absl::StatusCode::kCancelled));
  ASSERT_OK(Train(study, cases, Task(1000)));

  EXPECT_THAT(resumed_, ElementsAre(3));
}

TEST_F(CheckpointTest, StartsAgainFromOneThatIsDamagedOrOfOtherTraining) {
  Study study = PhantomStudy();
  const std::vector<PreparedCase> cases = HarmonizedPhantoms(1, study);
  ASSERT_OK_AND_ASSIGN(const TrainingResult expected, Train(study, cases, Task(0)));
  ASSERT_NO_FATAL_FAILURE(TrainUntil(5, study, cases));
  const std::string whole = BytesOf(file_);
  const auto train_from = [&](const std::string& bytes, const std::vector<PreparedCase>& used,
                              const TrainingTask& task) {
    Write(file_, bytes);
    fs::remove(file_.string() + ".set-aside");
    troubles_.clear();
    return Train(study, used, task);
  };

  std::string damaged = whole;
  damaged.back() = static_cast<char>(damaged.back() ^ 1);
  ASSERT_OK_AND_ASSIGN(const TrainingResult result, train_from(damaged, cases, Task(0)));
  EXPECT_EQ(result.weights, expected.weights);
  EXPECT_THAT(troubles_,
              ElementsAre(AllOf(HasSubstr("damaged"), HasSubstr("3-model.safetensors.set-aside"))));
  EXPECT_TRUE(fs::exists(file_.string() + ".set-aside"));

  TrainingTask other_round = Task(0);
  other_round.round = 4;
  std::vector<PreparedCase> other_cases = cases;
  std::vector<std::uint8_t> other_labels = cases[0].labels.Copy();
  other_labels[0] = 1;
  other_cases[0].labels = std::move(other_labels);
  ASSERT_OK(train_from(whole, cases, other_round));
  EXPECT_THAT(troubles_, ElementsAre(HasSubstr("other training")));
  ASSERT_OK(train_from(whole, other_cases, Task(0)));
  EXPECT_THAT(troubles_, ElementsAre(HasSubstr("other training")));
  const NamedTensors zeros = {
      {"encoder.stages.0.0.convs.0.norm.bias", {{8}, std::vector<float>(8)}}};
  correction_ = &zeros;
  ASSERT_OK(train_from(whole, cases, Task(0)));
  EXPECT_THAT(troubles_, ElementsAre(HasSubstr("other training")));
  correction_ = nullptr;
  study.digest = Sha256Of("another text");
  ASSERT_OK(train_from(whole, cases, Task(0)));
  EXPECT_THAT(troubles_, ElementsAre(HasSubstr("other training")));
  EXPECT_THAT(resumed_, IsEmpty());
}

TEST_F(CheckpointTest, TrainingGoesOnWhenTheDiskIsFull) {
  const Study study = PhantomStudy();
  const std::vector<PreparedCase> cases = HarmonizedPhantoms(1, study);
  ASSERT_OK_AND_ASSIGN(const TrainingResult expected, Train(study, cases, Task(0)));
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{.rlim_cur = 4096, .rlim_max = before.rlim_max};
  const auto on_excess = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);

  const absl::StatusOr<TrainingResult> result = Train(study, cases, Task(2));

  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, on_excess);
  ASSERT_OK(result);
  EXPECT_EQ(result->weights, expected.weights);
  EXPECT_THAT(troubles_, ElementsAre(AllOf(HasSubstr("RESOURCE_EXHAUSTED"), HasSubstr("goes on"))));
  EXPECT_TRUE(fs::is_empty(folder_.path())) << "half a file was left";
}

TEST_F(CheckpointTest, HoldsTheLastGoodWeightsAfterALossThatIsNotFinite) {
  Study study = PhantomStudy();
  study.training.learning_rate =
      1e30;  // The first update leads to weights whose loss is no number.
  study.training.gradient_norm_limit = 1e30;
  const std::vector<PreparedCase> cases = HarmonizedPhantoms(1, study);

  EXPECT_THAT(Train(study, cases, Task(0)),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("none of its weights were kept")));
  const auto named =
      StatusIs(absl::StatusCode::kDataLoss,
               AllOf(HasSubstr("is not a number at step "),
                     HasSubstr("the weights after 1 steps are kept in " + file_.string())));
  EXPECT_THAT(Train(study, cases, Task(1)), named);
  ASSERT_TRUE(fs::exists(file_));
  EXPECT_THAT(Train(study, cases, Task(1)), named);

  EXPECT_THAT(resumed_, SizeIs(1)) << "the file is not what training goes on from";
}

}  // namespace
}  // namespace isoscan
