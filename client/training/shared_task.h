#pragma once

#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/cohort/cohort.h"
#include "client/process_group/process_group.h"
#include "client/training/trainer.h"
#include "common/study/study.h"
#include "common/weights/named_tensors.h"

namespace isoscan {

/// A training task as ranks other than 0 get it: they read no case and ask no server.
struct SharedTask {
  Study study;
  NamedTensors weights;
  std::vector<PreparedCase> cases;           ///< Image, labels and the size of the grid alone.
  std::unique_ptr<NamedTensors> drawn_to;    ///< What the task points to; null where it has none.
  std::unique_ptr<NamedTensors> correction;  ///< Likewise.
  TrainingTask task;                         ///< Without a checkpoint, which rank 0 alone keeps.
};

/// Rank 0, after Announce(): gives the others what they need to train. `study` is known by its
/// text, which must say all of it.
absl::Status SendTask(ProcessGroup& group, const Study& study, const NamedTensors& weights,
                      std::span<const PreparedCase> cases, const TrainingTask& task);

/// The others, after Await(). Errors: also those of ParseStudy.
absl::StatusOr<SharedTask> ReceiveTask(ProcessGroup& group);

/// Gives the others rank 0's `tensors`, with their names.
absl::Status Broadcast(ProcessGroup& group, NamedTensors& tensors);

}  // namespace isoscan
