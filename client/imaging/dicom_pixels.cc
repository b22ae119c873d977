#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <fstream>
#include <new>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"

#include "client/imaging/dicom_header.h"
#include "client/imaging/dicom_series.h"
#include "common/process/resources.h"
#include "common/status/file_error.h"
#include "common/status/status_macros.h"
#include <gdcmPixmap.h>
#include <gdcmPixmapReader.h>

namespace isoscan {
namespace {

absl::Status Named(const std::filesystem::path& file, const absl::Status& status) {
  return absl::Status(status.code(),
                      fmt::format("{}: {}", file.string(), std::string(status.message())));
}

/// One open file of a series, with its frames' stored pixels.
class PixelSource {
 public:
  static absl::StatusOr<PixelSource> Open(const std::filesystem::path& path) {
    PixelSource source;
    absl::StatusOr<DicomHeader> header = ReadDicomHeader(path);
    if (!header.ok()) return Named(path, header.status());
    source.path_ = path;
    source.header_ = *std::move(header);
    if (source.header_.plain) {
      source.file_.open(path, std::ios::binary);
      if (!source.file_) return FileError("cannot open", path.string(), errno);
    } else {
      RETURN_IF_ERROR(source.Decode());
    }
    return source;
  }

  const std::filesystem::path& path() const { return path_; }
  const DicomHeader& header() const { return header_; }

  /// The bytes of plane `stored` (a mosaic has one), valid until the next call.
  absl::StatusOr<const std::byte*> Stored(std::int64_t stored) {
    const std::int64_t bytes = header_.bytes_per_frame();
    if (!header_.plain) return buffer_.data() + stored * bytes;
    if (stored == in_buffer_) return buffer_.data();
    buffer_.resize(static_cast<std::size_t>(bytes));
    file_.clear();
    file_.seekg(header_.pixels_at + stored * bytes);
    file_.read(reinterpret_cast<char*>(buffer_.data()), bytes);
    if (file_.gcount() != bytes) {
      return absl::DataLossError(
          fmt::format("{} ends too early: {} of {} bytes of pixels of plane {} are there; it is "
                      "damaged, copy it again",
                      path_.string(), file_.gcount(), bytes, stored + 1));
    }
    in_buffer_ = stored;
    return buffer_.data();
  }

 private:
  /// Everything that is compressed, deflated or big endian goes through GDCM.
  absl::Status Decode() {
    const std::int64_t planes =
        header_.mosaic ? 1 : static_cast<std::int64_t>(header_.frames.size());
    const std::int64_t needed = header_.bytes_per_frame() * planes;
    RETURN_IF_ERROR(CheckMemory(fmt::format("decoding {}", path_.string()), needed));
    try {
      gdcm::PixmapReader reader;
      reader.SetFileName(path_.c_str());
      if (reader.Read()) {
        const gdcm::Pixmap& image = reader.GetPixmap();
        const bool as_said = image.GetPixelFormat().GetBitsAllocated() == header_.bits_allocated &&
                             image.GetPixelFormat().GetSamplesPerPixel() == 1 &&
                             static_cast<std::int64_t>(image.GetBufferLength()) == needed;
        buffer_.resize(static_cast<std::size_t>(needed));
        if (as_said && image.GetBuffer(reinterpret_cast<char*>(buffer_.data()))) {
          return absl::OkStatus();
        }
      }
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception&) {
      // GDCM's texts name its own source files.
    }
    return absl::DataLossError(
        fmt::format("{}: its pixels (transfer syntax {}) cannot be decoded: it is damaged, or "
                    "compressed in a way that GDCM does not know; copy it again, or export it "
                    "uncompressed",
                    path_.string(), header_.transfer_syntax));
  }

  std::filesystem::path path_;
  DicomHeader header_;
  std::ifstream file_;
  std::vector<std::byte> buffer_;
  std::int64_t in_buffer_ = -1;
};

/// Writes one tile of `stored` as grey values. Bits above the stored ones may hold anything, such
/// as an overlay.
template <typename T>
void Convert(const DicomHeader& header, const DicomFrame& frame, const T* stored,
             std::int64_t row_length, float* voxels) {
  const unsigned shift =
      static_cast<unsigned>(sizeof(T) * 8) - static_cast<unsigned>(header.bits_stored);
  const bool inverted = header.photometric == "MONOCHROME1";
  // Of the values that the bits can hold: lowest + highest - value turns the scale over.
  const double turned = header.is_signed ? -1 : std::ldexp(1.0, header.bits_stored) - 1;
  for (std::int64_t y = 0; y < header.rows; ++y) {
    const T* from = stored + y * row_length;
    for (std::int64_t x = 0; x < header.columns; ++x) {
      const T lifted = static_cast<T>(from[x] << shift);
      double value = 0;
      if (header.is_signed) {
        value = static_cast<double>(static_cast<std::make_signed_t<T>>(lifted) >> shift);
      } else {
        value = static_cast<double>(lifted >> shift);
      }
      if (inverted) value = turned - value;
      *voxels++ = static_cast<float>(value * frame.slope + frame.intercept);
    }
  }
}

absl::Status ReadPlane(PixelSource& source, std::int32_t number, float* voxels) {
  const DicomHeader& header = source.header();
  const DicomFrame& frame = header.frames[static_cast<std::size_t>(number)];
  ASSIGN_OR_RETURN(const std::byte* stored, source.Stored(header.mosaic ? 0 : number));
  const std::int64_t row_length = header.columns * header.mosaic_side;
  std::int64_t first = 0;
  if (header.mosaic) {
    first = (number / header.mosaic_side) * header.rows * row_length +
            (number % header.mosaic_side) * header.columns;
  }
  switch (header.bits_allocated) {
    case 8:
      Convert(header, frame, reinterpret_cast<const std::uint8_t*>(stored) + first, row_length,
              voxels);
      break;
    case 16:
      Convert(header, frame, reinterpret_cast<const std::uint16_t*>(stored) + first, row_length,
              voxels);
      break;
    default:
      Convert(header, frame, reinterpret_cast<const std::uint32_t*>(stored) + first, row_length,
              voxels);
  }
  return absl::OkStatus();
}

/// The listing checked the file; it may have been replaced since.
bool IsAsListed(const DicomHeader& header, const DicomSeries& series, std::int32_t frame) {
  return header.pixels_at >= 0 && header.samples == 1 && header.bits_stored >= 1 &&
         header.bits_stored <= header.bits_allocated &&
         (header.bits_allocated == 8 || header.bits_allocated == 16 ||
          header.bits_allocated == 32) &&
         header.columns == series.geometry.size[0] && header.rows == series.geometry.size[1] &&
         frame >= 0 && static_cast<std::size_t>(frame) < header.frames.size() &&
         header.mosaic == (series.kind == DicomKind::kMosaic);
}

}  // namespace

absl::StatusOr<Volume> ReadDicomSeries(const DicomSeries& series) {
  RETURN_IF_ERROR(CheckMemory(fmt::format("reading the DICOM series {}", series.key),
                              series.geometry.voxels() * static_cast<std::int64_t>(sizeof(float))));
  Volume volume;
  volume.geometry = series.geometry;
  const std::int64_t plane = series.geometry.size[0] * series.geometry.size[1];
  try {
    volume.voxels.resize(static_cast<std::size_t>(series.geometry.voxels()));
    std::optional<PixelSource> source;
    float* voxels = volume.voxels.data();
    for (const DicomSlice& slice : series.slices) {
      if (!source.has_value() || source->path() != slice.file) {
        source.reset();
        ASSIGN_OR_RETURN(source, PixelSource::Open(slice.file));
        if (!IsAsListed(source->header(), series, slice.frame)) {
          return absl::InvalidArgumentError(fmt::format(
              "{} has changed since its folder was listed, or is no image of the series "
              "{}: list it again",
              slice.file.string(), series.key));
        }
      }
      RETURN_IF_ERROR(ReadPlane(*source, slice.frame, voxels));
      voxels += plane;
    }
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        fmt::format("not enough memory to read the {} voxels of the DICOM series {}",
                    series.geometry.voxels(), series.key));
  }
  return volume;
}

}  // namespace isoscan
