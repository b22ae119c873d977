#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/imaging/volume.h"

namespace isoscan {

/// A NIfTI header may say twice where the image lies, by its qform and its sform, and programs
/// disagree on which one counts: the left-right swap that nobody notices. kAgreed refuses a file
/// whose forms contradict each other; the others say which one counts where both are set. A file
/// with one form has nothing to choose from.
enum class GeometrySource { kAgreed, kQform, kSform };

/// "qform" or "sform", as client.toml and --geometry say it; everything else ("agreed") is kAgreed.
GeometrySource GeometrySourceOf(std::string_view name);

/// How far the geometry of a file can be believed. Source: docs/decisions/0005-grid-tolerance.md.
struct GeometryAudit {
  Geometry geometry;
  /// What `geometry` is taken from: "qform", "sform", "none" (a NIfTI with neither: the axes are
  /// taken for LPS), or "file" (another format, which says it once).
  std::string form;
  int qform_code = 0;  ///< 0: not set.
  int sform_code = 0;
  /// Greatest distance between the two forms' places for a corner voxel; 0 unless both are set.
  double disagreement_mm = 0;
  bool mirrored = false;  ///< One form is left-handed where the other is right-handed.
  /// Greatest deviation of two of the sform's axes from a right angle; 0 where the sform is not
  /// set. `geometry` is the nearest rigid grid.
  double shear_degrees = 0;
  /// How far the last voxel would be off if the sform's axes were as long as pixdim says.
  double pixdim_error_mm = 0;
  /// What somebody should look at, one sentence each, without the file's name; usually none.
  std::vector<std::string> notes;
};

/// Reads one NIfTI (.nii, .nii.gz, .hdr/.img), NRRD or MetaImage file of any scalar type, in its
/// own grid; or the DICOM series that a folder or one of its files means (FindDicomSeries).
/// Intensities are the stored ones after the file's own rescale slope and intercept; NaN
/// and infinity are kept.
///
/// Memory: the volume and less than 10 MB; nothing is taken for voxels that a file of its size
///         cannot hold.
/// Errors: NOT_FOUND no such file; INVALID_ARGUMENT not one scalar 3D image (a 4D file with one
///         volume is accepted), or a geometry that cannot be believed (AuditGeometry);
///         DATA_LOSS what is damaged, truncated or followed by something else; RESOURCE_EXHAUSTED
///         more memory than there is.
absl::StatusOr<Volume> ReadVolume(const std::filesystem::path& path,
                                  GeometrySource source = GeometrySource::kAgreed);

/// The values as they are stored, which may be larger than 255 or fractional in a broken file: the
/// caller maps them to labels.
absl::StatusOr<Volume> ReadLabelValues(const std::filesystem::path& path,
                                       GeometrySource source = GeometrySource::kAgreed);

/// Size and geometry without the voxels.
absl::StatusOr<Geometry> ReadGeometry(const std::filesystem::path& path,
                                      GeometrySource source = GeometrySource::kAgreed);

/// The same with what is questionable about it.
///
/// Errors: those of ReadVolume that a header shows; INVALID_ARGUMENT under kAgreed, when both forms
///         mirror each other or lie more than a quarter of a voxel apart; a sform whose axes are
///         more than 0.1 degrees off a right angle where no qform agrees with it.
absl::StatusOr<GeometryAudit> AuditGeometry(const std::filesystem::path& path,
                                            GeometrySource source = GeometrySource::kAgreed);

/// The files that ReadVolume reads of an image: its own and, where the header names another one or
/// is one half of a pair, that of the voxels too; the header's first. Of DICOM the series' files.
/// Errors: those of ReadVolume that a header shows.
absl::StatusOr<std::vector<std::filesystem::path>> FilesOf(const std::filesystem::path& path);

/// NIfTI by the name's ending, .nii or .nii.gz; float32 and uint8. qform and sform say the same,
/// with code 1. Appears whole or not at all.
absl::Status WriteVolume(const std::filesystem::path& path, const Volume& volume);
absl::Status WriteLabelMap(const std::filesystem::path& path, const LabelMap& labels);

/// The same in the grid of `input`. A NIfTI's qform and sform are copied with their codes, bit by
/// bit: whatever reads it finds the output in the same place. Of other files and of DICOM series
/// both forms say the same, with code 1, the scanner's.
/// Errors: also those of ReadGeometry; INVALID_ARGUMENT the image is not on the grid of `input`.
absl::Status WriteVolumeLike(const std::filesystem::path& input, const std::filesystem::path& path,
                             const Volume& volume);
absl::Status WriteLabelMapLike(const std::filesystem::path& input,
                               const std::filesystem::path& path, const LabelMap& labels);

}  // namespace isoscan
