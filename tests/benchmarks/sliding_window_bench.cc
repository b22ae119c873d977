// Our side of `tests/benchmarks/beside sliding_window`: a head through the network window by
// window, and the same number of windows through the network alone, which is the limit; and what
// becomes of scores, beside the memory traffic that it cannot do without.
//
//   sliding_window_bench sliding_window SCRATCH IMAGE DxHxW
//
// Of the image the middle D x H x W voxels are taken. The protocol is that of imaging_bench.
#include <fmt/format.h>
#include <torch/types.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "client/imaging/image_file.h"
#include "client/imaging/score_labels.h"
#include "client/inference/predictor.h"
#include "client/inference/window_sums.h"
#include "client/inference/windows.h"
#include "client/network/compute_device.h"
#include "client/network/plain_conv_unet.h"
#include "client/network/weights_bridge.h"
#include "common/process/resources.h"
#include "common/study/initial_weights.h"
#include "tests/benchmarks/beside_protocol.h"
#include "tests/benchmarks/peers_plan.h"

namespace isoscan {
namespace {

/// The middle of the image, less its mean and over its deviation.
PreparedCase MiddleOf(const std::string& path, const std::array<std::int64_t, 3>& size) {
  const Volume head = Unwrap(ReadVolume(path));
  const auto& whole = head.geometry.size;
  PreparedCase middle;
  middle.grid.size = {size[2], size[1], size[0]};
  std::array<std::int64_t, 3> first{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    first[axis] = (whole[axis] - middle.grid.size[axis]) / 2;
    if (first[axis] < 0) Fail(fmt::format("{} is smaller than that", path));
  }
  std::vector<float> image;
  double sum = 0;
  double square = 0;
  for (std::int64_t z = 0; z < size[0]; ++z) {
    for (std::int64_t y = 0; y < size[1]; ++y) {
      const std::int64_t row = ((first[2] + z) * whole[1] + first[1] + y) * whole[0] + first[0];
      for (std::int64_t x = 0; x < size[2]; ++x) {
        const float value = head.voxels[static_cast<std::size_t>(row + x)];
        image.push_back(value);
        sum += value;
        square += static_cast<double>(value) * static_cast<double>(value);
      }
    }
  }
  const auto voxels = static_cast<double>(image.size());
  const double mean = sum / voxels;
  const double deviation = std::sqrt(square / voxels - mean * mean);
  for (float& value : image) {
    value = static_cast<float>((static_cast<double>(value) - mean) / deviation);
  }
  middle.image = std::move(image);
  middle.reference_grid = middle.grid;
  return middle;
}

template <typename Work>
Run Timed(Work work) {
  const std::clock_t processor = std::clock();
  Run run{.milliseconds = Milliseconds(work)};
  run.processor_milliseconds = static_cast<double>(std::clock() - processor) * 1e3 / CLOCKS_PER_SEC;
  return run;
}

/// One window goes first and is not timed.
Run Predict(const std::string& path, const std::array<std::int64_t, 3>& size,
            TrainingPlan::Precision precision) {
  const Study study = PeersPlan(precision);
  const PreparedCase middle = MiddleOf(path, size);
  Predictor predictor = Unwrap(Predictor::Create(study, InitialWeights(study), "cpu", Threads()));
  Unwrap(predictor.Predict(MiddleOf(path, study.training.patch_size)));
  LabelMap labels;
  Run run = Timed([&] { labels = Unwrap(predictor.Predict(middle)); });
  std::array<double, 3> shares{};
  for (const std::uint8_t label : labels.voxels) ++shares[label];
  for (double& share : shares) share /= static_cast<double>(labels.voxels.size());
  run.result = fmt::format(
      R"({{"windows": {}, "shares": [{:.4f}, {:.4f}, {:.4f}], "device": "{}"}})",
      CountWindows(study, middle.grid), shares[0], shares[1], shares[2], predictor.device_name());
  return run;
}

Run NetworkAlone(const std::array<std::int64_t, 3>& size, TrainingPlan::Precision precision) {
  const Study study = PeersPlan(precision);
  const ComputeDevice device = Unwrap(ChooseDevice("cpu", Threads(), precision));
  device.Prepare();
  PlainConvUNet network(1, study.classes(), study.network);
  if (!LoadWeights("these", InitialWeights(study), *network).ok()) Fail("weights");
  network->PrepareInference(device.device, device.type);
  const c10::InferenceMode no_autograd;
  const Triple& patch = study.training.patch_size;
  const torch::Tensor window = at::randn({1, 1, patch[0], patch[1], patch[2]}).to(device.type);
  Geometry grid;
  grid.size = {size[2], size[1], size[0]};
  const std::int64_t windows = CountWindows(study, grid);
  network(window);
  Run run = Timed([&] {
    for (std::int64_t i = 0; i < windows; ++i) network(window);
  });
  run.result = fmt::format(R"({{"windows": {}}})", windows);
  return run;
}

/// Of scores [classes, voxels of a window], more windows than a core's cache holds.
constexpr std::size_t kWindowsOfScores = 8;

std::vector<float> RandomScores(std::int64_t count) {
  const torch::Tensor noise = at::randn({count});
  const float* const values = noise.data_ptr<float>();
  return {values, values + count};
}

/// Adds every window's scores: by their Gaussian weights, or just adds them to memory that lies in
/// one piece.
Run GaussianSums(const std::array<std::int64_t, 3>& size, bool traffic_alone) {
  const Study study = PeersPlan(TrainingPlan::Precision::kFloat32);
  const Windows windows({size[0], size[1], size[2]}, study.training.patch_size,
                        study.evaluation.overlap);
  const std::int64_t values =
      study.classes() * windows.window[0] * windows.window[1] * windows.window[2];
  std::vector<std::vector<float>> scores(kWindowsOfScores, RandomScores(values));
  const std::vector<Triple> corners = windows.Corners();
  const SliceTaker forget = [](std::int64_t, std::span<const float>) {};
  if (!traffic_alone) {
    return Timed([&] {
      WindowSums sums(windows, study.classes(), forget);
      for (std::size_t i = 0; i < corners.size(); ++i) {
        if (!sums.Add(corners[i], scores[i % kWindowsOfScores].data()).ok()) Fail("sums");
      }
      if (!sums.Finish().ok()) Fail("sums");
    });
  }
  const std::int64_t kept =
      study.classes() * windows.window[0] * windows.padded[1] * windows.padded[2];
  const torch::Tensor sums = at::zeros({kept});
  return Timed([&] {
    for (std::size_t i = 0; i < corners.size(); ++i) {
      std::vector<float>& of_window = scores[i % kWindowsOfScores];
      const std::int64_t first = static_cast<std::int64_t>(i) * values % (kept - values);
      sums.narrow(0, first, values).add_(at::from_blob(of_window.data(), {values}));
    }
  });
}

/// Labels of a volume's scores on a grid `finer` times as fine, or one pass over those scores and
/// labels.
Run LabelsOf(const std::array<std::int64_t, 3>& size, double finer, bool traffic_alone) {
  const std::int64_t classes = PeersPlan(TrainingPlan::Precision::kFloat32).classes();
  Geometry from;
  from.size = {size[2], size[1], size[0]};
  Geometry to = from;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    to.size[axis] = std::llround(finer * static_cast<double>(from.size[axis]));
    to.spacing_mm[axis] = from.spacing_mm[axis] / finer;
  }
  std::vector<float> scores = RandomScores(classes * from.voxels());
  if (!traffic_alone) {
    LabelMap labels;
    return Timed([&] { labels = ArgMaxResampled(scores, classes, from, to); });
  }
  torch::Tensor sums = at::zeros({from.voxels()});
  return Timed([&] {
    torch::Tensor labels = at::zeros({to.voxels()}, torch::kUInt8);
    at::sum_out(sums, at::from_blob(scores.data(), {classes, from.voxels()}), 0);
  });
}

Ways WaysOf(const std::string& path, const std::array<std::int64_t, 3>& size) {
  using Precision = TrainingPlan::Precision;
  Ways ways{{"float32: windows", [=] { return Predict(path, size, Precision::kFloat32); }},
            {"limit", [=] { return NetworkAlone(size, Precision::kFloat32); }}};
  for (const bool traffic_alone : {false, true}) {
    const std::string suffix = traffic_alone ? ", memory traffic alone" : "";
    ways["scores: Gaussian sums" + suffix] = [=] { return GaussianSums(size, traffic_alone); };
    ways["scores: labels" + suffix] = [=] { return LabelsOf(size, 1, traffic_alone); };
    ways["scores: labels on a grid half as fine again" + suffix] = [=] {
      return LabelsOf(size, 1.5, traffic_alone);
    };
  }
  if (CpuHasBfloat16()) {
    ways["bfloat16: windows"] = [=] { return Predict(path, size, Precision::kMixed); };
    ways["bfloat16: network alone"] = [=] { return NetworkAlone(size, Precision::kMixed); };
  }
  return ways;
}

}  // namespace
}  // namespace isoscan

int main(int argc, char** argv) {
  isoscan::KeepFreedMemory();
  std::array<long, 3> size{};
  if (argc != 5 || std::sscanf(argv[4], "%ldx%ldx%ld", size.data(), &size[1], &size[2]) != 3) {
    isoscan::Fail("usage: sliding_window_bench sliding_window SCRATCH IMAGE DxHxW");
  }
  isoscan::Serve(isoscan::WaysOf(argv[3], {size[0], size[1], size[2]}));
  return 0;
}
