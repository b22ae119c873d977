#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "client/imaging/stored_voxels.h"
#include "client/imaging/volume.h"

namespace isoscan {

/// What an NRRD or a MetaImage says before its voxels: lines of text. Neither library for them
/// stands a hostile one: MetaIO writes beyond its arrays, takes a file name for a format of printf
/// and opens whatever it names (docs/decisions/0007-own-headers.md).
struct TextHeader {
  StoredVoxels stored;
  Geometry geometry;
  /// The file in the header's own folder that holds the voxels; empty: they follow the header.
  std::string data_file;
  /// Of the voxels, from the end of the header or the start of `data_file`; -1: they are the last
  /// bytes there.
  std::int64_t offset = 0;
  bool deflated = false;           ///< gzip or zlib, by its first bytes.
  std::vector<std::string> notes;  ///< As in GeometryAudit.
};

/// The length of the text at the beginning of a file, with its end: an empty line (NRRD) or the
/// line that names the voxels' file (MetaImage). npos when `text` does not hold it.
std::size_t NrrdHeaderBytes(std::string_view text);
std::size_t MetaHeaderBytes(std::string_view text);

/// One scalar 3D image (or 4D, with one volume). Fields that do not say where a voxel lies or what
/// it is are passed over; lengths are in millimetres, and a file that names another unit is
/// refused, since few readers look. An NRRD's space is brought to LPS; one without a space that
/// knows left from right is taken for LPS, as ITK does, with a note. `path` is for messages.
/// Source: docs/references.md#nrrd, #metaimage.
///
/// Errors: DATA_LOSS no header, or one that contradicts itself; INVALID_ARGUMENT not one scalar 3D
///         image, a sheared grid, another unit, or a way of storing voxels that is not read.
absl::StatusOr<TextHeader> ParseNrrdHeader(std::string_view text,
                                           const std::filesystem::path& path);
absl::StatusOr<TextHeader> ParseMetaHeader(std::string_view text,
                                           const std::filesystem::path& path);

}  // namespace isoscan
