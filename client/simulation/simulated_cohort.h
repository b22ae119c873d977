#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/simulation/anatomy.h"
#include "client/simulation/scanner.h"

namespace isoscan {

/// Who is in a cohort.
struct CohortPlan {
  std::int64_t patients = 1;
  PatientVariation variation = {};
  double spacing_mm = 2;  ///< Isotropic, for a scanner that has no spacing of its own.
  std::uint64_t seed = 1;
};

/// Writes one hospital's cohort as a BIDS dataset: people of their own, seen by its scanner, once
/// per protocol.
///
///   FOLDER/dataset_description.json
///   FOLDER/sub-0001/anat/sub-0001_T1w.nii.gz, .json      T1w, T2w, FLAIR by the protocols
///   FOLDER/derivatives/labels/sub-0001/anat/sub-0001_label-NAME_mask.nii.gz   one per label
///
/// The sidecars say what was simulated: BIDS's fields with the protocol's timing in seconds, and
/// under `Simulation` the scanner's own.
///
/// Everything is a function of (seed, scanner name, patient), so that a cohort can grow without
/// changing the people it has. Errors: FAILED_PRECONDITION when FOLDER exists and is not empty;
/// INVALID_ARGUMENT when the anatomy lacks what the scanner shows; RESOURCE_EXHAUSTED when its grid
/// does not fit into memory; those of WriteVolume.
absl::Status WriteSimulatedCohort(const std::filesystem::path& folder, const Anatomy& anatomy,
                                  const std::vector<AtlasLabel>& labels, const Scanner& scanner,
                                  const CohortPlan& plan);

/// Copies a cohort of real scans as another scanner would have stored them: scale, bias, gamma,
/// noise, field and bits; a protocol cannot be changed afterwards. Labels (folders
/// `labelsTr`, `labelsTs`, `derivatives`) and every file that is no image are copied as they are.
/// Answers with the number of images.
/// Errors: NOT_FOUND no such folder; FAILED_PRECONDITION `target` exists and is not empty;
///         INVALID_ARGUMENT a scanner that wants more than that, or a target inside the source.
absl::StatusOr<std::int64_t> RescanCohort(const std::filesystem::path& source,
                                          const std::filesystem::path& target,
                                          const Scanner& scanner, std::uint64_t seed);

}  // namespace isoscan
