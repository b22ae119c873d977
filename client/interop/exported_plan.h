#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"

#include "common/study/study.h"

namespace isoscan {

/// nnU-Net's plans.json for images that `isoscan-client harmonize --nnunet` has made: one
/// configuration, "3d_fullres", without normalisation. A study that keeps every case's own spacing
/// has a plan that does not resample.
///
/// Errors: INVALID_ARGUMENT what such a plan cannot say: a spacing that is kept along some axes
///         only, or group normalisation.
absl::StatusOr<std::string> NnunetPlans(const Study& study);

/// nnU-Net's dataset.json. `metadata` is the model's: where it comes from, and how its input is
/// made, stands under "isoscan".
///
/// Errors: INVALID_ARGUMENT a label called "ignore", which nnU-Net takes for no label.
absl::StatusOr<std::string> NnunetDataset(const Study& study,
                                          const std::map<std::string, std::string>& metadata);

/// The arguments of monai.networks.nets.DynUNet as JSON, for DynUNet(**arguments). Requires a study
/// that DynUnetStateDict() takes.
std::string DynUnetArguments(const Study& study);

}  // namespace isoscan
