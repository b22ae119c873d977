#pragma once

#include <memory>

#include "absl/status/statusor.h"

#include "client/client_config.h"
#include "client/study_trainer.h"

namespace isoscan {

/// The site's device, set up for a study. Errors: those of Trainer::Create.
absl::StatusOr<std::unique_ptr<StudyTrainer>> MakeDeviceTrainer(const Study& study,
                                                                const ClientConfig::Device& device);

}  // namespace isoscan
