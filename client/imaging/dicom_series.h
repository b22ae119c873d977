#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "client/imaging/acquisition.h"
#include "client/imaging/volume.h"

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
  /// Of the first file, relative to the listed one ("." for that). Its name may hold a '#', too.
  std::string folder;
  /// `folder`, with "#2" for its second series and so on: by the names of their first files.
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
  /// In [0, 1), by which a study's rule "hash" holds the patient out, the same in every process and
  /// for all of a patient's series; none where `patient` is empty. See DicomHeader.
  std::optional<double> patient_fraction;
  /// What decoding a slice may take in a process of its own, besides what ReadDicomSeries takes; 0
  /// for a series that is not compressed, or by RLE.
  std::int64_t decoder_bytes = 0;
};

/// Grey values after the modality's own scale: Philips' floating-point value where the file gives
/// its private scale slope, otherwise RescaleSlope and RescaleIntercept of each slice; MONOCHROME1
/// inverted first (docs/dicom.md#grey-values).
///
/// Memory:  the volume and one slice (of mosaics, one mosaic); and DicomSeries::decoder_bytes.
/// Errors:  DATA_LOSS a file that ends too early or cannot be decoded; NOT_FOUND a file that is
///          gone; INVALID_ARGUMENT one that has changed since it was listed;
///          RESOURCE_EXHAUSTED more memory than there is.
absl::StatusOr<Volume> ReadDicomSeries(const DicomSeries& series);

}  // namespace isoscan
