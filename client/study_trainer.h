#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "client/cohort/cohort.h"
#include "client/training/trainer.h"
#include "common/study/study.h"

namespace isoscan {

/// What a study's work needs of the device. client/commands/device_trainer.h has the real one
/// (Trainer); the seam lets a site's work be tested without LibTorch.
class StudyTrainer {
 public:
  virtual ~StudyTrainer() = default;

  /// As Trainer::Train.
  virtual absl::StatusOr<TrainingResult> Train(const NamedTensors& weights,
                                               std::span<const PreparedCase> cases,
                                               const TrainingTask& task, std::stop_token stop,
                                               const StepObserver& observe) = 0;
  /// As Trainer::Predict.
  virtual absl::StatusOr<LabelMap> Predict(const NamedTensors& weights,
                                           const PreparedCase& prepared) = 0;
  /// As Trainer::Scores.
  virtual absl::StatusOr<std::vector<float>> Scores(const NamedTensors& weights,
                                                    const PreparedCase& prepared) = 0;
  virtual std::string device_name() const = 0;
  /// Memory of this machine (not of a GPU) that training takes beside the cases, in bytes.
  virtual std::int64_t memory_bytes() const = 0;
};

using TrainerFactory =
    std::function<absl::StatusOr<std::unique_ptr<StudyTrainer>>(const Study& study)>;

}  // namespace isoscan
