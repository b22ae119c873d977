// Our side of `tests/benchmarks/beside train_step`, which starts it:
//
//   training_bench train_step SCRATCH IMAGE
//
// One step of nnU-Net's plan for the hippocampus: PlainConvUNet with 4 stages (32 to 256 features),
// 9 patches of 40 x 56 x 40, Dice + cross entropy with deep supervision, SGD; patches of noise are
// cut and augmented beside it as in training. A way's name in, its median over three steps out; two
// steps go first and are not timed.
//
// The last number is how long the steps, of which the first has to, waited for their patches.
//
// `limit` is the convolutions of such a step alone in float32, layer by layer, forward and both
// gradients; `LibTorch's convolutions` the same by LibTorch. ISOSCAN_THREADS: 2 unless it says
// otherwise.
#include <fmt/format.h>
#include <torch/types.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "client/network/compute_device.h"
#include "client/network/kernel_functions.h"
#include "client/training/trainer.h"
#include "common/process/resources.h"
#include "common/random/philox.h"
#include "common/study/initial_weights.h"
#include "tests/benchmarks/beside_protocol.h"
#include "tests/benchmarks/peers_plan.h"
#include <ATen/ATen.h>

namespace isoscan {
namespace {

constexpr std::int64_t kWarm = 2;
constexpr std::int64_t kSteps = 3;

Study Plan(TrainingPlan::Precision precision) {
  Study study = PeersPlan(precision);
  study.training.batch_size = 9;
  study.training.deep_supervision = true;
  return study;
}

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

Run Train(TrainingPlan::Precision precision, TrainingPlan::Augmentation augmentation) {
  Study study = Plan(precision);
  study.training.augmentation = augmentation;
  PreparedCase noise;
  noise.grid.size = {44, 60, 44};
  noise.reference_grid = noise.grid;
  RandomStream random(1, "noise");
  std::vector<float> image;
  std::vector<std::uint8_t> labels;
  for (std::int64_t i = 0; i < noise.grid.voxels(); ++i) {
    image.push_back(static_cast<float>(random.Normal()));
    labels.push_back(static_cast<std::uint8_t>(i % 3));
  }
  noise.image = std::move(image);
  noise.labels = std::move(labels);
  const std::vector<PreparedCase> cases{noise};
  Trainer trainer = Unwrap(Trainer::Create(study, "cpu", Threads()));
  const TrainingTask task{.steps = kWarm + kSteps, .total_steps = 1000, .random_stream = "x"};
  std::vector<double> steps;
  double loss = 0;
  auto before = std::chrono::steady_clock::now();
  const auto trained =
      Unwrap(trainer.Train(InitialWeights(study), cases, task, {}, [&](std::int64_t, double value) {
        const auto now = std::chrono::steady_clock::now();
        steps.push_back(std::chrono::duration<double, std::milli>(now - before).count());
        before = now;
        loss = value;
      }));
  steps.erase(steps.begin(), steps.begin() + kWarm);
  return {.milliseconds = Median(steps),
          .result = fmt::format(
              R"({{"loss": {:.4f}, "device": "{}", "waited for patches, ms, all steps": {:.1f}}})",
              loss, trainer.device_name(), trained.seconds_waiting * 1e3)};
}

/// The convolutions of a step that have stride 1 and several features; the others do 3 % of its
/// arithmetic.
struct Layer {
  std::int64_t in;
  std::int64_t out;
  std::array<std::int64_t, 3> size;
  int times;
};
constexpr Layer kLayers[] = {{1, 32, {40, 56, 40}, 1},    {32, 32, {40, 56, 40}, 2},
                             {64, 32, {40, 56, 40}, 1},   {64, 64, {20, 28, 20}, 2},
                             {128, 64, {20, 28, 20}, 1},  {128, 128, {10, 14, 10}, 2},
                             {256, 128, {10, 14, 10}, 1}, {256, 256, {5, 7, 5}, 1}};

Run Convolutions(TrainingPlan::Precision precision, bool ours) {
  const ComputeDevice device = Unwrap(ChooseDevice("cpu", Threads(), precision));
  device.Prepare();
  const std::int64_t batch = Plan(precision).training.batch_size;
  double total = 0;
  std::string rows;
  for (const Layer& layer : kLayers) {
    const auto [depth, height, width] = layer.size;
    torch::Tensor input = at::randn({batch, layer.in, depth, height, width}).to(device.type);
    if (layer.in > 1) input.set_requires_grad(true);
    const torch::Tensor weight =
        (at::randn({layer.out, layer.in, 3, 3, 3}) * 0.05).set_requires_grad(true);
    const torch::Tensor outer = at::randn({batch, layer.out, depth, height, width}).to(device.type);
    std::vector<double> forward;
    std::vector<double> backward;
    for (int turn = 0; turn < 4; ++turn) {
      torch::Tensor output;
      forward.push_back(Milliseconds([&] {
        output = ours ? DirectConvolution(input, weight, {}, {1, 1, 1})
                      : at::conv3d(input, weight.to(device.type), {}, 1, 1);
      }));
      backward.push_back(Milliseconds([&] { output.backward(outer); }));
      if (input.grad().defined()) input.mutable_grad() = torch::Tensor();
      weight.mutable_grad() = torch::Tensor();
    }
    const double gflop =
        2e-9 * static_cast<double>(27 * batch * layer.in * layer.out * depth * height * width);
    const double back = layer.in > 1 ? 2 : 1;
    const double there_ms = *std::min_element(forward.begin(), forward.end());
    const double back_ms = *std::min_element(backward.begin(), backward.end());
    rows += fmt::format(R"({}"{} to {}, {}x{}x{}": [{:.0f}, {:.0f}])", rows.empty() ? "" : ", ",
                        layer.in, layer.out, depth, height, width, gflop / there_ms * 1e3,
                        gflop * back / back_ms * 1e3);
    total += layer.times * (there_ms + back_ms);
  }
  return {.milliseconds = total,
          .result = fmt::format(R"({{"GFLOP/s forward, backward": {{{}}}}})", rows)};
}

Ways AllWays() {
  using Precision = TrainingPlan::Precision;
  using Augmentation = TrainingPlan::Augmentation;
  Ways ways{{"float32: step", [] { return Train(Precision::kFloat32, Augmentation::kIntensity); }},
            {"float32: step, nnU-Net's augmentation",
             [] { return Train(Precision::kFloat32, Augmentation::kNnunet); }},
            {"limit", [] { return Convolutions(Precision::kFloat32, true); }},
            {"float32: LibTorch's convolutions",
             [] { return Convolutions(Precision::kFloat32, false); }}};
  if (CpuHasBfloat16()) {
    ways["bfloat16: step"] = [] { return Train(Precision::kMixed, Augmentation::kIntensity); };
    ways["bfloat16: convolutions"] = [] { return Convolutions(Precision::kMixed, true); };
    ways["bfloat16: LibTorch's convolutions"] = [] {
      return Convolutions(Precision::kMixed, false);
    };
  }
  return ways;
}

}  // namespace
}  // namespace isoscan

int main() {
  isoscan::KeepFreedMemory();
  isoscan::Serve(isoscan::AllWays());
  return 0;
}
