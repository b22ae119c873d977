// Time of a training step, of whole-volume prediction and of cutting a batch, on a phantom of the
// plan's patch size. Threads: ISOSCAN_THREADS, otherwise every available core.
#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/training/patch_sampler.h"
#include "client/training/trainer.h"
#include "common/process/resources.h"
#include "common/random/philox.h"
#include "common/study/initial_weights.h"

namespace isoscan {
namespace {

constexpr std::int64_t kStepsPerIteration = 3;

/// The plan for Task04_Hippocampus in docs/performance.md.
Study HippocampusPlan(TrainingPlan::Precision precision) {
  Study study;
  study.channels = {"T1w"};
  study.labels = {"anterior", "posterior"};
  study.network.features = {16, 32, 64, 128};
  study.network.strides = {{1, 1, 1}, {2, 2, 2}, {2, 2, 2}, {2, 2, 2}};
  study.network.kernels.assign(4, {3, 3, 3});
  study.training.patch_size = {40, 56, 40};
  study.training.batch_size = 4;
  study.training.mirror_axes = {2};
  study.training.precision = precision;
  return study;
}

/// The plan for lgg in docs/performance.md: thick slices.
Study LowGradeGliomaPlan(TrainingPlan::Precision precision) {
  Study study = HippocampusPlan(precision);
  study.labels = {"tumour"};
  study.network.features = {16, 32, 64, 128, 160};
  study.network.strides = {{1, 1, 1}, {1, 2, 2}, {2, 2, 2}, {2, 2, 2}, {2, 2, 2}};
  study.network.kernels.assign(5, {3, 3, 3});
  study.network.kernels.front() = {1, 3, 3};
  study.training.patch_size = {16, 96, 96};
  study.training.batch_size = 2;
  return study;
}

Study PlanOf(const benchmark::State& state) {
  const auto precision =
      state.range(1) == 0 ? TrainingPlan::Precision::kFloat32 : TrainingPlan::Precision::kMixed;
  return state.range(0) == 0 ? HippocampusPlan(precision) : LowGradeGliomaPlan(precision);
}

/// Noise of a tenth more than the patch along each axis, every fifth voxel labelled.
PreparedCase NoiseFor(const Study& study) {
  PreparedCase noise;
  const Triple& patch = study.training.patch_size;
  noise.grid.size = {patch[2] * 11 / 10, patch[1] * 11 / 10, patch[0] * 11 / 10};
  noise.reference_grid = noise.grid;
  RandomStream random(1, "noise");
  std::vector<float> image;
  std::vector<std::uint8_t> labels;
  for (std::int64_t i = 0; i < noise.grid.voxels(); ++i) {
    image.push_back(static_cast<float>(random.Normal()));
    labels.push_back(static_cast<std::uint8_t>(i % 5 == 0));
  }
  noise.image = std::move(image);
  noise.labels = std::move(labels);
  return noise;
}

int Threads() {
  const char* threads = std::getenv("ISOSCAN_THREADS");
  return threads == nullptr ? 0 : std::atoi(threads);
}

void Fail(benchmark::State& state, const absl::Status& status) {
  state.SkipWithError(status.ToString().c_str());
}

void BM_TrainStep(benchmark::State& state) {
  const Study study = PlanOf(state);
  const std::vector<PreparedCase> cases{NoiseFor(study)};
  const NamedTensors weights = InitialWeights(study);
  absl::StatusOr<Trainer> trainer = Trainer::Create(study, "auto", Threads());
  if (!trainer.ok()) return Fail(state, trainer.status());
  const TrainingTask task{.steps = kStepsPerIteration, .total_steps = 100, .random_stream = "x"};
  for (auto _ : state) {
    const absl::StatusOr<TrainingResult> result = trainer->Train(weights, cases, task, {}, {});
    if (!result.ok()) return Fail(state, result.status());
  }
  state.SetLabel(trainer->device_name());
  state.counters["ms_per_step"] =
      benchmark::Counter(static_cast<double>(state.iterations() * kStepsPerIteration) / 1e3,
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void BM_Predict(benchmark::State& state) {
  const Study study = PlanOf(state);
  const PreparedCase noise = NoiseFor(study);
  const NamedTensors weights = InitialWeights(study);
  absl::StatusOr<Trainer> trainer = Trainer::Create(study, "auto", Threads());
  if (!trainer.ok()) return Fail(state, trainer.status());
  for (auto _ : state) {
    const absl::StatusOr<LabelMap> result = trainer->Predict(weights, noise);
    if (!result.ok()) return Fail(state, result.status());
  }
  state.SetLabel(trainer->device_name());
}

/// Mean time of one thread for a batch, over as many as meet every kind of augmentation. It is
/// hidden as long as it is shorter than a step (BM_TrainStep).
void BM_CutBatch(benchmark::State& state) {
  Study study = PlanOf(state);
  study.training.augmentation = static_cast<TrainingPlan::Augmentation>(state.range(2));
  const std::vector<PreparedCase> cases{NoiseFor(study)};
  const PatchSampler sampler(study, cases, "x", 1);
  std::int64_t step = 0;
  for (auto _ : state) benchmark::DoNotOptimize(sampler.Sample(step++));
}

// Plan (0 hippocampus, 1 lgg), precision (0 float32, 1 mixed).
BENCHMARK(BM_TrainStep)
    ->ArgNames({"lgg", "mixed"})
    ->ArgsProduct({{0, 1}, {0, 1}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK(BM_Predict)
    ->ArgNames({"lgg", "mixed"})
    ->ArgsProduct({{0, 1}, {0, 1}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
// Augmentation (0 intensity, 1 nnunet, 2 none).
BENCHMARK(BM_CutBatch)
    ->ArgNames({"lgg", "mixed", "augmentation"})
    ->ArgsProduct({{0, 1}, {0}, {2, 0, 1}})
    ->MinTime(2)
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace isoscan

int main(int argc, char** argv) {
  isoscan::KeepFreedMemory();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
