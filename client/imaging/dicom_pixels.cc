#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"

#include "client/imaging/dicom_header.h"
#include "client/imaging/dicom_series.h"
#include "common/process/apart.h"
#include "common/process/resources.h"
#include "common/status/file_error.h"
#include "common/status/status_macros.h"
#include <gdcmImage.h>
#include <gdcmSequenceOfFragments.h>

namespace isoscan {
namespace {

absl::Status Named(const std::filesystem::path& file, const absl::Status& status) {
  return absl::Status(status.code(),
                      fmt::format("{}: {}", file.string(), std::string(status.message())));
}

/// RLE as DICOM has it: the bytes of all pixels' highest byte, then those of the next, each packed.
/// Source: docs/references.md#dicom, part 5, annex G. False when it is damaged.
bool DecodeRle(const std::string& packed, std::size_t pixel_bytes, std::vector<std::byte>& pixels) {
  const auto number = [&packed](std::size_t at) {
    std::uint32_t value = 0;
    std::memcpy(&value, packed.data() + at, sizeof(value));
    return std::size_t{value};
  };
  if (packed.size() < 64 || number(0) != pixel_bytes) return false;
  const std::size_t count = pixels.size() / pixel_bytes;
  for (std::size_t segment = 0; segment < pixel_bytes; ++segment) {
    std::size_t at = number(4 + 4 * segment);
    const std::size_t byte = pixel_bytes - 1 - segment;  // Most significant first.
    for (std::size_t pixel = 0; pixel < count;) {
      if (at >= packed.size()) return false;
      const int control = static_cast<signed char>(packed[at++]);
      if (control == -128) continue;
      const bool repeats = control < 0;
      std::size_t run = static_cast<std::size_t>(repeats ? 1 - control : 1 + control);
      if (run > count - pixel || at + (repeats ? 1 : run) > packed.size()) return false;
      for (; run > 0; --run, ++pixel) {
        pixels[pixel * pixel_bytes + byte] = static_cast<std::byte>(packed[at]);
        at += repeats ? 0 : 1;
      }
      at += repeats ? 1 : 0;
    }
  }
  return true;
}

/// Whether a JPEG, JPEG-LS or JPEG 2000 stream has the size and width of pixels that its file says.
/// GDCM believes both and copies from one to the other.
bool StreamFits(const std::string& stream, const DicomHeader& header, std::int64_t columns,
                std::int64_t rows) {
  const auto number = [&stream](std::size_t at, std::size_t count) {
    std::int64_t value = 0;
    for (std::size_t i = at; i < at + count && i < stream.size(); ++i) {
      value = value << 8 | static_cast<unsigned char>(stream[i]);
    }
    return value;
  };
  const auto fits = [&](std::int64_t width, std::int64_t height, std::int64_t samples,
                        std::int64_t bits) {
    return width == columns && height == rows && samples == 1 && bits >= 2 &&
           (bits <= 8) == (header.bits_allocated == 8) && bits <= header.bits_allocated;
  };
  if (stream.size() < 64) return false;
  if (number(0, 4) == 0xff4fff51) {  // JPEG 2000: start of codestream, image and tile size.
    return number(16, 8) == 0 &&
           fits(number(8, 4), number(12, 4), number(40, 2), (number(42, 1) & 0x7f) + 1);
  }
  if (number(0, 2) != 0xffd8) return false;
  for (std::size_t at = 2; at + 10 < stream.size();) {
    if (number(at, 1) != 0xff) return false;
    const std::int64_t marker = number(at + 1, 1);
    const bool is_frame =
        (marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc) ||
        marker == 0xf7;
    if (is_frame) {
      return fits(number(at + 7, 2), number(at + 5, 2), number(at + 9, 1), number(at + 4, 1));
    }
    at += 2 + static_cast<std::size_t>(std::max<std::int64_t>(number(at + 2, 2), 2));
  }
  return false;
}

/// One open file of a series, with its planes' stored pixels.
class PixelSource {
 public:
  static absl::StatusOr<PixelSource> Open(const std::filesystem::path& path) {
    PixelSource source;
    absl::StatusOr<DicomHeader> header = ReadDicomHeader(path);
    if (!header.ok()) return Named(path, header.status());
    source.path_ = path;
    source.header_ = *std::move(header);
    source.file_.open(path, std::ios::binary);
    if (!source.file_) return FileError("cannot open", path.string(), errno);
    return source;
  }

  const std::filesystem::path& path() const { return path_; }
  const DicomHeader& header() const { return header_; }

  /// The pixels of plane `plane` (a mosaic has one), in this machine's order of bytes.
  absl::StatusOr<const std::byte*> Stored(std::int64_t plane) {
    if (plane == in_buffer_) return buffer_.data();
    in_buffer_ = -1;
    RETURN_IF_ERROR(CheckDecoderMemory());
    buffer_.resize(static_cast<std::size_t>(header_.bytes_per_frame()));
    RETURN_IF_ERROR(header_.encoding == DicomHeader::Encoding::kPlain ? ReadPlain(plane)
                                                                      : Decode(plane));
    in_buffer_ = plane;
    return buffer_.data();
  }

 private:
  absl::Status ReadPlain(std::int64_t plane) {
    const auto bytes = static_cast<std::int64_t>(buffer_.size());
    file_.clear();
    file_.seekg(header_.pixels_at + plane * bytes);
    file_.read(reinterpret_cast<char*>(buffer_.data()), bytes);
    if (file_.gcount() != bytes) {
      return absl::DataLossError(
          fmt::format("{} ends too early: {} of {} bytes of pixels of plane {} are there; it is "
                      "damaged, copy it again",
                      path_.string(), file_.gcount(), bytes, plane + 1));
    }
    if (header_.big_endian_pixels) {
      const std::ptrdiff_t pixel = header_.bits_allocated / 8;
      for (auto at = buffer_.begin(); at != buffer_.end(); at += pixel) {
        std::reverse(at, at + pixel);
      }
    }
    return absl::OkStatus();
  }

  /// A JPEG stream of a few bytes may say that it is a plane of gigabytes; the decoder holds it
  /// in a process of its own.
  absl::Status CheckDecoderMemory() const {
    constexpr std::int64_t kSmallBytes = 16'000'000;  // Asking the system takes longer to read.
    const std::int64_t bytes = 3 * header_.bytes_per_frame();
    if (header_.encoding != DicomHeader::Encoding::kJpeg || bytes < kSmallBytes) {
      return absl::OkStatus();
    }
    return CheckMemory(fmt::format("decoding {}", path_.string()), bytes);
  }

  absl::Status Damaged(std::int64_t plane, const std::string& how) const {
    return absl::DataLossError(
        fmt::format("{}: the pixels of plane {} (transfer syntax {}) cannot be decoded ({}): it is "
                    "damaged, or compressed in a way that GDCM does not know; copy it again, or "
                    "export it uncompressed",
                    path_.string(), plane + 1, header_.transfer_syntax, how));
  }

  /// Where each plane's fragments lie: after a table of offsets, one fragment for each plane, or
  /// all for the only plane. Source: docs/references.md#dicom, part 5, annex A.4.
  bool FindFragments() {
    std::int64_t at = header_.pixels_at;
    for (bool is_table = true;; is_table = false) {
      std::array<unsigned char, 8> start{};
      file_.clear();
      file_.seekg(at);
      if (!file_.read(reinterpret_cast<char*>(start.data()), start.size())) return false;
      const auto length = static_cast<std::int64_t>(start[4] | start[5] << 8 | start[6] << 16 |
                                                    std::int64_t{start[7]} << 24);
      at += 8;
      if (start[0] != 0xfe || start[1] != 0xff || start[3] != 0xe0) return false;
      if (start[2] == 0xdd) break;
      if (length > header_.file_bytes - at) return false;
      if (!is_table) fragments_.push_back({at, length});
      at += length;
    }
    const std::size_t planes = header_.mosaic ? 1 : header_.frames.size();
    return !fragments_.empty() && (planes == 1 || fragments_.size() == planes);
  }

  absl::Status Decode(std::int64_t plane) {
    if (fragments_.empty() && !FindFragments()) {
      return Damaged(plane, "its fragments end too early or are not one for each plane");
    }
    const bool only_plane = header_.mosaic || header_.frames.size() == 1;
    std::string stream;
    for (std::size_t i = 0; i < fragments_.size(); ++i) {
      if (!only_plane && i != static_cast<std::size_t>(plane)) continue;
      const auto [at, length] = fragments_[i];
      const std::size_t before = stream.size();
      stream.resize(before + static_cast<std::size_t>(length));
      file_.clear();
      file_.seekg(at);
      if (!file_.read(stream.data() + before, length)) return Damaged(plane, "it ends too early");
    }
    const std::int64_t columns = header_.columns * header_.mosaic_side;
    const std::int64_t rows = header_.rows * header_.mosaic_side;
    if (header_.encoding == DicomHeader::Encoding::kRle) {
      const auto pixel_bytes = static_cast<std::size_t>(header_.bits_allocated / 8);
      return DecodeRle(stream, pixel_bytes, buffer_)
                 ? absl::OkStatus()
                 : Damaged(plane, "its runs do not make the plane");
    }
    if (!StreamFits(stream, header_, columns, rows)) {
      return Damaged(plane, "its stream is of another size than the header says");
    }
    const absl::Status decoded = DecodeJpeg(stream, columns, rows);
    switch (decoded.code()) {
      case absl::StatusCode::kOk:
        return decoded;
      case absl::StatusCode::kCancelled:
      case absl::StatusCode::kResourceExhausted:  // Not the file's fault.
        return absl::Status(decoded.code(), fmt::format("cannot decode {}: {}", path_.string(),
                                                        std::string(decoded.message())));
      default:
        return Damaged(plane, std::string(decoded.message()));
    }
  }

  /// Apart: Debian's GDCM asserts what a damaged stream says, and its decoders print.
  absl::Status DecodeJpeg(const std::string& stream, std::int64_t columns, std::int64_t rows) {
    const auto bytes = static_cast<std::int64_t>(buffer_.size());
    // A megabyte takes a tenth of a second. Whatever a stream of a few bytes says, nobody waits for
    // minutes.
    const std::chrono::seconds limit(std::min<std::int64_t>(30 + bytes / 1'000'000, 120));
    return RunApart(buffer_, limit, header_.decoder_bytes(), [&](std::span<std::byte> pixels) {
      return DecodeByGdcm(stream, columns, rows, pixels);
    });
  }

  bool DecodeByGdcm(const std::string& stream, std::int64_t columns, std::int64_t rows,
                    std::span<std::byte> decoded) const {
    gdcm::Fragment fragment;
    fragment.SetByteValue(stream.data(), static_cast<std::uint32_t>(stream.size()));
    gdcm::SmartPointer<gdcm::SequenceOfFragments> fragments = gdcm::SequenceOfFragments::New();
    fragments->AddFragment(fragment);
    gdcm::DataElement pixels(gdcm::Tag(0x7fe0, 0x0010));
    pixels.SetVR(gdcm::VR::OB);
    pixels.SetValue(*fragments);
    gdcm::Image image;
    image.SetNumberOfDimensions(2);
    image.SetDimension(0, static_cast<unsigned>(columns));
    image.SetDimension(1, static_cast<unsigned>(rows));
    image.SetPixelFormat(gdcm::PixelFormat(1, static_cast<unsigned short>(header_.bits_allocated),
                                           static_cast<unsigned short>(header_.bits_stored),
                                           static_cast<unsigned short>(header_.high_bit),
                                           header_.is_signed ? 1 : 0));
    image.SetPhotometricInterpretation(gdcm::PhotometricInterpretation::MONOCHROME2);
    image.SetTransferSyntax(gdcm::TransferSyntax::GetTSType(header_.transfer_syntax.c_str()));
    image.SetDataElement(pixels);
    return image.GetBufferLength() == decoded.size() &&
           image.GetBuffer(reinterpret_cast<char*>(decoded.data()));
  }

  std::filesystem::path path_;
  DicomHeader header_;
  std::ifstream file_;
  std::vector<std::pair<std::int64_t, std::int64_t>> fragments_;  ///< Offset and length.
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
  return header.pixels_at >= 0 && !header.float_pixels &&
         header.encoding != DicomHeader::Encoding::kUnknown && header.samples == 1 &&
         header.bits_stored >= 1 && header.bits_stored <= header.bits_allocated &&
         (header.bits_allocated == 8 || header.bits_allocated == 16 ||
          header.bits_allocated == 32) &&
         header.columns == series.geometry.size[0] && header.rows == series.geometry.size[1] &&
         frame >= 0 && static_cast<std::size_t>(frame) < header.frames.size() &&
         header.mosaic == (series.kind == DicomKind::kMosaic) &&
         header.pixel_bytes() <= header.greatest_pixel_bytes();
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
      }
      if (!IsAsListed(source->header(), series, slice.frame)) {
        return absl::InvalidArgumentError(
            fmt::format("{} has changed since its folder was listed, or is no image of the series "
                        "{}: list it again",
                        slice.file.string(), series.key));
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
