#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "client/cohort/cohort.h"
#include "client/inference/predictor.h"
#include "common/study/study.h"

namespace isoscan {

/// What is predicted, and where the labels go.
struct PredictionRequest {
  /// `folder` is whatever ListCasesToPredict takes; `geometry` and `channels` count as they do when
  /// the study reads it.
  CohortFolder input;
  /// A folder; for one case also a NIfTI file. Of BIDS it becomes a derivative, and may lie under
  /// `derivatives` of the input.
  std::filesystem::path output;
  Study study;               ///< Whose harmonisation the model has (LoadStudyModel).
  std::string model_sha256;  ///< The three below stand in every record.
  std::string device;
  std::vector<std::int64_t> mirror_axes;
  bool dicom_seg = false;          ///< Of a DICOM series also CASE.dcm, a segmentation for a PACS.
  std::int64_t network_bytes = 0;  ///< EstimateNetworkMemory.
  int threads = 1;                 ///< For reading.
};

/// What a prediction takes, known once headers and voxels were looked at.
struct PredictionSize {
  std::int64_t cases = 0;
  std::int64_t windows = 0;
  std::int64_t network_bytes = 0;
  std::int64_t case_bytes = 0;  ///< Of the largest case, the next one's loading among them.
};

struct PredictedCases {
  struct Named {
    std::string name;
    std::string reason;
  };
  std::int64_t written = 0;
  std::int64_t kept = 0;              ///< Were there already, of the same input, model and study.
  std::vector<Named> refused;         ///< Quarantined, or failed; they are not in the output.
  std::vector<Named> flagged;         ///< Predicted, but somebody should look at them.
  std::vector<std::string> left_out;  ///< One line each: the study has no use for them.
};

/// Labels of one case in its canonical grid.
using CasePredictor = std::function<absl::StatusOr<LabelMap>(const PreparedCase& prepared,
                                                             const PredictionControl& control)>;

/// Who is told what happens; called from the calling thread, one call at a time.
struct PredictionObserver {
  /// `what` is being done, such as "predicting"; `note` is a case's name, or empty.
  std::function<void(std::string_view what, std::int64_t done, std::int64_t total,
                     const std::string& note)>
      progress;
  std::function<void(const PredictionSize& size)> begin;
};

/// Predicts every case of the input. Each is looked at as `inspect` does (headers, voxels, the
/// cohort beside it) and harmonised as for training; what intake quarantines is refused and named,
/// but for images that are there twice, which harm no prediction. While one case is in the network,
/// the next one is read and harmonised.
///
/// Labels are written in the grid of the case's first image, with its qform and sform, in uint8 (a
/// study has at most 255 labels), as OUTPUT/CASE.nii.gz; of BIDS as a derivative
/// sub-*/[ses-*/]anat/CASE_desc-STUDY_dseg.nii.gz with dataset_description.json and the table of
/// labels. Beside each stands a JSON that says what it was made of; it is written last, and a case
/// whose JSON and digests agree is kept. Files appear whole or not at all; what a killed process
/// left is removed.
///
/// Memory: that of PredictionSize, announced before the first case; a case that takes more than
///         there is is refused.
/// Errors: those of ListCasesToPredict; INVALID_ARGUMENT the output lies in the input, or is
///         another dataset, or two cases would be written to one place; FAILED_PRECONDITION another
///         process writes there; RESOURCE_EXHAUSTED disk full, and other errors of writing, which
///         name the folder; CANCELLED when stopped (what is done stays, the next call goes on);
///         INTERNAL of `predict`.
/// Source: docs/references.md#bids (derivatives: segmentations).
absl::StatusOr<PredictedCases> PredictCases(const PredictionRequest& request,
                                            const CasePredictor& predict,
                                            const std::stop_token& stop,
                                            const PredictionObserver& observer);

}  // namespace isoscan
