#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "client/imaging/dicom_series.h"
#include "client/imaging/volume.h"

namespace isoscan {

/// What a DICOM segmentation says beside its voxels.
struct SegmentationText {
  std::vector<std::string> labels;  ///< Of label 1, 2, ...
  std::string algorithm;            ///< Such as a study's name.
  std::string version;              ///< Of the software.
  /// Decides on its UIDs: labels made of the same have the same, also in another process.
  std::string made_of;
};

/// A DICOM segmentation object (SEG, binary, a segment per label) of `labels`, on the series' grid
/// and in its order of voxels, for a PACS. A frame for each slice that a label is in refers to the
/// image that it lies on. Patient, study and frame of reference are the series': the file names
/// the patient as the series does. Segments have codes of our own (99ISOSCAN).
///
/// Errors: INVALID_ARGUMENT labels of another size, or a series that DCMTK cannot read; those of
///         AtomicFile.
/// Source: docs/references.md#dicom, part 3, A.51; written by DCMTK's dcmseg.
absl::Status WriteDicomSegmentation(const std::filesystem::path& path, const DicomSeries& series,
                                    const LabelMap& labels, const SegmentationText& text);

}  // namespace isoscan
