#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/weights/named_tensors.h"

namespace isoscan {

/// Where a piece of training is kept while it goes on.
struct CheckpointPlan {
  std::filesystem::path file = {};  ///< In a folder that exists; empty: nothing is kept.
  std::int64_t every_steps = 0;     ///< 0: as often as takes less than 2 % of the time.
  /// Called before the first step when training goes on from the file.
  std::function<void(std::int64_t steps_done)> on_resumed = {};
  /// Called when a file is set aside, and of those that cannot be written, once until one can
  /// again: training goes on all the same.
  std::function<void(const absl::Status&)> on_trouble = {};
};

/// Training between two steps: beside the task, all that the next step depends on.
struct TrainingState {
  std::int64_t steps_done = 0;  ///< Of the task.
  double loss_sum = 0;          ///< Over those.
  NamedTensors weights;
  NamedTensors moments;  ///< As Optimizer::Moments() gives them.
};

/// Writes `state` as one safetensors file (tensors `weights.NAME` and `moments.NAME`), whole or not
/// at all. `task` is the SHA-256 of what the training's result depends on.
/// Errors: INVALID_ARGUMENT a value that is not finite; those of WriteSafetensors.
absl::Status WriteCheckpoint(const std::filesystem::path& file, const std::string& task,
                             TrainingState state);

/// Errors: NOT_FOUND no such file; DATA_LOSS not what WriteCheckpoint wrote, in any bit;
///         FAILED_PRECONDITION of another task.
absl::StatusOr<TrainingState> ReadCheckpoint(const std::filesystem::path& file,
                                             const std::string& task);

/// Decides when training is kept, and from where it goes on.
/// Thread safety: none.
class CheckpointKeeper {
 public:
  /// `task` answers with the task's digest; it may take long, and is called once at most, when
  /// first needed. `expected_write` is a guess of how long that and the first file take. `plan`
  /// must outlive this object.
  CheckpointKeeper(const CheckpointPlan& plan, std::function<std::string()> task,
                   std::chrono::duration<double> expected_write);

  /// Where to go on; nothing where no file is. One that is damaged or of another task is renamed to
  /// FILE.set-aside, and on_trouble told.
  std::optional<TrainingState> Resume();

  /// After each step but the last: keeps the training where it is time to. `state` is asked then.
  void AfterStep(std::int64_t steps_done, const std::function<TrainingState()>& state);

  /// Keeps the training now, unless it has just been kept: it will be interrupted.
  void Keep(std::int64_t steps_done, const std::function<TrainingState()>& state);

  /// "the weights after STEPS steps are kept in FILE", or that none are.
  std::string LastGood() const;

 private:
  using Clock = std::chrono::steady_clock;

  const std::string& Task();
  void SetAside(const absl::Status& reason);
  void Tell(const absl::Status& trouble) const;

  const CheckpointPlan& plan_;
  std::function<std::string()> make_task_;
  std::string task_;
  std::int64_t kept_steps_ = 0;  ///< What the file holds; 0: there is none.
  bool cannot_write_ = false;
  Clock::time_point last_;  ///< When the last file was written, or training began.
  Clock::duration pause_;   ///< Until the next one.
};

}  // namespace isoscan
