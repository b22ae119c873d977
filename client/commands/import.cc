#include <fmt/format.h>

#include <cstdio>

#include "client/commands/commands.h"
#include "client/commands/study_choice.h"
#include "common/status/status_macros.h"
#include "common/study/initial_weights.h"
#include "common/weights/safetensors.h"

namespace isoscan {

absl::Status ImportModel(const ClientConfig& config, const ImportRequest& request) {
  ASSIGN_OR_RETURN(const Study study, ChooseStudy(config, request.study));
  ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(request.weights));
  const NamedTensors weights = file.ReadAll();
  RETURN_IF_ERROR(CheckStartingWeights(study, request.weights.string(), weights));
  RETURN_IF_ERROR(WriteSafetensors(request.model, weights, WeightsMetadataOf(study, /*round=*/0)));
  fmt::print(
      "{}: a model of study {}, for predict and evaluate.\n"
      "A study starts from these weights with, under [network]:\n"
      "initial_weights = \"{}\"\n",
      request.model.string(), study.name, WeightsDigest(weights));
  std::fflush(stdout);
  return absl::OkStatus();
}

}  // namespace isoscan
