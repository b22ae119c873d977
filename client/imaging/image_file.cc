#include "client/imaging/image_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "client/imaging/dicom_listing.h"
#include "client/imaging/nifti_header.h"
#include "client/imaging/text_header.h"
#include "client/imaging/voxel_stream.h"
#include "common/process/resources.h"
#include "common/status/status_macros.h"
#include "common/weights/atomic_file.h"
#include <nifti1_io.h>

namespace isoscan {
namespace {

enum class Format { kNifti, kNrrd, kMetaImage };

constexpr std::int64_t kBlockBytes = std::int64_t{1} << 18;

absl::StatusOr<Format> FormatOf(const std::filesystem::path& path) {
  std::string name = path.filename().string();
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  for (const std::string_view ending : {".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz"}) {
    if (name.ends_with(ending)) return Format::kNifti;
  }
  for (const std::string_view ending : {".nrrd", ".nhdr"}) {
    if (name.ends_with(ending)) return Format::kNrrd;
  }
  for (const std::string_view ending : {".mha", ".mhd"}) {
    if (name.ends_with(ending)) return Format::kMetaImage;
  }
  return absl::InvalidArgumentError(fmt::format(
      "{} is no image file that Isoscan reads: NIfTI (.nii, .nii.gz), NRRD (.nrrd) and MetaImage "
      "(.mha, .mhd) are; convert it, for example with dcm2niix or SimpleITK",
      path.string()));
}

absl::Status CheckVoxelMemory(const Geometry& geometry, const std::filesystem::path& path) {
  // In floating point: a broken header may ask for more than 64 bits can count.
  double bytes = sizeof(float);
  for (const std::int64_t size : geometry.size) bytes *= static_cast<double>(size);
  // Asking the system takes as long as reading a crop.
  constexpr double kSmallBytes = 16e6;
  if (bytes < kSmallBytes) return absl::OkStatus();
  return CheckMemory(fmt::format("reading {}", path.string()),
                     static_cast<std::int64_t>(std::min(bytes, 1e18)));
}

// All formats through our own readers: ITK places a sheared or contradictory NIfTI by rules of its
// own and answers with zeros where a truncated file ends, niftilib replaces NaN by 0, and for the
// others see TextHeader.

absl::Status CheckHolds(const StoredVoxels& stored, std::int64_t offset, const VoxelStream& stream,
                        const std::filesystem::path& path) {
  if (offset + stored.voxel_data_bytes() <= stream.greatest_bytes()) return absl::OkStatus();
  return absl::DataLossError(fmt::format(
      "{} ends too early: its header promises {} x {} x {} voxels, {} bytes from byte {} on, and "
      "a file of this size holds at most {}; it is damaged, copy or convert it again",
      path.string(), stored.size[0], stored.size[1], stored.size[2], stored.voxel_data_bytes(),
      offset, stream.greatest_bytes()));
}

struct OpenedNifti {
  NiftiHeader header;
  VoxelStream stream;  ///< At the first voxel.
  std::vector<std::filesystem::path> files;
};

/// "x.img.gz" with "hdr" -> "x.hdr.gz" or, where there is none, "x.hdr".
std::filesystem::path Companion(const std::filesystem::path& path, std::string_view kind) {
  std::filesystem::path stem = path;
  if (stem.extension() == ".gz") stem.replace_extension();
  stem.replace_extension(kind);
  const std::filesystem::path zipped = stem.string() + ".gz";
  std::error_code error;
  return !std::filesystem::exists(stem, error) && std::filesystem::exists(zipped, error) ? zipped
                                                                                         : stem;
}

absl::Status Skip(VoxelStream& stream, std::int64_t bytes, const std::filesystem::path& path) {
  std::vector<std::byte> skipped(static_cast<std::size_t>(std::min(bytes, kBlockBytes)));
  while (bytes > 0) {
    const auto wanted = static_cast<std::size_t>(std::min(bytes, kBlockBytes));
    ASSIGN_OR_RETURN(const std::size_t count, stream.Read(std::span(skipped).first(wanted)));
    if (count < wanted) {
      return absl::DataLossError(fmt::format(
          "{} ends too early, before its voxels; it is damaged, copy or convert it again",
          path.string()));
    }
    bytes -= static_cast<std::int64_t>(count);
  }
  return absl::OkStatus();
}

absl::StatusOr<OpenedNifti> OpenNifti(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  const bool image_of_pair = name.ends_with(".img") || name.ends_with(".img.gz");
  std::vector<std::filesystem::path> files{image_of_pair ? Companion(path, ".hdr") : path};
  ASSIGN_OR_RETURN(VoxelStream stream, VoxelStream::Open(files.front()));
  std::array<std::byte, kNiftiHeaderBytes> bytes{};
  ASSIGN_OR_RETURN(const std::size_t count, stream.Read(bytes));
  ASSIGN_OR_RETURN(const NiftiHeader header, ParseNiftiHeader(std::span(bytes).first(count), path));
  if (header.separate) {
    // By its name: plain voxels may begin with any bytes, gzip's among them.
    const std::filesystem::path voxels = Companion(path, ".img");
    files.push_back(voxels);
    ASSIGN_OR_RETURN(stream, VoxelStream::Open(voxels, voxels.extension() == ".gz"
                                                           ? VoxelStream::Packing::kByContent
                                                           : VoxelStream::Packing::kPlain));
  }
  RETURN_IF_ERROR(CheckHolds(header, header.voxel_offset, stream, path));
  RETURN_IF_ERROR(Skip(
      stream,
      header.voxel_offset - (header.separate ? 0 : static_cast<std::int64_t>(kNiftiHeaderBytes)),
      path));
  return OpenedNifti{header, std::move(stream), std::move(files)};
}

template <typename Stored>
void Append(std::span<const std::byte> block, std::vector<float>& voxels) {
  const auto* stored = reinterpret_cast<const Stored*>(block.data());
  const std::size_t count = block.size() / sizeof(Stored);
  const std::size_t first = voxels.size();
  voxels.resize(first + count);
  for (std::size_t i = 0; i < count; ++i) voxels[first + i] = static_cast<float>(stored[i]);
}

void AppendAs(std::int16_t datatype, std::span<const std::byte> block, std::vector<float>& voxels) {
  switch (datatype) {
    case NIFTI_TYPE_UINT8:
      return Append<std::uint8_t>(block, voxels);
    case NIFTI_TYPE_INT8:
      return Append<std::int8_t>(block, voxels);
    case NIFTI_TYPE_UINT16:
      return Append<std::uint16_t>(block, voxels);
    case NIFTI_TYPE_INT16:
      return Append<std::int16_t>(block, voxels);
    case NIFTI_TYPE_UINT32:
      return Append<std::uint32_t>(block, voxels);
    case NIFTI_TYPE_INT32:
      return Append<std::int32_t>(block, voxels);
    case NIFTI_TYPE_UINT64:
      return Append<std::uint64_t>(block, voxels);
    case NIFTI_TYPE_INT64:
      return Append<std::int64_t>(block, voxels);
    case NIFTI_TYPE_FLOAT64:
      return Append<double>(block, voxels);
    default:
      return Append<float>(block, voxels);
  }
}

/// Block by block, so that a block is still in the cache when it is converted, and no memory is
/// taken before there is something to put into it.
absl::Status ReadVoxels(const StoredVoxels& header, VoxelStream& stream,
                        const std::filesystem::path& path, std::vector<float>& voxels) {
  const bool plain_floats = header.datatype == NIFTI_TYPE_FLOAT32;
  const std::int64_t total = header.voxel_data_bytes();
  std::vector<std::byte> scratch(
      plain_floats ? 0 : static_cast<std::size_t>(std::min(kBlockBytes, total)));
  voxels.reserve(static_cast<std::size_t>(total) / header.voxel_bytes);
  for (std::int64_t done = 0; done < total;) {
    const auto wanted = static_cast<std::size_t>(std::min(kBlockBytes, total - done));
    const std::size_t first = voxels.size();
    std::span<std::byte> block = std::span(scratch).first(plain_floats ? 0 : wanted);
    if (plain_floats) {
      voxels.resize(first + wanted / sizeof(float));
      block = std::as_writable_bytes(std::span(voxels).subspan(first));
    }
    ASSIGN_OR_RETURN(const std::size_t count, stream.Read(block));
    if (count < wanted) {
      return absl::DataLossError(fmt::format(
          "{} ends too early: {} of {} bytes of voxels are readable; it is damaged, copy or "
          "convert it again",
          path.string(), done + static_cast<std::int64_t>(count), total));
    }
    if (header.swapped && header.voxel_bytes > 1) {
      nifti_swap_Nbytes(wanted / header.voxel_bytes, static_cast<int>(header.voxel_bytes),
                        block.data());
    }
    if (!plain_floats) AppendAs(header.datatype, block, voxels);
    if (header.slope != 1 || header.intercept != 0) {
      for (float& voxel : std::span(voxels).subspan(first)) {
        voxel = static_cast<float>(voxel * header.slope + header.intercept);
      }
    }
    done += static_cast<std::int64_t>(wanted);
  }
  // To the end, where the checksum is; some writers pad a little.
  constexpr std::size_t kGreatestSurplus = std::size_t{1} << 16;
  scratch.resize(kGreatestSurplus + 1);
  ASSIGN_OR_RETURN(const std::size_t surplus,
                   stream.Read(std::span(scratch).first(kGreatestSurplus + 1)));
  if (surplus <= kGreatestSurplus) return absl::OkStatus();
  return absl::DataLossError(fmt::format(
      "{} goes on after the {} x {} x {} voxels of its header: the header does not belong to these "
      "data; convert it again",
      path.string(), header.size[0], header.size[1], header.size[2]));
}

// NRRD and MetaImage.

struct OpenedText {
  TextHeader header;
  VoxelStream stream;  ///< At the first voxel.
  std::vector<std::filesystem::path> files;
};

absl::StatusOr<OpenedText> OpenText(const std::filesystem::path& path, Format format) {
  using Packing = VoxelStream::Packing;
  constexpr std::size_t kBlock = std::size_t{1} << 16;
  constexpr std::size_t kGreatestHeader = std::size_t{1} << 20;
  ASSIGN_OR_RETURN(VoxelStream stream, VoxelStream::Open(path, Packing::kPlain));
  std::string text;
  std::size_t header_bytes = std::string::npos;
  for (bool at_end = false; header_bytes == std::string::npos;) {
    if (at_end || text.size() >= kGreatestHeader) {
      header_bytes = text.size();  // The voxels are elsewhere, or the parser says what is wrong.
      break;
    }
    const std::size_t before = text.size();
    text.resize(before + kBlock);
    ASSIGN_OR_RETURN(const std::size_t count,
                     stream.Read(std::as_writable_bytes(std::span(text).subspan(before))));
    text.resize(before + count);
    at_end = count < kBlock;
    header_bytes = format == Format::kNrrd ? NrrdHeaderBytes(text) : MetaHeaderBytes(text);
  }
  text.resize(header_bytes);
  ASSIGN_OR_RETURN(TextHeader header, format == Format::kNrrd ? ParseNrrdHeader(text, path)
                                                              : ParseMetaHeader(text, path));
  const std::filesystem::path data =
      header.data_file.empty() ? path : path.parent_path() / header.data_file;
  std::int64_t first = header.data_file.empty() ? static_cast<std::int64_t>(header_bytes) : 0;
  if (header.offset >= 0) {
    first += header.offset;
  } else {
    ASSIGN_OR_RETURN(const VoxelStream whole, VoxelStream::Open(data, Packing::kPlain));
    first = std::max(first, whole.greatest_bytes() - header.stored.voxel_data_bytes());
  }
  ASSIGN_OR_RETURN(
      stream,
      VoxelStream::Open(data, header.deflated ? Packing::kDeflated : Packing::kPlain, first));
  RETURN_IF_ERROR(CheckHolds(header.stored, 0, stream, path));
  std::vector<std::filesystem::path> files{path};
  if (data != path) files.push_back(data);
  return OpenedText{std::move(header), std::move(stream), std::move(files)};
}

absl::StatusOr<Volume> ReadAny(const std::filesystem::path& path, GeometrySource source) {
  ASSIGN_OR_RETURN(const Format format, FormatOf(path));
  Volume volume;
  if (format == Format::kNifti) {
    ASSIGN_OR_RETURN(OpenedNifti nifti, OpenNifti(path));
    ASSIGN_OR_RETURN(GeometryAudit audit, AuditNiftiGeometry(nifti.header, source, path));
    volume.geometry = audit.geometry;
    RETURN_IF_ERROR(CheckVoxelMemory(volume.geometry, path));
    RETURN_IF_ERROR(ReadVoxels(nifti.header, nifti.stream, path, volume.voxels));
    return volume;
  }
  ASSIGN_OR_RETURN(OpenedText text, OpenText(path, format));
  volume.geometry = text.header.geometry;
  RETURN_IF_ERROR(CheckVoxelMemory(volume.geometry, path));
  RETURN_IF_ERROR(ReadVoxels(text.header.stored, text.stream, path, volume.voxels));
  return volume;
}

absl::StatusOr<GeometryAudit> AuditAny(const std::filesystem::path& path, GeometrySource source) {
  ASSIGN_OR_RETURN(const Format format, FormatOf(path));
  if (format == Format::kNifti) {
    ASSIGN_OR_RETURN(const OpenedNifti nifti, OpenNifti(path));
    return AuditNiftiGeometry(nifti.header, source, path);
  }
  ASSIGN_OR_RETURN(OpenedText text, OpenText(path, format));
  GeometryAudit audit;
  audit.geometry = text.header.geometry;
  audit.form = "file";
  audit.notes = std::move(text.header.notes);
  return audit;
}

/// "x.nii.gz" -> ".nii.gz"; empty when it is no name for a NIfTI file.
std::string NiftiEnding(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  for (const std::string ending : {".nii.gz", ".nii"}) {
    if (name.size() > ending.size() && name.ends_with(ending)) return ending;
  }
  return "";
}

absl::Status WriteNifti(const std::filesystem::path& path, const Geometry& geometry,
                        const NiftiForms& forms, std::int16_t datatype,
                        std::span<const std::byte> voxels) {
  const std::string ending = NiftiEnding(path);
  if (ending.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("cannot write {}: the name must end in .nii or .nii.gz", path.string()));
  }
  constexpr std::int64_t kGreatestSize = 32767;
  if (*std::max_element(geometry.size.begin(), geometry.size.end()) > kGreatestSize) {
    return absl::InvalidArgumentError(fmt::format(
        "cannot write {}: NIfTI-1 holds at most {} voxels along an axis, not {} x {} x "
        "{}",
        path.string(), kGreatestSize, geometry.size[0], geometry.size[1], geometry.size[2]));
  }
  const std::filesystem::path folder =
      path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    return absl::NotFoundError(
        fmt::format("cannot write {}: there is no folder {}", path.string(), folder.string()));
  }
  const std::string header = NiftiHeaderBytes(geometry.size, forms, datatype);
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  std::int64_t written = 0;
  const auto write = [&](std::span<const std::byte> bytes) {
    const std::int64_t offset = std::exchange(written, written + std::ssize(bytes));
    return file.WriteAt(offset, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  };
  const std::span<const std::byte> parts[] = {std::as_bytes(std::span(header)), voxels};
  if (ending == ".nii.gz") {
    RETURN_IF_ERROR(Deflate(parts, write));
  } else {
    for (const std::span<const std::byte> part : parts) RETURN_IF_ERROR(write(part));
  }
  return file.Commit();
}

/// The forms of `input` for an image on its grid.
absl::StatusOr<NiftiForms> FormsLike(const std::filesystem::path& input, const Geometry& geometry) {
  const auto not_on_grid = [&](const Geometry& grid) {
    return absl::InvalidArgumentError(fmt::format(
        "an image of {} x {} x {} voxels is not on the grid of {}, which has {} x {} x {}{}",
        geometry.size[0], geometry.size[1], geometry.size[2], input.string(), grid.size[0],
        grid.size[1], grid.size[2],
        grid.size == geometry.size
            ? fmt::format(" up to {:.4g} mm away", GreatestCornerDistance(grid, geometry))
            : ""));
  };
  const bool dicom = MayBeDicom(input);
  const absl::StatusOr<Format> format = FormatOf(input);
  if (!dicom) RETURN_IF_ERROR(format.status());
  if (dicom || *format != Format::kNifti) {
    ASSIGN_OR_RETURN(const Geometry grid, ReadGeometry(input));
    if (!SameGrid(grid, geometry, GridToleranceOf(grid))) return not_on_grid(grid);
    return FormsOf(geometry);
  }
  ASSIGN_OR_RETURN(const OpenedNifti nifti, OpenNifti(input));
  // By either form: which one counts was decided when it was read.
  absl::Status status;
  for (const GeometrySource source : {GeometrySource::kSform, GeometrySource::kQform}) {
    const absl::StatusOr<GeometryAudit> audit = AuditNiftiGeometry(nifti.header, source, input);
    if (audit.ok() && SameGrid(audit->geometry, geometry, GridToleranceOf(audit->geometry))) {
      return nifti.header.forms;
    }
    status = audit.ok() ? not_on_grid(audit->geometry) : audit.status();
  }
  return status;
}

}  // namespace

GeometrySource GeometrySourceOf(std::string_view name) {
  if (name == "qform") return GeometrySource::kQform;
  if (name == "sform") return GeometrySource::kSform;
  return GeometrySource::kAgreed;
}

absl::StatusOr<Volume> ReadVolume(const std::filesystem::path& path, GeometrySource source) {
  if (MayBeDicom(path)) {
    ASSIGN_OR_RETURN(const DicomSeries series, FindDicomSeries(path));
    return ReadDicomSeries(series);
  }
  try {
    return ReadAny(path, source);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(fmt::format("not enough memory to read {}", path.string()));
  }
}

absl::StatusOr<Volume> ReadLabelValues(const std::filesystem::path& path, GeometrySource source) {
  return ReadVolume(path, source);
}

absl::StatusOr<Geometry> ReadGeometry(const std::filesystem::path& path, GeometrySource source) {
  ASSIGN_OR_RETURN(const GeometryAudit audit, AuditGeometry(path, source));
  return audit.geometry;
}

absl::StatusOr<GeometryAudit> AuditGeometry(const std::filesystem::path& path,
                                            GeometrySource source) {
  if (MayBeDicom(path)) {
    ASSIGN_OR_RETURN(const DicomSeries series, FindDicomSeries(path));
    GeometryAudit audit;
    audit.geometry = series.geometry;
    audit.form = "file";
    return audit;
  }
  return AuditAny(path, source);
}

absl::StatusOr<std::vector<std::filesystem::path>> FilesOf(const std::filesystem::path& path) {
  if (MayBeDicom(path)) {
    ASSIGN_OR_RETURN(const DicomSeries series, FindDicomSeries(path));
    std::vector<std::filesystem::path> files;
    for (const DicomSlice& slice : series.slices) files.push_back(slice.file);
    files.erase(std::unique(files.begin(), files.end()), files.end());
    return files;
  }
  ASSIGN_OR_RETURN(const Format format, FormatOf(path));
  if (format == Format::kNifti) {
    ASSIGN_OR_RETURN(OpenedNifti nifti, OpenNifti(path));
    return std::move(nifti.files);
  }
  ASSIGN_OR_RETURN(OpenedText text, OpenText(path, format));
  return std::move(text.files);
}

absl::Status WriteVolume(const std::filesystem::path& path, const Volume& volume) {
  return WriteNifti(path, volume.geometry, FormsOf(volume.geometry), NIFTI_TYPE_FLOAT32,
                    std::as_bytes(std::span(volume.voxels)));
}

absl::Status WriteLabelMap(const std::filesystem::path& path, const LabelMap& labels) {
  return WriteNifti(path, labels.geometry, FormsOf(labels.geometry), NIFTI_TYPE_UINT8,
                    std::as_bytes(std::span(labels.voxels)));
}

absl::Status WriteVolumeLike(const std::filesystem::path& input, const std::filesystem::path& path,
                             const Volume& volume) {
  ASSIGN_OR_RETURN(const NiftiForms forms, FormsLike(input, volume.geometry));
  return WriteNifti(path, volume.geometry, forms, NIFTI_TYPE_FLOAT32,
                    std::as_bytes(std::span(volume.voxels)));
}

absl::Status WriteLabelMapLike(const std::filesystem::path& input,
                               const std::filesystem::path& path, const LabelMap& labels) {
  ASSIGN_OR_RETURN(const NiftiForms forms, FormsLike(input, labels.geometry));
  return WriteNifti(path, labels.geometry, forms, NIFTI_TYPE_UINT8,
                    std::as_bytes(std::span(labels.voxels)));
}

}  // namespace isoscan
