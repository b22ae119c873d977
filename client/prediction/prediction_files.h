#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/cohort/cohort.h"
#include "client/harmonization/harmonize.h"
#include "client/imaging/volume.h"
#include "client/prediction/prediction.h"

// Where the labels of a prediction lie and what stands beside them; docs/prediction.md.

namespace isoscan {

/// A request with absolute paths without links, and what its output is.
struct PredictionPlaces {
  std::filesystem::path input;
  std::filesystem::path output;
  enum class Layout {
    kOneFile,  ///< `output` is the NIfTI file itself.
    kFolder,   ///< OUTPUT/CASE.nii.gz
    kBids,     ///< A derivative.
  };
  Layout layout = Layout::kFolder;

  /// The folder that everything is written below.
  std::filesystem::path folder() const;
};

/// Errors: INVALID_ARGUMENT the output is the input, lies in it (but for BIDS under derivatives/)
///         or is another dataset; those of CanonicalPath.
absl::StatusOr<PredictionPlaces> PlacesOf(const PredictionRequest& request);

/// Where each case's labels go, one by one. Errors: INVALID_ARGUMENT two cases of one place, or a
/// file for several.
absl::StatusOr<std::vector<std::filesystem::path>> LabelFilesOf(const PredictionPlaces& places,
                                                                const std::vector<CaseFiles>& cases,
                                                                const Study& study);

/// CASE.json beside CASE.nii.gz.
std::filesystem::path RecordOfLabels(const std::filesystem::path& labels);

/// CASE.dcm beside CASE.nii.gz.
std::filesystem::path SegmentationOfLabels(const std::filesystem::path& labels);

/// dataset_description.json and the table of labels of a BIDS derivative; nothing for others.
absl::Status WriteDatasetFiles(const PredictionPlaces& places, const Study& study);

/// Removes what a killed process has left of these files.
absl::Status RemoveLeftovers(const PredictionPlaces& places,
                             const std::vector<std::filesystem::path>& labels);

/// All that decides on a case's labels, digests of its files among it. Errors: those of reading.
absl::StatusOr<nlohmann::json> MadeOf(const CaseFiles& files, const PredictionRequest& request);

/// Whether labels are there that were made of the same, and that nobody has changed since.
bool IsPredicted(const std::filesystem::path& labels, const nlohmann::json& made_of);

/// What is told of one case beside what it was made of.
struct CaseRecord {
  nlohmann::json made_of;
  std::vector<HarmonizationRecord> channels;
  std::int64_t windows = 0;
  std::vector<PredictedCases::Named> findings;  ///< Name of the fault, and why.
};

/// OK when nothing lies where labels and record belong, or a prediction.
/// Errors: INVALID_ARGUMENT a file of somebody else's, such as manual labels.
absl::Status CheckNothingElseIsThere(const std::filesystem::path& labels, bool dicom_seg);

/// Writes labels in the stored order of voxels between a record that is unfinished, by which a
/// killed process's labels are known, and the whole one.
/// Errors: INVALID_ARGUMENT what no file can hold; those of writing, which name the folder.
absl::Status WritePrediction(const PredictionPlaces& places, const PredictionRequest& request,
                             const CaseFiles& files, const LabelMap& labels,
                             const std::filesystem::path& path, const CaseRecord& record);

/// Removes labels and their record, where they are a prediction.
absl::Status RemovePrediction(const std::filesystem::path& labels);

}  // namespace isoscan
