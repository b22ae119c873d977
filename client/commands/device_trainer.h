#pragma once

#include <memory>

#include "absl/status/statusor.h"

#include "client/client_config.h"
#include "client/process_group/process_group.h"
#include "client/study_trainer.h"
#include "client/training/trainer.h"

namespace isoscan {

/// How the site trains, by itself or as rank 0 of `group`. What goes wrong meanwhile is logged.
TrainerOptions TrainerOptionsOf(const ClientConfig::Device& device, ProcessGroup* group);

/// The site's device, set up for a study. Errors: those of Trainer::Create.
absl::StatusOr<std::unique_ptr<StudyTrainer>> MakeDeviceTrainer(const Study& study,
                                                                const ClientConfig::Device& device,
                                                                ProcessGroup* group = nullptr);

}  // namespace isoscan
