#pragma once

#include <filesystem>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/imaging/volume.h"

namespace isoscan {

/// Reads one NIfTI (.nii, .nii.gz), NRRD or MetaImage file of any scalar type, in its own grid; or
/// the DICOM series that a folder or one of its files means (FindDicomSeries).
/// Intensities are the stored ones after the file's own rescale slope and intercept. ITK ends here.
///
/// Errors: NOT_FOUND no such file; INVALID_ARGUMENT not one scalar 3D image (a 4D file with one
///         volume is accepted), or a NIfTI whose qform and sform place it differently (segmentation
///         readers disagree on which one counts; the message shows both);
///         DATA_LOSS what ITK cannot decode; RESOURCE_EXHAUSTED more memory than there is.
absl::StatusOr<Volume> ReadVolume(const std::filesystem::path& path);

/// The values as they are stored, which may be larger than 255 or fractional in a broken file: the
/// caller maps them to labels.
absl::StatusOr<Volume> ReadLabelValues(const std::filesystem::path& path);

/// Size and geometry without the voxels.
absl::StatusOr<Geometry> ReadGeometry(const std::filesystem::path& path);

/// NIfTI by the name's ending; float32 and uint8. Appears whole or not at all.
absl::Status WriteVolume(const std::filesystem::path& path, const Volume& volume);
absl::Status WriteLabelMap(const std::filesystem::path& path, const LabelMap& labels);

}  // namespace isoscan
