#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "absl/status/status.h"

#include "common/study/study.h"
#include "common/weights/named_tensors.h"

namespace isoscan {

/// A global model of the study, for other programs to run. Requires tensors of NetworkShapes().
struct ExportedModel {
  const Study& study;
  const NamedTensors& weights;
  const std::map<std::string, std::string>& metadata;  ///< Of the model's file.
};

/// Writes a model folder that `nnUNetv2_predict_from_modelfolder -f all` takes:
///
///   plans.json, dataset.json, fold_all/checkpoint_final.pth
///
/// Files of these names are replaced, each as a whole; the checkpoint first.
/// Errors: those of NnunetPlans and NnunetDataset, before anything is written; of WriteError.
absl::Status ExportToNnunet(const ExportedModel& model, const std::filesystem::path& folder);

/// Writes a state dict of MONAI's DynUNet, and the arguments to make that network with:
///
///   dynunet.pth, dynunet.json
///
/// Errors: those of DynUnetStateDict, before anything is written; of WriteError.
absl::Status ExportToDynUnet(const ExportedModel& model, const std::filesystem::path& folder);

}  // namespace isoscan
