#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace isoscan {

/// The elements of one data set that Isoscan uses, by group << 16 | element, as they are stored.
struct DicomElements {
  std::map<std::uint32_t, std::string> values;
  std::map<std::uint32_t, std::vector<DicomElements>> sequences;

  const std::string& Bytes(std::uint32_t tag) const;                 ///< "" when missing.
  const std::vector<DicomElements>& Items(std::uint32_t tag) const;  ///< {} when missing.
  /// The value of `attribute` in the first item of `sequence`.
  const std::string& InFirst(std::uint32_t sequence, std::uint32_t attribute) const;
};

/// A file up to its pixels. Lives while a folder is listed or a file is read: it holds UIDs and
/// must not be kept.
struct DicomFile {
  DicomElements elements;
  std::string transfer_syntax;  ///< UID.
  bool big_endian = false;      ///< Of `elements` and pixels.
  std::int64_t file_bytes = 0;
  std::int64_t pixels_at = -1;  ///< Byte offset of the pixels' values; -1 without pixels.
  bool float_pixels = false;    ///< They are floating-point numbers (7FE0,0008 or 0009).
};

/// Reads the elements that Isoscan uses and skips all others, so that neither a private element of
/// megabytes nor a length that lies costs memory. A small reader of our own, since GDCM's takes
/// seconds and gigabytes for such a length and ends the program where it asserts. Deflated files
/// have no elements. Source: docs/references.md#dicom, part 5, section 7 and part 10, section 7.
///
/// Errors: DATA_LOSS with a reason without the path; NOT_FOUND when it cannot be opened.
absl::StatusOr<DicomFile> ReadDicomElements(const std::filesystem::path& path);

/// True when the file begins as DICOM files do.
bool HasDicomSignature(const std::filesystem::path& path);

}  // namespace isoscan
