#include "client/training/trainer.h"

#include <fmt/format.h>
#include <torch/types.h>
#include <torch/utils.h>
#include <torch/version.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <new>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "client/inference/predictor.h"
#include "client/network/compute_device.h"
#include "client/network/residual_encoder_unet.h"
#include "client/network/weights_bridge.h"
#include "client/network/without_exceptions.h"
#include "client/process_group/process_group.h"
#include "client/training/batch_gradient.h"
#include "client/training/optimizer.h"
#include "client/training/patch_loader.h"
#include "client/training/patch_sampler.h"
#include "client/training/segmentation_loss.h"
#include "client/training/shared_task.h"
#include "common/process/resources.h"
#include "common/status/status_macros.h"
#include "common/study/initial_weights.h"
#include "common/study/schedule.h"
#include "common/weights/program_digest.h"
#include "common/weights/safetensors.h"
#include "common/weights/sha256.h"
#include <ATen/ATen.h>
#include <c10/util/Exception.h>

namespace isoscan {
namespace {

/// Who draws when every site shall draw the same numbers.
constexpr char kSharedStream[] = "shared";

std::int64_t Channels(const Study& study) {
  return static_cast<std::int64_t>(study.channels.size());
}

constexpr char kForLessMemory[] =
    "set patches_at_once under [device] in client.toml, use a smaller patch_size or batch_size, or "
    "close other programs";

int RanksOf(const ProcessGroup* group) { return group == nullptr ? 1 : group->size(); }

/// The most patches that a process computes at once.
std::int64_t LargestPiece(const TrainingPlan& plan, const TrainerOptions& options) {
  const int ranks = RanksOf(options.group);
  const std::int64_t part = (plan.batch_size + ranks - 1) / ranks;
  return options.patches_at_once > 0 ? std::min(part, options.patches_at_once) : part;
}

/// Whether a batch can be computed in pieces as `options` ask for.
absl::Status CheckPieces(const Study& study, const TrainerOptions& options) {
  const std::int64_t batch = study.training.batch_size;
  const int ranks = RanksOf(options.group);
  if (batch < ranks) {
    return absl::InvalidArgumentError(
        fmt::format("study {} has a batch of {}, too few patches for {} ranks (WORLD_SIZE): start "
                    "at most {}",
                    study.name, batch, ranks, batch));
  }
  if (study.network.norm == NetworkPlan::Norm::kBatch &&
      LargestPiece(study.training, options) < batch) {
    return absl::FailedPreconditionError(fmt::format(
        "study {} has norm = \"batch\", whose statistics are over all {} patches of a batch: it is "
        "trained in one process, and with device.patches_at_once = 0",
        study.name, batch));
  }
  return absl::OkStatus();
}

/// A batch as LibTorch takes it.
struct TensorBatch {
  torch::Tensor images;  ///< [patches, channels, D, H, W]
  torch::Tensor labels;  ///< [patches, D, H, W]
};

/// `pinned`: in memory from which a GPU copies by itself while the program goes on.
TensorBatch TensorsOf(PatchBatch made, const Study& study, bool pinned) {
  const auto batch = std::make_shared<PatchBatch>(std::move(made));
  const auto [z, y, x] = study.training.patch_size;
  const auto patches = static_cast<std::int64_t>(batch->labels.size()) / (z * y * x);
  const auto keep = [batch](void*) {};
  TensorBatch tensors{
      .images = at::from_blob(batch->images.data(), {patches, Channels(study), z, y, x}, keep),
      .labels = at::from_blob(batch->labels.data(), {patches, z, y, x}, keep, torch::kUInt8)};
  if (pinned) tensors = {tensors.images.pin_memory(), tensors.labels.pin_memory()};
  return tensors;
}

absl::Status CheckCase(const PreparedCase& prepared, std::size_t index, std::int64_t channels) {
  const std::int64_t expected = channels * prepared.grid.voxels();
  const auto given = static_cast<std::int64_t>(prepared.image.size());
  if (expected == 0 || given != expected) {
    return absl::InvalidArgumentError(fmt::format(
        "case {} holds {} values, expected {} channels of {} x {} x {} voxels", index, given,
        channels, prepared.grid.size[2], prepared.grid.size[1], prepared.grid.size[0]));
  }
  return absl::OkStatus();
}

/// SHA-256 of all that the result of a task depends on. `study` is known by its text.
std::string DigestOf(const Study& study, const std::string& device, const TrainerOptions& options,
                     const NamedTensors& weights, std::span<const PreparedCase> cases,
                     const TrainingTask& task) {
  Sha256 digest;
  digest.Update(fmt::format("checkpoint 2\nprogram {}\ntorch {}\ndevice {}\nstudy {}\n",
                            ProgramDigest(), TORCH_VERSION, device, study.digest));
  digest.Update(fmt::format("ranks {} patches at once {}\n", RanksOf(options.group),
                            options.patches_at_once));
  digest.Update(fmt::format("round {} steps {} from {} of {} alone {} stream {}\n", task.round,
                            task.steps, task.first_step, task.total_steps, task.alone,
                            task.random_stream));
  for (const NamedTensors* tensors : {&weights, task.drawn_to, task.correction}) {
    if (tensors == nullptr) {
      digest.Update("none\n");
      continue;
    }
    digest.Update(EncodeSafetensorsHeader(ShapesOf(*tensors), {}));
    for (const auto& [name, tensor] : *tensors) {
      digest.Update({reinterpret_cast<const char*>(tensor.values.data()),
                     tensor.values.size() * sizeof(float)});
    }
  }
  for (const PreparedCase& prepared : cases) {
    digest.Update(prepared.digest.empty() ? TrainingDigest(prepared) : prepared.digest);
  }
  return std::move(digest).Finish();
}

/// One tensor for each parameter of the network, in their order and on its device; 0 where `given`
/// has none of its name.
std::vector<torch::Tensor> InOrder(const torch::nn::Module& network, const NamedTensors& given) {
  std::vector<torch::Tensor> tensors;
  for (const auto& parameter : network.named_parameters()) {
    torch::Tensor tensor = at::zeros_like(parameter.value());
    if (const auto found = given.find(parameter.key()); found != given.end()) {
      // from_blob takes no const pointer; the tensor is only read.
      tensor.copy_(at::from_blob(const_cast<float*>(found->second.values.data()), tensor.sizes()));
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

absl::Status NotFinite(std::string_view what, double value, std::int64_t step,
                       const TrainingPlan& plan, const CheckpointKeeper& checkpoints) {
  return absl::DataLossError(
      fmt::format("the {} is {} at step {}, so training stopped: {}. A lower learning_rate than {} "
                  "may help, and so may a model that has not gone astray already: tell the "
                  "coordinator",
                  what, std::isnan(value) ? "not a number" : "infinite", step,
                  checkpoints.LastGood(), plan.learning_rate));
}

/// A guess of how long a task's digest and its first checkpoint take, on the slow side.
std::chrono::duration<double> ExpectedWrite(const NamedTensors& weights, const TrainingPlan& plan) {
  constexpr double kDiskBytesPerSecond = 1e8;
  constexpr double kHashBytesPerSecond = 4e8;
  double values = 0;
  for (const auto& [name, tensor] : weights) values += static_cast<double>(tensor.values.size());
  const double copies = plan.optimizer == TrainingPlan::Optimizer::kAdamW ? 3 : 2;
  const double state_bytes = values * copies * sizeof(float);
  return std::chrono::duration<double>(state_bytes / kDiskBytesPerSecond +
                                       state_bytes / kHashBytesPerSecond);
}

}  // namespace

struct Trainer::State {
  State(const Study& declared, ComputeDevice chosen, TrainerOptions site_options)
      : study(declared),
        device(std::move(chosen)),
        options(std::move(site_options)),
        network(MakeNetwork(declared)) {
    network->to(device.device);
  }

  absl::StatusOr<TrainingResult> Train(const NamedTensors& weights,
                                       std::span<const PreparedCase> cases,
                                       const TrainingTask& task, const std::stop_token& stop,
                                       const StepObserver& observe);
  absl::Status Share(const NamedTensors& weights, std::span<const PreparedCase> cases,
                     const TrainingTask& task) const;
  absl::StatusOr<std::optional<TrainingState>> Resume(CheckpointKeeper& checkpoints) const;
  torch::Tensor Loss(const TensorBatch& batch, std::int64_t first, std::int64_t count,
                     const std::vector<double>& head_weights);
  absl::StatusOr<std::optional<double>> LossBefore(const TrainingTask& task,
                                                   const PatchSampler& sampler,
                                                   const std::vector<double>& head_weights,
                                                   const std::stop_token& stop);

  Study study;
  ComputeDevice device;
  TrainerOptions options;
  std::shared_ptr<SegmentationNetwork> network;
};

absl::StatusOr<TrainingResult> Trainer::State::Train(const NamedTensors& weights,
                                                     std::span<const PreparedCase> cases,
                                                     const TrainingTask& task,
                                                     const std::stop_token& stop,
                                                     const StepObserver& observe) {
  if (cases.empty()) {
    return absl::InvalidArgumentError(
        "no training case: every case of this site is held out, or its cohorts are empty");
  }
  for (std::size_t i = 0; i < cases.size(); ++i) {
    RETURN_IF_ERROR(CheckCase(cases[i], i, Channels(study)));
  }
  RETURN_IF_ERROR(CheckPieces(study, options));
  RETURN_IF_ERROR(LoadWeights("the global model", weights, *network));

  TrainingPlan plan = study.training;
  if (task.alone) plan.proximal = 0;
  if (task.drawn_to != nullptr) plan.proximal = plan.personal;
  const bool shared = plan.random_numbers == TrainingPlan::RandomNumbers::kShared;
  const PatchSampler sampler(study, cases, shared ? kSharedStream : task.random_stream, task.round);
  const auto levels = static_cast<std::int64_t>(study.network.stages()) - 1;
  std::vector<double> head_weights = DeepSupervisionWeights(plan.deep_supervision ? levels : 1);
  if (head_weights.back() == 0) head_weights.pop_back();  // what counts nothing is not computed
  ASSIGN_OR_RETURN(const std::optional<double> loss_before,
                   LossBefore(task, sampler, head_weights, stop));
  RETURN_IF_ERROR(Share(weights, cases, task));
  network->train();
  Optimizer optimizer(plan, network->parameters());
  if (task.drawn_to != nullptr) {
    RETURN_IF_ERROR(
        CheckShapes("the model to be drawn to", ShapesOf(*task.drawn_to), ShapesOf(weights)));
    optimizer.DrawTo(InOrder(*network, *task.drawn_to));
  }
  if (task.correction != nullptr) optimizer.Correct(InOrder(*network, *task.correction));

  CheckpointKeeper checkpoints(
      task.checkpoint, [&] { return DigestOf(study, device.name, options, weights, cases, task); },
      ExpectedWrite(weights, plan));
  double loss_sum = 0;
  std::int64_t done = 0;
  ASSIGN_OR_RETURN(const std::optional<TrainingState> kept, Resume(checkpoints));
  if (kept.has_value()) {
    RETURN_IF_ERROR(LoadWeights("the checkpoint", kept->weights, *network));
    RETURN_IF_ERROR(optimizer.Restore(kept->steps_done, kept->moments));
    loss_sum = kept->loss_sum;
    done = kept->steps_done;
  }
  const auto state = [&] {
    return TrainingState{.steps_done = done,
                         .loss_sum = loss_sum,
                         .weights = WeightsOf(*network),
                         .moments = optimizer.Moments()};
  };

  BatchGradient gradient(network->parameters(),
                         {.batch_size = plan.batch_size,
                          .patches_at_once = options.patches_at_once,
                          .divisible = study.network.norm != NetworkPlan::Norm::kBatch,
                          .group = options.group,
                          .release_memory = [this] { device.ReleaseMemory(); },
                          .on_trouble = options.on_trouble});
  PatchLoader<TensorBatch> loader(
      [&](std::int64_t step) {
        return TensorsOf(sampler.Sample(step, gradient.part()), study, device.device.is_cuda());
      },
      task.first_step + done, task.first_step + task.steps, BatchesAhead(study));
  double norm = 0;
  while (done < task.steps) {
    const std::int64_t step = task.first_step + done;
    // Several ranks stop at the same step: BatchGradient asks all of them.
    if (options.group == nullptr && stop.stop_requested()) {
      checkpoints.Keep(done, state);
      return absl::CancelledError(fmt::format("training was stopped before step {}", step));
    }
    const TensorBatch batch = loader.Next();
    const absl::StatusOr<double> loss = gradient.Compute(
        [&](std::int64_t first, std::int64_t count) {
          return Loss(batch, first, count, head_weights);
        },
        norm, stop);
    if (!loss.ok()) {  // Another rank; what this one has is good.
      checkpoints.Keep(done, state);
      return loss.status();
    }
    const double value = *loss;
    if (!std::isfinite(value)) return NotFinite("loss", value, step, plan, checkpoints);
    norm = optimizer.Step(LearningRate(plan, step, task.total_steps));
    if (!std::isfinite(norm)) return NotFinite("gradient's norm", norm, step, plan, checkpoints);
    loss_sum += value;
    ++done;
    if (observe) observe(step, value);
    if (done < task.steps) checkpoints.AfterStep(done, state);
  }
  return TrainingResult{
      .weights = WeightsOf(*network),
      .mean_loss = loss_sum / static_cast<double>(std::max<std::int64_t>(1, task.steps)),
      .loss_before = loss_before,
      .steps = task.steps,
      .seconds_waiting = loader.waited().count()};
}

absl::Status Trainer::State::Share(const NamedTensors& weights, std::span<const PreparedCase> cases,
                                   const TrainingTask& task) const {
  if (options.group == nullptr || options.group->rank() != 0) return absl::OkStatus();
  RETURN_IF_ERROR(options.group->Announce());
  return SendTask(*options.group, study, weights, cases, task);
}

/// Rank 0 has the checkpoint.
absl::StatusOr<std::optional<TrainingState>> Trainer::State::Resume(
    CheckpointKeeper& checkpoints) const {
  std::optional<TrainingState> kept = checkpoints.Resume();
  if (options.group == nullptr) return kept;
  std::array<double, 2> done{-1, 0};
  if (kept.has_value()) done = {static_cast<double>(kept->steps_done), kept->loss_sum};
  RETURN_IF_ERROR(options.group->Broadcast(std::as_writable_bytes(std::span(done))));
  if (done[0] < 0) return kept;
  if (!kept.has_value()) kept.emplace();
  kept->steps_done = static_cast<std::int64_t>(done[0]);
  kept->loss_sum = done[1];
  RETURN_IF_ERROR(Broadcast(*options.group, kept->weights));
  RETURN_IF_ERROR(Broadcast(*options.group, kept->moments));
  return kept;
}

torch::Tensor Trainer::State::Loss(const TensorBatch& batch, std::int64_t first, std::int64_t count,
                                   const std::vector<double>& head_weights) {
  const auto moved = [&](const torch::Tensor& tensor) {
    return tensor.narrow(0, first, count).to(device.device, /*non_blocking=*/true);
  };
  // The type is changed there: a copy that changes it here would wait.
  const std::vector<torch::Tensor> scores = network->forward(
      moved(batch.images).to(device.type), static_cast<std::int64_t>(head_weights.size()));
  return SegmentationLoss(scores, moved(batch.labels), head_weights);
}

/// By this process alone, also where others train with it: there is no gradient to be shared.
absl::StatusOr<std::optional<double>> Trainer::State::LossBefore(
    const TrainingTask& task, const PatchSampler& sampler, const std::vector<double>& head_weights,
    const std::stop_token& stop) {
  const std::int64_t steps = std::min(task.loss_steps, task.steps);
  if (steps == 0) return std::nullopt;
  const torch::NoGradGuard no_gradient;
  network->eval();  // Batch normalisation by the model's own statistics, which stay as they are.
  const std::int64_t batch_size = study.training.batch_size;
  const std::int64_t piece = LargestPiece(study.training, options);
  double sum = 0;
  for (std::int64_t step = task.first_step; step < task.first_step + steps; ++step) {
    if (stop.stop_requested()) return absl::CancelledError("training was stopped before it began");
    const TensorBatch batch = TensorsOf(sampler.Sample(step), study, device.device.is_cuda());
    for (std::int64_t first = 0; first < batch_size; first += piece) {
      const std::int64_t count = std::min(piece, batch_size - first);
      sum += static_cast<double>(count) * Loss(batch, first, count, head_weights).item<double>();
    }
  }
  const double loss = sum / static_cast<double>(steps * batch_size);
  if (!std::isfinite(loss)) {
    return absl::DataLossError(fmt::format(
        "the loss of the model that was received is {} on this site's patches; tell the "
        "coordinator",
        loss));
  }
  return loss;
}

absl::StatusOr<Trainer> Trainer::Create(const Study& study, const std::string& device, int threads,
                                        const TrainerOptions& options) {
  LocalProcesses local;
  if (options.group != nullptr) {
    const Launch& launch = options.group->launch();
    local = {.rank = launch.local_rank, .count = launch.local_world_size};
  }
  ASSIGN_OR_RETURN(ComputeDevice chosen,
                   ChooseDevice(device, threads, study.training.precision, local));
  if (chosen.device.is_cpu()) {
    // Before a thread starts: LibTorch's pool waits for ever for one that the system refuses.
    RETURN_IF_ERROR(CheckMemory(fmt::format("training in study {}", study.name),
                                EstimateTrainingMemory(study, options)));
  }
  return WithoutExceptions("building the network", kForLessMemory,
                           [&]() -> absl::StatusOr<Trainer> {
                             chosen.Prepare();
                             return Trainer(std::make_unique<State>(study, chosen, options));
                           });
}

Trainer::Trainer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Trainer::Trainer(Trainer&&) noexcept = default;
Trainer& Trainer::operator=(Trainer&&) noexcept = default;
Trainer::~Trainer() = default;

absl::StatusOr<TrainingResult> Trainer::Train(const NamedTensors& weights,
                                              std::span<const PreparedCase> cases,
                                              const TrainingTask& task, std::stop_token stop,
                                              const StepObserver& observe) {
  return WithoutExceptions("training on " + device_name(), kForLessMemory, [&] {
    state_->device.Prepare();
    return state_->Train(weights, cases, task, stop, observe);
  });
}

absl::StatusOr<std::vector<float>> Trainer::Scores(const NamedTensors& weights,
                                                   const PreparedCase& prepared) {
  ASSIGN_OR_RETURN(Predictor predictor, Predictor::Create(state_->study, weights, state_->device));
  return predictor.Scores(prepared);
}

absl::StatusOr<LabelMap> Trainer::Predict(const NamedTensors& weights,
                                          const PreparedCase& prepared) {
  ASSIGN_OR_RETURN(Predictor predictor, Predictor::Create(state_->study, weights, state_->device));
  return predictor.Predict(prepared);
}

std::string Trainer::device_name() const { return state_->device.name; }

std::string TrainingIdentity() {
  return fmt::format("program {} with LibTorch {}", ProgramDigest(), TORCH_VERSION);
}

absl::Status ServeTraining(ProcessGroup& group, const std::string& device, int threads,
                           TrainerOptions options, const std::stop_token& stop) {
  options.group = &group;
  std::optional<Trainer> trainer;
  std::string trained;
  while (true) {
    ASSIGN_OR_RETURN(const bool begins, group.Await(stop));
    if (!begins) return absl::OkStatus();
    ASSIGN_OR_RETURN(const SharedTask shared, ReceiveTask(group));
    if (trained != shared.study.digest) {
      trainer.reset();  // Its memory first.
      ASSIGN_OR_RETURN(trainer, Trainer::Create(shared.study, device, threads, options));
      trained = shared.study.digest;
    }
    const absl::Status done =
        trainer->Train(shared.weights, shared.cases, shared.task, stop, {}).status();
    if (stop.stop_requested()) return absl::CancelledError("interrupted");
    // What every rank has met at the same step, rank 0 answers for.
    if (!done.ok() && !absl::IsCancelled(done) && !absl::IsDataLoss(done)) return done;
  }
}

std::int64_t EstimateTrainingMemory(const Study& study, const TrainerOptions& options) {
  constexpr std::int64_t kProcessBytes = 400LL << 20U;  // LibTorch, ITK and their pools
  TrainingPlan plan = study.training;
  const std::int64_t batches = (BatchesAhead(study) + 1) * BatchBytes(study);
  plan.batch_size = LargestPiece(plan, options);
  const bool half = plan.precision == TrainingPlan::Precision::kMixed && CpuHasBfloat16();
  const std::int64_t value_bytes = half ? 2 : 4;

  std::int64_t parameters = 0;
  for (const auto& [name, shape] : NetworkShapes(study)) parameters += ElementCount(shape);

  std::int64_t kept = 0;     // for the backward pass
  std::int64_t largest = 0;  // of a layer, which the backward pass holds several times
  Triple size = plan.patch_size;
  const std::size_t stages = study.network.stages();
  const NetworkPlan& network = study.network;
  for (std::size_t s = 0; s < stages; ++s) {
    for (std::size_t axis = 0; axis < 3; ++axis) size[axis] /= study.network.strides[s][axis];
    const std::int64_t values =
        plan.batch_size * study.network.features[s] * size[0] * size[1] * size[2];
    // Each convolution keeps its result before and after normalisation; the decoder also the
    // concatenation, a residual block its sum, the first of a stage a projection.
    std::int64_t results = 2 * network.convolutions_per_stage;
    if (network.kind == NetworkPlan::Kind::kResidual) {
      results = 5 * network.blocks_per_stage[s] + 2 + (s == 0 ? 2 : 0);
    }
    if (s + 1 < stages) results += 2 * network.convolutions_per_stage + 2;
    kept += values * results;
    largest = std::max(largest, values);
  }
  const Triple& patch = plan.patch_size;
  const std::int64_t scores = plan.batch_size * study.classes() * patch[0] * patch[1] * patch[2];
  // Of the parameters: to be drawn to, or a correction, is one more; of the gradients, to be added
  // up with other ranks', three.
  const bool scaffold = study.rounds.strategy.kind == StrategyPlan::Kind::kScaffold;
  std::int64_t copies = plan.proximal > 0 || plan.personal > 0 || scaffold ? 6 : 5;
  if (options.group != nullptr) copies += 3;
  return kProcessBytes + copies * 4 * parameters + value_bytes * (kept + 6 * largest) +
         8 * 4 * scores + batches;
}

}  // namespace isoscan
