#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "client/imaging/dicom_fault.h"
#include "client/imaging/dicom_series.h"

// Source of the attributes: docs/references.md#dicom, parts 3 and 5.

namespace isoscan {

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

/// How a long listing is done: on so many threads, until it is asked to stop, and who is told how
/// far it is (from the caller's thread).
struct ListingControl {
  int threads = 1;
  std::stop_token stop = {};
  std::function<void(std::int64_t done, std::int64_t total)> observe = {};
};

/// Finds the series in `folder` and below by reading every file's header, no pixel. Hidden files
/// and links to folders are passed over.
///
/// A series is what shares SeriesInstanceUID, echo, size, spacing, ImageType, component (magnitude
/// or phase) and orientation. Its slices are sorted by ImagePositionPatient along the normal of
/// ImageOrientationPatient, never by InstanceNumber; gaps must agree within 1 % of the spacing,
/// which is measured between positions (SliceThickness is not looked at). docs/dicom.md says what
/// is read and what is set aside. The number of threads does not show in the listing.
///
/// Cost:    a file's header each; of memory a few hundred bytes per plane, and 256 headers.
/// Threads: any number of calls at once.
/// Errors:  NOT_FOUND no such folder; CANCELLED; RESOURCE_EXHAUSTED more memory than there is. A
///          broken file is no error, but set aside.
absl::StatusOr<DicomListing> ListDicomSeries(const std::filesystem::path& folder,
                                             const ListingControl& control = {});

/// The series that a path means: the only usable one in a folder and below, or, for a file, the one
/// among the files of its folder that holds it.
/// Errors: NOT_FOUND none, with what was set aside; INVALID_ARGUMENT several, with their keys.
absl::StatusOr<DicomSeries> FindDicomSeries(const std::filesystem::path& path);

/// True for a folder, and for a file with DICOM's signature.
bool MayBeDicom(const std::filesystem::path& path);

}  // namespace isoscan
