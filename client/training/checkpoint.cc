#include "client/training/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>
#include <system_error>
#include <utility>

#include "common/status/status_macros.h"
#include "common/weights/prefixed_tensors.h"
#include "common/weights/sealed_tensors.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kWeights = "weights.";
constexpr std::string_view kMoments = "moments.";
constexpr char kTaskKey[] = "task";
constexpr char kStepsKey[] = "steps_done";
constexpr char kLossKey[] = "loss_sum";

/// Writing takes at most one part in so many of the time.
constexpr int kTimeShare = 50;
/// A shorter piece of training is sooner done again.
constexpr std::chrono::seconds kShortestPause{5};

bool AllFinite(const NamedTensors& tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [](const auto& entry) {
    const std::vector<float>& values = entry.second.values;
    return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
  });
}

template <typename Number>
bool Parse(const std::string& text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

absl::Status WriteCheckpoint(const fs::path& file, const std::string& task, TrainingState state) {
  if (!AllFinite(state.weights) || !AllFinite(state.moments)) {
    return absl::InvalidArgumentError(
        fmt::format("after {} steps some weights or moments are not finite, and are not kept",
                    state.steps_done));
  }
  SealedTensors content;
  MoveUnder(kWeights, std::move(state.weights), content.tensors);
  MoveUnder(kMoments, std::move(state.moments), content.tensors);
  // The shortest text that is read as the same number.
  content.metadata = {{kTaskKey, task},
                      {kStepsKey, fmt::format("{}", state.steps_done)},
                      {kLossKey, fmt::format("{}", state.loss_sum)}};
  return WriteSealed(file, content);
}

absl::StatusOr<TrainingState> ReadCheckpoint(const fs::path& file, const std::string& task) {
  ASSIGN_OR_RETURN(SealedTensors content, ReadSealed(file));
  if (content.metadata[kTaskKey] != task) {
    return absl::FailedPreconditionError(fmt::format(
        "{} was written by other training: another study, round, model, cohort, device, number of "
        "threads or build of the program",
        file.filename().string()));
  }
  TrainingState state;
  if (!Parse(content.metadata[kStepsKey], state.steps_done) ||
      !Parse(content.metadata[kLossKey], state.loss_sum)) {
    return absl::DataLossError(
        fmt::format("{} does not say how many steps were done", file.filename().string()));
  }
  state.weights = TakeFrom(kWeights, content.tensors);
  state.moments = TakeFrom(kMoments, content.tensors);
  return state;
}

CheckpointKeeper::CheckpointKeeper(const CheckpointPlan& plan, std::function<std::string()> task,
                                   std::chrono::duration<double> expected_write)
    : plan_(plan),
      make_task_(std::move(task)),
      last_(Clock::now()),
      pause_(std::max<Clock::duration>(kShortestPause, std::chrono::duration_cast<Clock::duration>(
                                                           kTimeShare * expected_write))) {}

const std::string& CheckpointKeeper::Task() {
  if (task_.empty()) task_ = make_task_();
  return task_;
}

void CheckpointKeeper::Tell(const absl::Status& trouble) const {
  if (plan_.on_trouble) plan_.on_trouble(trouble);
}

void CheckpointKeeper::SetAside(const absl::Status& reason) {
  fs::path aside = plan_.file;
  aside += ".set-aside";
  std::error_code error;
  fs::rename(plan_.file, aside, error);
  Tell(absl::Status(
      reason.code(),
      fmt::format("{}; {}, and this training starts again", std::string(reason.message()),
                  error ? "it cannot be renamed" : "set aside as " + aside.filename().string())));
}

std::string CheckpointKeeper::LastGood() const {
  if (kept_steps_ == 0)
    return "none of its weights were kept; the model that it began with is as it was";
  return fmt::format("the weights after {} steps are kept in {}", kept_steps_, plan_.file.string());
}

std::optional<TrainingState> CheckpointKeeper::Resume() {
  std::error_code ignored;
  if (plan_.file.empty() || !fs::exists(plan_.file, ignored)) return std::nullopt;
  absl::StatusOr<TrainingState> state = ReadCheckpoint(plan_.file, Task());
  if (!state.ok()) {
    SetAside(state.status());
    return std::nullopt;
  }
  kept_steps_ = state->steps_done;
  if (plan_.on_resumed) plan_.on_resumed(state->steps_done);
  last_ = Clock::now();
  return *std::move(state);
}

void CheckpointKeeper::AfterStep(std::int64_t steps_done,
                                 const std::function<TrainingState()>& state) {
  if (plan_.file.empty()) return;
  const bool due =
      plan_.every_steps > 0 ? steps_done % plan_.every_steps == 0 : Clock::now() - last_ >= pause_;
  if (due) Keep(steps_done, state);
}

void CheckpointKeeper::Keep(std::int64_t steps_done, const std::function<TrainingState()>& state) {
  if (plan_.file.empty() || steps_done == kept_steps_) return;
  const Clock::time_point start = Clock::now();
  const absl::Status written = WriteCheckpoint(plan_.file, Task(), state());
  last_ = Clock::now();
  pause_ = std::max<Clock::duration>(kShortestPause, kTimeShare * (last_ - start));
  if (written.ok()) kept_steps_ = steps_done;
  if (std::exchange(cannot_write_, !written.ok()) || written.ok()) return;
  Tell(absl::Status(written.code(),
                    fmt::format("{}; training goes on, and a client that is killed now starts "
                                "again after {} steps",
                                std::string(written.message()), kept_steps_)));
}

}  // namespace isoscan
