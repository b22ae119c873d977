#include "client/training/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stop_token>
#include <utility>
#include <vector>

#include "client/evaluation/overlap.h"
#include "common/study/initial_weights.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/client/training/training_phantom.h"

namespace isoscan {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int kThreads = 2;

TrainingTask Steps(std::int64_t steps) {
  return {.steps = steps, .total_steps = steps, .random_stream = "st-marys"};
}

/// Mean Dice over two labels of phantoms that were not trained on.
double HeldOutDice(Trainer& trainer, const NamedTensors& weights, const Study& study) {
  double sum = 0;
  for (const std::uint64_t number : {100U, 101U, 102U}) {
    const PreparedCase phantom = Harmonized(Phantom(number), study);
    const absl::StatusOr<LabelMap> predicted = trainer.Predict(weights, phantom);
    EXPECT_OK(predicted);
    if (!predicted.ok()) return 0;
    for (const LabelOverlap& overlap : Overlap(phantom.Reference(), *predicted, 2)) {
      sum += overlap.dice();
    }
  }
  return sum / 6;
}

class TrainerVariants : public testing::TestWithParam<const char*> {
 protected:
  static Study StudyOf(const std::string& variant) {
    Study study = PhantomStudy();
    if (variant == "BatchNorm") study.network.norm = NetworkPlan::Norm::kBatch;
    if (variant == "GroupNorm") study.network.norm = NetworkPlan::Norm::kGroup;
    if (variant == "DeepSupervision") study.training.deep_supervision = true;
    if (variant == "Mixed") study.training.precision = TrainingPlan::Precision::kMixed;
    if (variant == "AdamW") {
      study.training.optimizer = TrainingPlan::Optimizer::kAdamW;
      study.training.learning_rate = 0.003;
    }
    return study;
  }
};

TEST_P(TrainerVariants, LearnsThePhantom) {
  const Study study = StudyOf(GetParam());
  const std::vector<PreparedCase> cases = HarmonizedPhantoms(6, study);
  const NamedTensors start = InitialWeights(study);
  ASSERT_OK_AND_ASSIGN(Trainer trainer, Trainer::Create(study, "cpu", kThreads));
  std::vector<double> losses;

  ASSERT_OK_AND_ASSIGN(const TrainingResult result,
                       trainer.Train(start, cases, Steps(120), {},
                                     [&](std::int64_t, double loss) { losses.push_back(loss); }));

  EXPECT_EQ(result.steps, 120);
  ASSERT_EQ(losses.size(), 120U);
  EXPECT_LT(losses.back(), losses.front() - 0.5);
  EXPECT_LT(HeldOutDice(trainer, start, study), 0.5);
  EXPECT_GT(HeldOutDice(trainer, result.weights, study), 0.9);
}

INSTANTIATE_TEST_SUITE_P(All, TrainerVariants,
                         testing::Values("Plain", "AdamW", "BatchNorm", "GroupNorm",
                                         "DeepSupervision", "Mixed"),
                         [](const auto& variant) { return std::string(variant.param); });

TEST(Trainer, GivesTheSameBitsForTheSameTask) {
  Study study = PhantomStudy();
  study.training.precision = TrainingPlan::Precision::kMixed;
  const std::vector<PreparedCase> cases = HarmonizedPhantoms(3, study);
  const NamedTensors start = InitialWeights(study);
  const TrainingTask task{
      .first_step = 20, .steps = 5, .total_steps = 40, .random_stream = "st-marys", .round = 3};
  ASSERT_OK_AND_ASSIGN(Trainer first, Trainer::Create(study, "cpu", kThreads));
  ASSERT_OK_AND_ASSIGN(Trainer second, Trainer::Create(study, "cpu", kThreads));

  ASSERT_OK_AND_ASSIGN(const TrainingResult once, first.Train(start, cases, task, {}, {}));
  ASSERT_OK_AND_ASSIGN(const TrainingResult again, first.Train(start, cases, task, {}, {}));
  ASSERT_OK_AND_ASSIGN(const TrainingResult elsewhere, second.Train(start, cases, task, {}, {}));

  EXPECT_EQ(once.weights, again.weights);
  EXPECT_EQ(once.weights, elsewhere.weights);
  EXPECT_EQ(once.mean_loss, elsewhere.mean_loss);
}

// A step at a rate of nearly nothing sees the loss of the weights that it began with.
TEST(Trainer, MeasuresTheLossBeforeTheFirstStep) {
  Study study = PhantomStudy();
  study.training.learning_rate = 1e-9;
  study.training.momentum = 0;
  const std::vector<PreparedCase> cases = HarmonizedPhantoms(3, study);
  const NamedTensors start = InitialWeights(study);
  TrainingTask task{
      .first_step = 4, .steps = 3, .total_steps = 40, .random_stream = "st-marys", .round = 2};
  ASSERT_OK_AND_ASSIGN(Trainer trainer, Trainer::Create(study, "cpu", kThreads));
  ASSERT_OK_AND_ASSIGN(const TrainingResult not_asked, trainer.Train(start, cases, task, {}, {}));
  EXPECT_EQ(not_asked.loss_before, std::nullopt);

  task.loss_steps = 8;  // Of which the task has 3.
  ASSERT_OK_AND_ASSIGN(const TrainingResult asked, trainer.Train(start, cases, task, {}, {}));

  EXPECT_NEAR(asked.loss_before.value(), asked.mean_loss, 1e-5);
  EXPECT_EQ(asked.weights, not_asked.weights);
  ASSERT_OK_AND_ASSIGN(Trainer in_pieces,
                       Trainer::Create(study, "cpu", kThreads, {.patches_at_once = 1}));
  ASSERT_OK_AND_ASSIGN(const TrainingResult pieces, in_pieces.Train(start, cases, task, {}, {}));
  EXPECT_NEAR(pieces.loss_before.value(), *asked.loss_before, 1e-5);
}

// Batch normalisation learns its statistics from what it sees in training.
TEST(Trainer, LeavesNoTraceOfTheLossThatItMeasures) {
  Study study = PhantomStudy();
  study.network.norm = NetworkPlan::Norm::kBatch;
  const std::vector<PreparedCase> cases = HarmonizedPhantoms(2, study);
  TrainingTask task{.steps = 2, .total_steps = 2, .random_stream = "st-marys"};
  ASSERT_OK_AND_ASSIGN(Trainer trainer, Trainer::Create(study, "cpu", kThreads));
  const NamedTensors start = InitialWeights(study);
  ASSERT_OK_AND_ASSIGN(const TrainingResult not_asked, trainer.Train(start, cases, task, {}, {}));
  task.loss_steps = 2;
  ASSERT_OK_AND_ASSIGN(const TrainingResult asked, trainer.Train(start, cases, task, {}, {}));

  EXPECT_EQ(asked.weights, not_asked.weights);
  EXPECT_TRUE(asked.loss_before.has_value());
}

TEST(Trainer, GivesEachSiteItsOwnNumbersUnlessTheyAreShared) {
  Study study = PhantomStudy();
  const std::vector<PreparedCase> cases = HarmonizedPhantoms(2, study);
  const NamedTensors start = InitialWeights(study);
  const TrainingTask here{.steps = 1, .total_steps = 1, .random_stream = "here"};
  const TrainingTask there{.steps = 1, .total_steps = 1, .random_stream = "there"};
  for (const bool shared : {false, true}) {
    study.training.random_numbers =
        shared ? TrainingPlan::RandomNumbers::kShared : TrainingPlan::RandomNumbers::kSite;
    ASSERT_OK_AND_ASSIGN(Trainer trainer, Trainer::Create(study, "cpu", 1));

    ASSERT_OK_AND_ASSIGN(const TrainingResult left, trainer.Train(start, cases, here, {}, {}));
    ASSERT_OK_AND_ASSIGN(const TrainingResult right, trainer.Train(start, cases, there, {}, {}));

    EXPECT_EQ(left.weights == right.weights, shared);
  }
}

TEST(Trainer, LearnsAboutTheSameInMixedPrecision) {
  Study study = PhantomStudy();
  const std::vector<PreparedCase> cases = HarmonizedPhantoms(3, study);
  const NamedTensors start = InitialWeights(study);
  ASSERT_OK_AND_ASSIGN(Trainer exact, Trainer::Create(study, "cpu", kThreads));
  study.training.precision = TrainingPlan::Precision::kMixed;
  ASSERT_OK_AND_ASSIGN(Trainer mixed, Trainer::Create(study, "cpu", kThreads));

  ASSERT_OK_AND_ASSIGN(const TrainingResult one, exact.Train(start, cases, Steps(20), {}, {}));
  ASSERT_OK_AND_ASSIGN(const TrainingResult other, mixed.Train(start, cases, Steps(20), {}, {}));

  EXPECT_NEAR(one.mean_loss, other.mean_loss, 0.02 * std::abs(one.mean_loss) + 0.01);
}

TEST(Trainer, RefusesWeightsOfAnotherNetworkByTheTensorsName) {
  const Study study = PhantomStudy();
  const std::vector<PreparedCase> cases = HarmonizedPhantoms(1, study);
  NamedTensors weights = InitialWeights(study);
  weights.erase("encoder.stages.1.0.convs.0.conv.weight");
  ASSERT_OK_AND_ASSIGN(Trainer trainer, Trainer::Create(study, "cpu", 1));

  const auto refused = StatusIs(absl::StatusCode::kInvalidArgument,
                                HasSubstr("encoder.stages.1.0.convs.0.conv.weight"));
  EXPECT_THAT(trainer.Train(weights, cases, Steps(1), {}, {}), refused);
  EXPECT_THAT(trainer.Predict(weights, cases.front()), refused);
}

TEST(Trainer, PredictsTheArgMaxOfItsScores) {
  const Study study = PhantomStudy();
  const PreparedCase phantom = Harmonized(Phantom(3), study);
  ASSERT_OK_AND_ASSIGN(Trainer trainer, Trainer::Create(study, "cpu", kThreads));

  ASSERT_OK_AND_ASSIGN(const std::vector<float> scores,
                       trainer.Scores(InitialWeights(study), phantom));
  ASSERT_OK_AND_ASSIGN(const LabelMap predicted, trainer.Predict(InitialWeights(study), phantom));

  const std::size_t voxels = predicted.voxels.size();
  ASSERT_EQ(scores.size(), 3 * voxels);
  for (std::size_t i = 0; i < voxels; ++i) {
    const float chosen = scores[predicted.voxels[i] * voxels + i];
    for (std::size_t label = 0; label < 3; ++label) EXPECT_LE(scores[label * voxels + i], chosen);
  }
}

TEST(Trainer, RefusesToTrainWithoutCases) {
  const Study study = PhantomStudy();
  ASSERT_OK_AND_ASSIGN(Trainer trainer, Trainer::Create(study, "cpu", 1));

  EXPECT_THAT(trainer.Train(InitialWeights(study), {}, Steps(1), {}, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no training case")));
}

TEST(Trainer, StopsBetweenStepsWhenAsked) {
  const Study study = PhantomStudy();
  const std::vector<PreparedCase> cases = HarmonizedPhantoms(1, study);
  ASSERT_OK_AND_ASSIGN(Trainer trainer, Trainer::Create(study, "cpu", 1));
  std::stop_source stop;
  std::int64_t last = -1;

  const auto result = trainer.Train(InitialWeights(study), cases, Steps(1000), stop.get_token(),
                                    [&](std::int64_t step, double) {
                                      last = step;
                                      if (step == 3) stop.request_stop();
                                    });

  EXPECT_THAT(result, StatusIs(absl::StatusCode::kCancelled, HasSubstr("step 4")));
  EXPECT_EQ(last, 3);
}

TEST(Trainer, SaysAtWhichStepTheLossWasNotFinite) {
  const Study study = PhantomStudy();
  const std::vector<PreparedCase> cases = HarmonizedPhantoms(1, study);
  NamedTensors weights = InitialWeights(study);
  weights["decoder.seg_layers.1.bias"].values[0] = std::numeric_limits<float>::quiet_NaN();
  ASSERT_OK_AND_ASSIGN(Trainer trainer, Trainer::Create(study, "cpu", 1));

  EXPECT_THAT(
      trainer.Train(weights, cases, Steps(5), {}, {}),
      StatusIs(absl::StatusCode::kDataLoss, AllOf(HasSubstr("not a number"), HasSubstr("step 0"))));
}

TEST(Trainer, TrainsOnASingleCaseThatIsSmallerThanThePatchAndLacksALabel) {
  Study study = PhantomStudy();
  study.training.patch_size = {32, 24, 32};
  study.training.augmentation = TrainingPlan::Augmentation::kNnunet;
  std::vector<PreparedCase> cases = HarmonizedPhantoms(1, study);
  std::vector<std::uint8_t> labels = cases[0].labels.Copy();
  std::ranges::replace(labels, 2, 0);
  cases[0].labels = std::move(labels);
  ASSERT_OK_AND_ASSIGN(Trainer trainer, Trainer::Create(study, "cpu", kThreads));
  std::vector<double> losses;

  ASSERT_OK_AND_ASSIGN(const TrainingResult result,
                       trainer.Train(InitialWeights(study), cases, Steps(60), {},
                                     [&](std::int64_t, double loss) { losses.push_back(loss); }));

  EXPECT_LT(losses.back(), losses.front() - 0.3);
  ASSERT_OK_AND_ASSIGN(const LabelMap predicted, trainer.Predict(result.weights, cases[0]));
  const std::vector<LabelOverlap> overlap = Overlap(cases[0].Reference(), predicted, 2);
  EXPECT_GT(overlap[0].dice(), 0.7);
}

TEST(Trainer, StaysNearerToTheGlobalModelTheStrongerItIsDrawnToIt) {
  Study study = PhantomStudy();
  const std::vector<PreparedCase> cases = HarmonizedPhantoms(2, study);
  const NamedTensors start = InitialWeights(study);
  const auto distance_with = [&](double proximal, bool alone) {
    study.training.proximal = proximal;
    absl::StatusOr<Trainer> trainer = Trainer::Create(study, "cpu", kThreads);
    EXPECT_OK(trainer);
    TrainingTask task = Steps(20);
    task.alone = alone;
    const auto result = trainer->Train(start, cases, task, {}, {});
    EXPECT_OK(result);
    double sum = 0;
    for (const auto& [name, tensor] : result->weights) {
      for (std::size_t i = 0; i < tensor.values.size(); ++i) {
        const double change = tensor.values[i] - start.at(name).values[i];
        sum += change * change;
      }
    }
    return std::sqrt(sum);
  };

  const double free = distance_with(0, false);
  EXPECT_LT(distance_with(5, false), 0.8 * free);
  EXPECT_EQ(distance_with(5, true), free);
}

TEST(Trainer, PredictsOnTheCasesOwnGrid) {
  Study study = PhantomStudy();
  study.training.patch_size = {32, 32, 32};  // larger than the volume
  PreparedCase phantom = Harmonized(Phantom(1), study);
  phantom.reference_grid.size = {10, 20, 40};
  phantom.reference_grid.spacing_mm = {2, 1, 0.5};
  phantom.reference_grid.origin_mm = {0.5, 0, -0.25};
  ASSERT_OK_AND_ASSIGN(Trainer trainer, Trainer::Create(study, "cpu", 1));

  ASSERT_OK_AND_ASSIGN(const LabelMap labels, trainer.Predict(InitialWeights(study), phantom));

  EXPECT_EQ(labels.geometry, phantom.reference_grid);
  EXPECT_EQ(labels.voxels.size(), std::size_t{10 * 20 * 40});
}

TEST(Trainer, NamesItsDeviceAndRefusesOneThatIsNotThere) {
  const Study study = PhantomStudy();

  ASSERT_OK_AND_ASSIGN(const Trainer trainer, Trainer::Create(study, "cpu", 2));
  EXPECT_EQ(trainer.device_name(), "CPU, 2 threads, float32");
  EXPECT_THAT(Trainer::Create(study, "tpu", 0),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"tpu\"")));
  EXPECT_THAT(Trainer::Create(study, "cpu", -1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("-1")));
  EXPECT_THAT(Trainer::Create(study, "cuda:99", 0),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("cuda:99")));
}

/// After one step of plain SGD at rate 0.1 whose gradients are not limited.
NamedTensors AfterAStep(Study study, const NamedTensors* drawn_to, const NamedTensors* correction) {
  study.training.momentum = 0;
  study.training.weight_decay = 0;
  study.training.learning_rate = 0.1;
  study.training.gradient_norm_limit = 1e9;
  absl::StatusOr<Trainer> trainer = Trainer::Create(study, "cpu", kThreads);
  EXPECT_OK(trainer);
  TrainingTask task = Steps(1);
  task.drawn_to = drawn_to;
  task.correction = correction;
  const auto result =
      trainer->Train(InitialWeights(study), HarmonizedPhantoms(1, study), task, {}, {});
  EXPECT_OK(result);
  return result.ok() ? result->weights : NamedTensors();
}

/// Every value of `after` is that of `plain` and `more`.
void ExpectFurtherBy(float more, const Tensor& after, const Tensor& plain) {
  ASSERT_EQ(after.values.size(), plain.values.size());
  for (std::size_t i = 0; i < after.values.size(); ++i) {
    ASSERT_NEAR(after.values[i], plain.values[i] + more, 1e-6) << i;
  }
}

// SCAFFOLD; a parameter that the correction lacks is trained as without it.
TEST(Trainer, CorrectsTheGradientsOfTheParametersThatItIsGiven) {
  const Study study = PhantomStudy();
  const std::string name = "encoder.stages.0.0.convs.0.conv.weight";
  NamedTensors correction = {{name, InitialWeights(study).at(name)}};
  for (float& value : correction.at(name).values) value = 2;

  const NamedTensors plain = AfterAStep(study, nullptr, nullptr);
  const NamedTensors corrected = AfterAStep(study, nullptr, &correction);

  for (const auto& [tensor, values] : plain) {
    ExpectFurtherBy(tensor == name ? -0.2F : 0, corrected.at(tensor), values);
  }
}

// Ditto.
TEST(Trainer, DrawsASitesOwnModelToTheGlobalOne) {
  Study study = PhantomStudy();
  study.training.proximal = 0.3;
  const NamedTensors plain = AfterAStep(study, nullptr, nullptr);
  study.training.personal = 0.5;
  NamedTensors global = InitialWeights(study);
  EXPECT_EQ(AfterAStep(study, &global, nullptr), plain) << "where it begins nothing draws";
  for (auto& [name, tensor] : global) {
    for (float& value : tensor.values) value += 1;
  }

  const NamedTensors drawn = AfterAStep(study, &global, nullptr);

  // What has no gradient takes no part: a coarser head, and biases that normalisation cancels.
  const NamedTensors start = InitialWeights(study);
  int trained = 0;
  for (const auto& [name, tensor] : plain) {
    if (tensor == start.at(name)) continue;
    ++trained;
    ExpectFurtherBy(0.1F * 0.5F, drawn.at(name), tensor);
  }
  EXPECT_GT(trained, 20);
}

TEST(Trainer, LearnsOnAGpuAsOnTheCpu_CUDA) {
  for (const auto precision :
       {TrainingPlan::Precision::kFloat32, TrainingPlan::Precision::kMixed}) {
    Study study = PhantomStudy();
    study.training.precision = precision;
    study.training.deep_supervision = true;
    absl::StatusOr<Trainer> gpu = Trainer::Create(study, "cuda", kThreads);
    if (absl::IsFailedPrecondition(gpu.status())) GTEST_SKIP() << gpu.status().message();
    ASSERT_OK(gpu);
    const std::vector<PreparedCase> cases = HarmonizedPhantoms(3, study);
    const NamedTensors start = InitialWeights(study);
    ASSERT_OK_AND_ASSIGN(Trainer cpu, Trainer::Create(study, "cpu", kThreads));

    ASSERT_OK_AND_ASSIGN(const TrainingResult here, cpu.Train(start, cases, Steps(20), {}, {}));
    ASSERT_OK_AND_ASSIGN(const TrainingResult there, gpu->Train(start, cases, Steps(20), {}, {}));
    ASSERT_OK_AND_ASSIGN(const TrainingResult again, gpu->Train(start, cases, Steps(20), {}, {}));

    EXPECT_NEAR(here.mean_loss, there.mean_loss, 0.02 * std::abs(here.mean_loss) + 0.01);
    EXPECT_EQ(there.weights, again.weights);
  }
}

TEST(Trainer, TakesABatchInPiecesToTheSameWeightsButForRounding) {
  Study study = PhantomStudy();
  study.training.batch_size = 5;
  study.training.deep_supervision = true;
  const std::vector<PreparedCase> cases = HarmonizedPhantoms(2, study);
  const NamedTensors start = InitialWeights(study);
  ASSERT_OK_AND_ASSIGN(Trainer whole, Trainer::Create(study, "cpu", 1));
  ASSERT_OK_AND_ASSIGN(const TrainingResult expected, whole.Train(start, cases, Steps(1), {}, {}));
  for (const std::int64_t at_once : {1, 2, 4}) {
    ASSERT_OK_AND_ASSIGN(Trainer pieces,
                         Trainer::Create(study, "cpu", 1, {.patches_at_once = at_once}));

    ASSERT_OK_AND_ASSIGN(const TrainingResult result, pieces.Train(start, cases, Steps(1), {}, {}));

    EXPECT_NEAR(result.mean_loss, expected.mean_loss, 1e-5);
    for (const auto& [name, tensor] : expected.weights) {
      for (std::size_t i = 0; i < tensor.values.size(); ++i) {
        ASSERT_NEAR(result.weights.at(name).values[i], tensor.values[i], 1e-6) << name;
      }
    }
  }
}

TEST(Trainer, RefusesPiecesOfABatchThatNormalisesOverAllOfIt) {
  Study study = PhantomStudy();
  study.network.norm = NetworkPlan::Norm::kBatch;
  const std::vector<PreparedCase> cases = HarmonizedPhantoms(1, study);
  ASSERT_OK_AND_ASSIGN(Trainer trainer, Trainer::Create(study, "cpu", 1, {.patches_at_once = 1}));

  EXPECT_THAT(trainer.Train(InitialWeights(study), cases, Steps(1), {}, {}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("patches_at_once")));
}

TEST(EstimateTrainingMemory, ShrinksWithThePiecesOfABatch) {
  Study study = PhantomStudy();
  study.training.patch_size = {64, 64, 64};
  study.training.batch_size = 8;
  const std::int64_t whole = EstimateTrainingMemory(study);
  const std::int64_t quarters = EstimateTrainingMemory(study, {.patches_at_once = 2});
  study.training.batch_size = 2;

  EXPECT_LT(quarters, whole);
  EXPECT_GE(quarters, EstimateTrainingMemory(study));
}

TEST(EstimateTrainingMemory, GrowsWithTheBatch) {
  Study study = PhantomStudy();
  study.training.patch_size = {64, 64, 64};
  const std::int64_t two = EstimateTrainingMemory(study);
  study.training.batch_size = 8;
  const std::int64_t eight = EstimateTrainingMemory(study);

  EXPECT_GT(two, 400LL << 20U);
  EXPECT_GT(eight, two + (two - (400LL << 20U)) * 2);
}

}  // namespace
}  // namespace isoscan
