#include "client/inference/predictor.h"

#include <fmt/format.h>
#include <torch/types.h>

#include <algorithm>
#include <cstddef>
#include <utility>

#include "client/imaging/score_labels.h"
#include "client/inference/sliding_window.h"
#include "client/inference/windows.h"
#include "client/network/compute_device.h"
#include "client/network/residual_encoder_unet.h"
#include "client/network/weights_bridge.h"
#include "client/network/without_exceptions.h"
#include "common/status/status_macros.h"
#include "common/study/initial_weights.h"
#include <ATen/ATen.h>

namespace isoscan {
namespace {

constexpr char kForLessMemory[] = "close other programs, or use a machine with more of it";

/// A GPU is not full with one window; on a CPU what lies between two layers stays in the cache for
/// longer with one (docs/performance.md), and every thread has its own.
constexpr std::int64_t kWindowsOnGpu = 8;
constexpr std::int64_t kWindowsOnCpu = 1;
constexpr std::int64_t kMostBytesOfWindows = 2LL << 30U;

Triple SizeOf(const Geometry& grid) { return {grid.size[2], grid.size[1], grid.size[0]}; }

std::int64_t Channels(const Study& study) {
  return static_cast<std::int64_t>(study.channels.size());
}

Windows WindowsOf(const Study& study, const Geometry& grid) {
  return {SizeOf(grid), study.training.patch_size, study.evaluation.overlap};
}

absl::Status CheckImage(const PreparedCase& prepared, std::int64_t channels) {
  const std::int64_t expected = channels * prepared.grid.voxels();
  const auto given = static_cast<std::int64_t>(prepared.image.size());
  if (expected > 0 && given == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("the case holds {} values, expected {} channels of {} x {} x {} voxels", given,
                  channels, prepared.grid.size[2], prepared.grid.size[1], prepared.grid.size[0]));
}

bool ComputesInHalf(const Study& study) {
  return study.training.precision == TrainingPlan::Precision::kMixed && CpuHasBfloat16();
}

/// What a window in work takes at most.
std::int64_t WindowBytes(const Study& study) {
  std::int64_t skips = 0;    // of the encoder, until the decoder has come back to them
  std::int64_t largest = 0;  // of a level
  Triple size = study.training.patch_size;
  for (std::size_t s = 0; s < study.network.stages(); ++s) {
    for (std::size_t axis = 0; axis < 3; ++axis) size[axis] /= study.network.strides[s][axis];
    const std::int64_t values = study.network.features[s] * size[0] * size[1] * size[2];
    skips += values;
    largest = std::max(largest, values);
  }
  const Triple& patch = study.training.patch_size;
  const std::int64_t window = patch[0] * patch[1] * patch[2];
  // Beside the skips, what comes up, both joined, and a convolution's input and output in its own
  // order of memory. Inputs and scores wait for their turn.
  return (ComputesInHalf(study) ? 2 : 4) * (skips + 7 * largest) +
         8 * window * (Channels(study) + 2 * study.classes());
}

}  // namespace

struct Predictor::State {
  State(const Study& declared, ComputeDevice chosen)
      : study(declared), device(std::move(chosen)), network(MakeNetwork(declared)) {}

  absl::Status Load(const NamedTensors& weights);
  absl::Status Slide(const PreparedCase& prepared, const PredictionControl& control,
                     const SliceTaker& take);

  Study study;
  ComputeDevice device;
  std::shared_ptr<SegmentationNetwork> network;
};

absl::Status Predictor::State::Load(const NamedTensors& weights) {
  RETURN_IF_ERROR(LoadWeights("the global model", weights, *network));
  network->PrepareInference(device.device, device.type);
  return absl::OkStatus();
}

absl::Status Predictor::State::Slide(const PreparedCase& prepared, const PredictionControl& control,
                                     const SliceTaker& take) {
  RETURN_IF_ERROR(CheckImage(prepared, Channels(study)));
  const c10::InferenceMode no_autograd;
  const std::int64_t usual = device.device.is_cuda() ? kWindowsOnGpu : kWindowsOnCpu;
  const Windows windows = WindowsOf(study, prepared.grid);
  const std::int64_t batch =
      std::min(windows.count(), control.windows_at_once > 0 ? control.windows_at_once : usual);
  const int workers = device.device.is_cpu() ? WindowsAtOnce(study, device.threads) : 1;
  const WindowWork work{.device = device.device,
                        .type = device.type,
                        .batch = batch,
                        .workers = windows.count() < 2 * workers * batch ? 1 : workers,
                        .mirror_axes = control.mirror_axes,
                        .stop = control.stop,
                        .observe = control.observe};
  return SlideWindow(
      prepared.image, Channels(study), study.classes(), windows, work,
      [this](const torch::Tensor& inputs) { return network->forward(inputs).front(); }, take);
}

absl::StatusOr<Predictor> Predictor::Create(const Study& study, const NamedTensors& weights,
                                            const ComputeDevice& device) {
  return WithoutExceptions("building the network", kForLessMemory,
                           [&]() -> absl::StatusOr<Predictor> {
                             device.Prepare();
                             auto state = std::make_unique<State>(study, device);
                             RETURN_IF_ERROR(state->Load(weights));
                             return Predictor(std::move(state));
                           });
}

absl::StatusOr<Predictor> Predictor::Create(const Study& study, const NamedTensors& weights,
                                            const std::string& device, int threads) {
  ASSIGN_OR_RETURN(const ComputeDevice chosen,
                   ChooseDevice(device, threads, study.training.precision));
  return Create(study, weights, chosen);
}

Predictor::Predictor(std::unique_ptr<State> state) : state_(std::move(state)) {}
Predictor::Predictor(Predictor&&) noexcept = default;
Predictor& Predictor::operator=(Predictor&&) noexcept = default;
Predictor::~Predictor() = default;

absl::StatusOr<LabelMap> Predictor::Predict(const PreparedCase& prepared,
                                            const PredictionControl& control) {
  return WithoutExceptions(
      "predicting on " + device_name(), kForLessMemory, [&]() -> absl::StatusOr<LabelMap> {
        state_->device.Prepare();
        ScoreLabels labels(prepared.grid, prepared.reference_grid, state_->study.classes());
        const std::int64_t slice = prepared.grid.size[0] * prepared.grid.size[1];
        RETURN_IF_ERROR(state_->Slide(prepared, control,
                                      [&](std::int64_t /*z*/, std::span<const float> scores) {
                                        labels.Add(scores.data(), slice);
                                      }));
        return std::move(labels).Take();
      });
}

absl::StatusOr<std::vector<float>> Predictor::Scores(const PreparedCase& prepared,
                                                     const PredictionControl& control) {
  return WithoutExceptions(
      "predicting on " + device_name(), kForLessMemory,
      [&]() -> absl::StatusOr<std::vector<float>> {
        state_->device.Prepare();
        const std::int64_t slice = prepared.grid.size[0] * prepared.grid.size[1];
        std::vector<float> scores(
            static_cast<std::size_t>(state_->study.classes() * prepared.grid.voxels()));
        RETURN_IF_ERROR(
            state_->Slide(prepared, control, [&](std::int64_t z, std::span<const float> of_slice) {
              for (std::int64_t label = 0; label < state_->study.classes(); ++label) {
                const auto values = of_slice.begin() + label * slice;
                std::copy(values, values + slice,
                          scores.begin() + (label * prepared.grid.size[2] + z) * slice);
              }
            }));
        return scores;
      });
}

std::string Predictor::device_name() const { return state_->device.name; }

std::int64_t CountWindows(const Study& study, const Geometry& grid) {
  return WindowsOf(study, grid).count();
}

int WindowsAtOnce(const Study& study, int threads) {
  return threads * WindowBytes(study) <= kMostBytesOfWindows ? threads : 1;
}

std::int64_t EstimateNetworkMemory(const Study& study, std::int64_t windows_at_once) {
  constexpr std::int64_t kProcessBytes = 250LL << 20U;  // LibTorch, ITK and their pools
  std::int64_t parameters = 0;
  for (const auto& [name, shape] : NetworkShapes(study)) parameters += ElementCount(shape);
  // As they are, and as the convolutions take them (PackedConvolution).
  const std::int64_t parameter_bytes = 4 + (ComputesInHalf(study) ? 4 : 16);
  return kProcessBytes + parameter_bytes * parameters + windows_at_once * WindowBytes(study);
}

std::int64_t EstimateScoresMemory(const Study& study, const Geometry& grid,
                                  const Geometry& target) {
  const Windows windows = WindowsOf(study, grid);
  const std::int64_t padded = windows.padded[1] * windows.padded[2];
  const std::int64_t written = target.size[0] * target.size[1];
  const std::int64_t between = target.size[0] * grid.size[1];
  return 4 * study.classes() * ((windows.window[0] + 1) * padded + 2 * written + between) +
         target.voxels();
}

}  // namespace isoscan
