#include "client/training/shared_task.h"

#include <fmt/format.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>

#include "common/status/status_macros.h"

namespace isoscan {
namespace {

template <typename Value, std::size_t kExtent>
absl::Status BroadcastValues(ProcessGroup& group, std::span<Value, kExtent> values) {
  return group.Broadcast(std::as_writable_bytes(values));
}

/// Of rank 0 the bytes are only read.
template <typename Values>
absl::Status SendValues(ProcessGroup& group, const Values& values) {
  using Value = std::remove_const_t<std::remove_pointer_t<decltype(values.data())>>;
  return BroadcastValues(group, std::span(const_cast<Value*>(values.data()), values.size()));
}

enum TaskNumber {
  kFirstStep,
  kSteps,
  kTotalSteps,
  kRound,
  kAlone,
  kDrawn,
  kCorrected,
  kCases,
  kTaskNumbers
};

/// Name and axes of each tensor, a line each.
std::string TextOf(const NamedTensors& tensors) {
  std::string text;
  for (const auto& [name, tensor] : tensors) {
    text += name;
    for (const std::int64_t axis : tensor.shape) text += fmt::format(" {}", axis);
    text += '\n';
  }
  return text;
}

NamedTensors EmptyOnesOf(const std::string& text) {
  NamedTensors tensors;
  std::istringstream lines(text);
  std::string line;
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    Tensor& tensor = tensors[name];
    for (std::int64_t axis = 0; words >> axis;) tensor.shape.push_back(axis);
    tensor.values.resize(static_cast<std::size_t>(ElementCount(tensor.shape)));
  }
  return tensors;
}

}  // namespace

absl::Status Broadcast(ProcessGroup& group, NamedTensors& tensors) {
  std::string text = TextOf(tensors);
  RETURN_IF_ERROR(group.Broadcast(text));
  if (group.rank() != 0) tensors = EmptyOnesOf(text);
  for (auto& [name, tensor] : tensors) {
    RETURN_IF_ERROR(BroadcastValues(group, std::span(tensor.values)));
  }
  return absl::OkStatus();
}

absl::Status SendTask(ProcessGroup& group, const Study& study, const NamedTensors& weights,
                      std::span<const PreparedCase> cases, const TrainingTask& task) {
  // Named one by one, so that a new member cannot be forgotten.
  const auto& [first_step, steps, total_steps, stream, round, alone, drawn_to, loss_steps,
               correction, checkpoint] = task;
  static_cast<void>(loss_steps);  // Rank 0 has measured that loss, alone.
  static_cast<void>(checkpoint);
  std::string toml = study.toml;
  std::string random_stream = stream;
  std::array<std::int64_t, kTaskNumbers> numbers{};
  numbers[kFirstStep] = first_step;
  numbers[kSteps] = steps;
  numbers[kTotalSteps] = total_steps;
  numbers[kRound] = round;
  numbers[kAlone] = alone ? 1 : 0;
  numbers[kDrawn] = drawn_to != nullptr ? 1 : 0;
  numbers[kCorrected] = correction != nullptr ? 1 : 0;
  numbers[kCases] = static_cast<std::int64_t>(cases.size());
  RETURN_IF_ERROR(group.Broadcast(toml));
  RETURN_IF_ERROR(group.Broadcast(random_stream));
  RETURN_IF_ERROR(BroadcastValues(group, std::span(numbers)));
  for (const NamedTensors* tensors : {&weights, drawn_to, correction}) {
    if (tensors == nullptr) continue;
    NamedTensors own = *tensors;
    RETURN_IF_ERROR(Broadcast(group, own));
  }
  for (const PreparedCase& prepared : cases) {
    auto size = prepared.grid.size;
    RETURN_IF_ERROR(BroadcastValues(group, std::span(size)));
    RETURN_IF_ERROR(SendValues(group, prepared.image));
    RETURN_IF_ERROR(SendValues(group, prepared.labels));
  }
  return absl::OkStatus();
}

absl::StatusOr<SharedTask> ReceiveTask(ProcessGroup& group) {
  SharedTask shared;
  std::string toml;
  RETURN_IF_ERROR(group.Broadcast(toml));
  ASSIGN_OR_RETURN(shared.study, ParseStudy(std::move(toml), "rank 0's study"));
  RETURN_IF_ERROR(group.Broadcast(shared.task.random_stream));
  std::array<std::int64_t, kTaskNumbers> numbers{};
  RETURN_IF_ERROR(BroadcastValues(group, std::span(numbers)));
  shared.task.first_step = numbers[kFirstStep];
  shared.task.steps = numbers[kSteps];
  shared.task.total_steps = numbers[kTotalSteps];
  shared.task.round = numbers[kRound];
  shared.task.alone = numbers[kAlone] != 0;
  RETURN_IF_ERROR(Broadcast(group, shared.weights));
  if (numbers[kDrawn] != 0) {
    shared.drawn_to = std::make_unique<NamedTensors>();
    RETURN_IF_ERROR(Broadcast(group, *shared.drawn_to));
    shared.task.drawn_to = shared.drawn_to.get();
  }
  if (numbers[kCorrected] != 0) {
    shared.correction = std::make_unique<NamedTensors>();
    RETURN_IF_ERROR(Broadcast(group, *shared.correction));
    shared.task.correction = shared.correction.get();
  }
  shared.cases.resize(static_cast<std::size_t>(numbers[kCases]));
  for (PreparedCase& prepared : shared.cases) {
    RETURN_IF_ERROR(BroadcastValues(group, std::span(prepared.grid.size)));
    const auto voxels = static_cast<std::size_t>(prepared.grid.voxels());
    std::vector<float> image(voxels * shared.study.channels.size());
    std::vector<std::uint8_t> labels(voxels);
    RETURN_IF_ERROR(BroadcastValues(group, std::span(image)));
    RETURN_IF_ERROR(BroadcastValues(group, std::span(labels)));
    prepared.image = std::move(image);
    prepared.labels = std::move(labels);
  }
  return shared;
}

}  // namespace isoscan
