#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/cohort/cohort.h"
#include "client/training/checkpoint.h"
#include "common/study/study.h"
#include "common/weights/named_tensors.h"

namespace isoscan {

/// One piece of training: `steps` steps from `weights`.
struct TrainingTask {
  std::int64_t first_step = 0;  ///< Of the whole study; places the learning rate on its decay.
  std::int64_t steps = 0;
  std::int64_t total_steps = 0;  ///< Of the whole study.
  std::string random_stream;     ///< The site's declared stream.
  std::int64_t round = 1;
  bool alone = false;  ///< Not drawn to a global model: the proximal term is left out.
  /// Ditto: a model of the site's own is trained, drawn to these weights (the global model's) by
  /// the study's `personal` in place of `proximal`. Null: not so. Must outlive Train().
  const NamedTensors* drawn_to = nullptr;
  /// Before the first step the loss of `weights` is measured on the patches of this many steps, or
  /// of `steps` if these are fewer; nothing else changes. 0: not.
  std::int64_t loss_steps = 0;
  /// SCAFFOLD: c - c_i by parameter, which every gradient is corrected by; parameters that are not
  /// there are not. Null: none. Must outlive Train().
  const NamedTensors* correction = nullptr;
  CheckpointPlan checkpoint =
      {};  ///< Where it is kept meanwhile; nothing of the result depends on it.
};

struct TrainingResult {
  NamedTensors weights;
  double mean_loss = 0;  ///< Over the steps of this task.
  /// Mean over the patches of `loss_steps`; the same again after a crash.
  std::optional<double> loss_before = std::nullopt;
  std::int64_t steps = 0;
  double seconds_waiting = 0;  ///< For patches, of all steps that this process did.
};

class ProcessGroup;

/// How a site trains; the study does not know of it.
struct TrainerOptions {
  /// The most patches of a batch that are computed at once; the others follow, and gradients are
  /// added up. 0: the whole batch. Takes less memory and more time.
  std::int64_t patches_at_once = 0;
  /// This process is rank 0 of several that train together (ServeTraining); must outlive the
  /// trainer. None: alone.
  ProcessGroup* group = nullptr;
  /// Told, from the training thread, when a GPU's memory ends and pieces become smaller.
  std::function<void(const absl::Status&)> on_trouble = [](const absl::Status&) {};
};

/// Called after each step, from the training thread.
using StepObserver = std::function<void(std::int64_t step, double loss)>;

/// Trains the study's network on prepared cases. The optimiser starts fresh in every task, so a
/// round depends on nothing but the global model, the cases and the declared random stream: the
/// same task gives the same bits on the same machine and thread count, and can be repeated after a
/// crash. Where the task names a checkpoint, a process that was killed goes on from there, to the
/// same bits.
///
/// Thread safety: none; holds the device.
class Trainer {
 public:
  /// `device`: "auto", "cpu", "cuda" or "cuda:N". `threads`: 0 takes every available core.
  /// Errors: INVALID_ARGUMENT unknown device; FAILED_PRECONDITION no such GPU in this machine or in
  ///         this build; RESOURCE_EXHAUSTED, on the CPU, less memory than EstimateTrainingMemory().
  static absl::StatusOr<Trainer> Create(const Study& study, const std::string& device, int threads,
                                        const TrainerOptions& options = {});

  Trainer(Trainer&&) noexcept;
  Trainer& operator=(Trainer&&) noexcept;
  ~Trainer();

  /// With a group, the study is what its text says, and every rank takes its part of each batch
  /// (client/training/batch_gradient.h).
  ///
  /// Errors: INVALID_ARGUMENT weights that are not this network's, no training case, fewer patches
  ///         in a batch than ranks; FAILED_PRECONDITION pieces of a batch whose patches depend on
  ///         each other (batch normalisation); ABORTED a rank is gone, with the checkpoint up to
  ///         date; INTERNAL ranks that compute otherwise than each other;
  ///         CANCELLED when `stop` was requested, with the checkpoint up to date;
  ///         RESOURCE_EXHAUSTED out of (GPU) memory;
  ///         DATA_LOSS when the loss or gradient is not finite (with the step); the checkpoint is
  ///         of a step whose weights were.
  absl::StatusOr<TrainingResult> Train(const NamedTensors& weights,
                                       std::span<const PreparedCase> cases,
                                       const TrainingTask& task, std::stop_token stop,
                                       const StepObserver& observe);

  /// Scores before the softmax, [classes, D, H, W] in float32 on prepared.grid: sliding window with
  /// Gaussian weights.
  absl::StatusOr<std::vector<float>> Scores(const NamedTensors& weights,
                                            const PreparedCase& prepared);

  /// Arg-max labels of one case in its own canonical grid (reference_grid): Scores resampled
  /// back.
  absl::StatusOr<LabelMap> Predict(const NamedTensors& weights, const PreparedCase& prepared);

  /// "CPU, 2 threads" or the GPU's name, for logs and `check`.
  std::string device_name() const;

 private:
  struct State;
  explicit Trainer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Takes part in the training of rank 0, as any other rank of `group`, until rank 0 leaves (OK).
/// Errors: CANCELLED; those of Trainer::Create, Trainer::Train and ProcessGroup.
absl::Status ServeTraining(ProcessGroup& group, const std::string& device, int threads,
                           TrainerOptions options, const std::stop_token& stop);

/// What must be the same in every rank of a group, for ProcessGroup::Join.
std::string TrainingIdentity();

/// Estimated peak memory of one training step with this study's network and patch, in bytes;
/// printed before work starts.
std::int64_t EstimateTrainingMemory(const Study& study, const TrainerOptions& options = {});

}  // namespace isoscan
