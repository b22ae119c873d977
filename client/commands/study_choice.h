#pragma once

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"

#include "client/client_config.h"
#include "client/federation/federation_session.h"
#include "common/study/study.h"
#include "common/weights/named_tensors.h"

namespace isoscan {

/// The study that a command's `--study` means: a file, or the name of a study that this site has
/// approved; "" means the only approved one.
/// Errors: NOT_FOUND neither a file nor approved; INVALID_ARGUMENT "" where not exactly one is
/// approved; those of LoadStudy.
absl::StatusOr<Study> ChooseStudy(const ClientConfig& config, const std::string& study);

/// This site has approved a draft that has been planned meanwhile: the plan is to be approved.
bool DraftWasApproved(const ClientConfig& config, const OfferedStudy& offered);

/// The harmonisation of a study by the metadata of its global model: a standard that was left to
/// the sites' mean is taken from there, all else must be the study's. Errors: those of
/// SafetensorsFile::Open and CheckHarmonization, which names both digests.
absl::Status TakeHarmonization(const std::filesystem::path& model, Study& study);

/// A global model, whose tensors and harmonisation must be the study's. A study that took the
/// sites' mean for its standard gets the numbers that the model carries. Errors: those of
/// SafetensorsFile::Open, CheckPlanned and CheckHarmonization; FAILED_PRECONDITION it lacks the
/// layers that stay at each site; INVALID_ARGUMENT naming a tensor
/// that is missing or of another shape.
absl::StatusOr<NamedTensors> LoadStudyModel(const std::filesystem::path& path, Study& study);

}  // namespace isoscan
