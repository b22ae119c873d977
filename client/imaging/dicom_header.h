#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "client/imaging/acquisition.h"

namespace isoscan {

/// One plane of a file.
struct DicomFrame {
  std::optional<std::array<double, 3>> position_mm;  ///< LPS, centre of the first voxel.
  std::optional<std::array<double, 6>> orientation;  ///< Of a row, then of a column.
  std::array<double, 2> spacing_mm{};                ///< Between columns (x), between rows (y).
  double slope = 1;                                  ///< value = slope * stored + intercept.
  double intercept = 0;
  bool philips_scale = false;  ///< They hold Philips' private scale.
  std::optional<double> echo_ms;
  /// Never null. Shared by the frames that have the same: a header may hold 100,000 of them.
  std::shared_ptr<const std::vector<std::string>> image_type;
  ImageComponent component = ImageComponent::kMagnitude;
};

/// What one file's header says, up to its pixels. Lives while a folder is listed or a file is read:
/// it holds UIDs and must not be kept.
struct DicomHeader {
  std::string class_uid;
  std::string series_uid;
  std::string instance_uid;
  std::string transfer_syntax;  ///< UID.
  enum class Encoding { kPlain, kRle, kJpeg, kUnknown };
  /// Plain pixels lie at `pixels_at`, frame after frame; the others in fragments. GDCM decodes
  /// JPEG, JPEG-LS and JPEG 2000.
  Encoding encoding = Encoding::kPlain;
  bool big_endian_pixels = false;
  std::int64_t pixels_at = -1;  ///< Byte offset of the pixels' values; -1 without pixels.
  bool float_pixels = false;    ///< DicomFile::float_pixels.
  std::int64_t file_bytes = 0;
  std::string patient;  ///< DicomSeries::patient.
  /// DicomSeries::patient_fraction: 20 bits of the number's digest. Of ten million numbers ten have
  /// the same, so that it does not lead back to one.
  std::optional<double> patient_fraction;

  std::int64_t columns = 0;
  std::int64_t rows = 0;
  int bits_allocated = 0;
  int bits_stored = 0;
  int high_bit = 0;
  bool is_signed = false;
  int samples = 1;  ///< Values per pixel.
  std::string photometric;
  bool burned_in = false;
  bool is_directory = false;         ///< DICOMDIR, the table of contents of a disc.
  bool localiser = false;            ///< Says so in its image type or its names.
  std::int64_t declared_frames = 1;  ///< NumberOfFrames.
  /// Far above every scanner's; files of more have no `frames`.
  static constexpr std::int64_t kMostFrames = 100'000;
  bool mosaic = false;           ///< A Siemens mosaic: one big plane, tiled with the slices.
  std::int64_t mosaic_side = 1;  ///< Tiles in a row of it, and rows of tiles.

  Acquisition acquisition;
  /// One; or one for each frame of a multi-frame file; or one for each slice of a mosaic, of which
  /// `columns` and `rows` are then those of a tile. Empty when the file does not describe them.
  std::vector<DicomFrame> frames;

  /// Of stored pixels; of a mosaic, all tiles together.
  std::int64_t bytes_per_frame() const {
    return columns * rows * mosaic_side * mosaic_side * samples * (bits_allocated / 8);
  }
  /// Of stored pixels, all planes together.
  std::int64_t pixel_bytes() const {
    return bytes_per_frame() * (mosaic ? 1 : static_cast<std::int64_t>(frames.size()));
  }
  /// What decoding one frame may take in a process of its own; 0 where none is needed. Decoders
  /// hold a pixel in a few numbers of 4 bytes, and themselves.
  std::int64_t decoder_bytes() const {
    return encoding == Encoding::kJpeg ? (std::int64_t{1} << 28) + 16 * bytes_per_frame() : 0;
  }
  /// The most pixels that a file of this size can hold: RLE makes at best 128 bytes of 2. What a
  /// JPEG stream holds is not known before it is decoded.
  std::int64_t greatest_pixel_bytes() const {
    constexpr std::int64_t kGreatestRleRatio = 64;
    if (encoding == Encoding::kJpeg) return std::numeric_limits<std::int64_t>::max();
    return (file_bytes - pixels_at) * (encoding == Encoding::kRle ? kGreatestRleRatio : 1);
  }
};

/// Errors: DATA_LOSS with a reason without the path; NOT_FOUND when it cannot be opened.
absl::StatusOr<DicomHeader> ReadDicomHeader(const std::filesystem::path& path);

}  // namespace isoscan
