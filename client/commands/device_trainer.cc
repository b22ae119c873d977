#include "client/commands/device_trainer.h"

#include <spdlog/spdlog.h>

#include <string>
#include <utility>
#include <vector>

#include "common/status/status_macros.h"

namespace isoscan {
namespace {

class DeviceTrainer final : public StudyTrainer {
 public:
  DeviceTrainer(Trainer trainer, std::int64_t memory_bytes)
      : trainer_(std::move(trainer)), memory_bytes_(memory_bytes) {}

  absl::StatusOr<TrainingResult> Train(const NamedTensors& weights,
                                       std::span<const PreparedCase> cases,
                                       const TrainingTask& task, std::stop_token stop,
                                       const StepObserver& observe) override {
    return trainer_.Train(weights, cases, task, stop, observe);
  }
  absl::StatusOr<LabelMap> Predict(const NamedTensors& weights,
                                   const PreparedCase& prepared) override {
    return trainer_.Predict(weights, prepared);
  }
  absl::StatusOr<std::vector<float>> Scores(const NamedTensors& weights,
                                            const PreparedCase& prepared) override {
    return trainer_.Scores(weights, prepared);
  }
  std::string device_name() const override { return trainer_.device_name(); }
  std::int64_t memory_bytes() const override { return memory_bytes_; }

 private:
  Trainer trainer_;
  std::int64_t memory_bytes_;
};

}  // namespace

TrainerOptions TrainerOptionsOf(const ClientConfig::Device& device, ProcessGroup* group) {
  return {.patches_at_once = device.patches_at_once,
          .group = group,
          .on_trouble = [](const absl::Status& trouble) {
            spdlog::warn("training_trouble reason=\"{}\"", std::string(trouble.message()));
          }};
}

absl::StatusOr<std::unique_ptr<StudyTrainer>> MakeDeviceTrainer(const Study& study,
                                                                const ClientConfig::Device& device,
                                                                ProcessGroup* group) {
  const TrainerOptions options = TrainerOptionsOf(device, group);
  ASSIGN_OR_RETURN(Trainer trainer, Trainer::Create(study, device.name, device.threads, options));
  // A GPU trains in memory of its own.
  const bool on_cpu = trainer.device_name().starts_with("CPU");
  const std::int64_t memory_bytes = on_cpu ? EstimateTrainingMemory(study, options) : 0;
  return std::make_unique<DeviceTrainer>(std::move(trainer), memory_bytes);
}

}  // namespace isoscan
