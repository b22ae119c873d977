#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "client/imaging/acquisition.h"
#include "client/imaging/volume.h"

// Source of the attributes: docs/references.md#dicom, parts 3 and 5.

namespace isoscan {

/// One image plane of a series: a file, or one frame (0, 1, ...) of a multi-frame file, or one tile
/// of a Siemens mosaic.
struct DicomSlice {
  std::filesystem::path file;
  std::int32_t frame = 0;
};

enum class DicomKind { kSlices, kMultiFrame, kMosaic };

/// One 3D volume that can be read. It names no patient: UIDs, names, numbers, dates and
/// descriptions are read for sorting and then forgotten. Paths stay at the site, like a case's
/// name.
struct DicomSeries {
  /// Folder of the first file, relative to the listed one ("." for that), with "#2" for the second
  /// series of a folder and so on: by the names of their first files.
  std::string key;
  DicomKind kind = DicomKind::kSlices;
  std::vector<DicomSlice> slices;  ///< Along the normal, geometry.size[2] of them.
  Geometry geometry;
  Acquisition acquisition;
  bool derived = false;            ///< ImageType DERIVED: computed from other images.
  std::vector<std::string> notes;  ///< What reading does to it or a user should know; for a table.
  /// For "is this the same patient?" within one process: a digest salted with random bytes that are
  /// never written. Empty when the file names none. Never printed, logged or sent.
  std::string patient;
};

/// Why files are no volume; FaultName() gives the name for JSON.
enum class DicomFault {
  kUnreadable,
  kTruncated,
  kTransferSyntax,
  kNoImage,
  kNotMr,
  kSecondaryCapture,
  kBurnedIn,
  kColour,
  kPixels,
  kNoPosition,
  kLocaliser,
  kComputed,
  kMosaic,
  kMultiFrame,
  kSingleSlice,
  kNotParallel,
  kUnequalGaps,
  kMissingSlices,
  kDuplicateSlices,
  kManyVolumes,
  kCopies,
};
std::string_view FaultName(DicomFault fault);

/// Files of one series that are set aside for one reason, in one line with its numbers and what to
/// do. It names paths and is for the site alone.
struct DicomSetAside {
  std::filesystem::path first;
  std::size_t files = 0;
  DicomFault fault = DicomFault::kUnreadable;
  std::string reason;
};

struct DicomListing {
  std::vector<DicomSeries> series;       ///< By key.
  std::vector<DicomSetAside> set_aside;  ///< By first file.
  std::size_t dicom_files = 0;
  std::size_t other_files = 0;  ///< No DICOM at all, such as a README; no reason to complain.
};

/// Finds the series in `folder` and below by reading every file's header, no pixel. Hidden files
/// and links to folders are passed over.
///
/// A series is what shares SeriesInstanceUID, echo, size, spacing, ImageType, component (magnitude
/// or phase) and orientation. Its slices are sorted by ImagePositionPatient along the normal of
/// ImageOrientationPatient, never by InstanceNumber; gaps must agree within 1 % of the spacing,
/// which is measured between positions (SliceThickness is not looked at). docs/dicom.md says what
/// is read and what is set aside.
///
/// Cost:    a file's header each, a few hundred bytes of memory per file. One thread.
/// Threads: any number of calls at once.
/// Errors:  NOT_FOUND no such folder. A broken file is no error, but set aside.
absl::StatusOr<DicomListing> ListDicomSeries(const std::filesystem::path& folder);

/// Grey values after the modality's own scale: Philips' floating-point value where the file gives
/// its private scale slope, otherwise RescaleSlope and RescaleIntercept of each slice; MONOCHROME1
/// inverted first (docs/dicom.md#grey-values).
///
/// Memory:  the volume and one slice; for compressed multi-frame files all of the file's frames.
/// Errors:  DATA_LOSS a file that ends too early or cannot be decoded; NOT_FOUND a file that is
///          gone; INVALID_ARGUMENT one that has changed since it was listed;
///          RESOURCE_EXHAUSTED more memory than there is.
absl::StatusOr<Volume> ReadDicomSeries(const DicomSeries& series);

/// The series that a path means: the only usable one in a folder and below, or, for a file, the one
/// among the files of its folder that holds it.
/// Errors: NOT_FOUND none, with what was set aside; INVALID_ARGUMENT several, with their keys.
absl::StatusOr<DicomSeries> FindDicomSeries(const std::filesystem::path& path);

/// True for a folder, and for a file with DICOM's signature.
bool MayBeDicom(const std::filesystem::path& path);

}  // namespace isoscan
