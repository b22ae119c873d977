#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/simulation/anatomy.h"
#include "client/simulation/scanner.h"

namespace isoscan {

/// Writes one hospital's cohort as a BIDS dataset: `patients` people of their own, seen by its
/// scanner.
///
///   FOLDER/dataset_description.json
///   FOLDER/sub-0001/anat/sub-0001_T1w.nii.gz, .json
///   FOLDER/derivatives/labels/sub-0001/anat/sub-0001_label-NAME_mask.nii.gz   one per label
///
/// Person and noise are functions of (seed, scanner name, patient), so that a cohort can grow
/// without changing the people it has. Errors: FAILED_PRECONDITION when FOLDER exists and is not
/// empty; those of WriteVolume.
absl::Status WriteSimulatedCohort(const std::filesystem::path& folder, const Anatomy& anatomy,
                                  const std::vector<AtlasLabel>& labels, const Scanner& scanner,
                                  const PatientVariation& variation, std::int64_t patients,
                                  std::uint64_t seed);

/// Copies a cohort of real scans as another scanner would have stored them. Labels (folders
/// `labelsTr`, `labelsTs`, `derivatives`) and every file that is no image are copied as they are.
/// Answers with the number of images.
/// Errors: NOT_FOUND no such folder; FAILED_PRECONDITION `target` exists and is not empty.
absl::StatusOr<std::int64_t> RescanCohort(const std::filesystem::path& source,
                                          const std::filesystem::path& target,
                                          const Scanner& scanner, std::uint64_t seed);

}  // namespace isoscan
