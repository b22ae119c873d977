#include "client/imaging/image_file.h"

#include <fmt/format.h>
#include <itkImageIOBase.h>
#include <itkMetaImageIO.h>
#include <itkNrrdImageIO.h>

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
#include "client/imaging/nifti_stream.h"
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

itk::ImageIOBase::Pointer MakeReader(Format format) {
  if (format == Format::kNrrd) return itk::NrrdImageIO::New().GetPointer();
  return itk::MetaImageIO::New().GetPointer();
}

/// ITK puts its own file, line and object first or on further lines; a user needs one sentence.
std::string FirstLine(const itk::ExceptionObject& error) {
  std::string text = error.GetDescription();
  if (const std::size_t prefix = text.find("): ");
      (text.starts_with("ITK ERROR") || text.starts_with("itk::ERROR")) &&
      prefix != std::string::npos) {
    text.erase(0, prefix + 3);
  }
  text.erase(0, text.find_first_not_of(" \n"));
  return text.substr(0, text.find('\n'));
}

absl::Status ErrorFrom(const itk::ExceptionObject& error, const std::filesystem::path& path) {
  return absl::DataLossError(
      fmt::format("{} cannot be decoded ({}): it is damaged or not what its name says; copy or "
                  "convert it again",
                  path.string(), FirstLine(error)));
}

/// NRRD and MetaImage may hold any matrix; a scan's axes have unit length and right angles, within
/// the 0.1 degrees that a NIfTI's may be sheared by.
absl::Status CheckRightAngles(const Geometry& geometry, const std::filesystem::path& path) {
  constexpr double kTolerance = 1.75e-3;
  for (std::size_t a = 0; a < 3; ++a) {
    for (std::size_t b = a; b < 3; ++b) {
      double dot = 0;
      for (std::size_t row = 0; row < 3; ++row) {
        dot += geometry.direction[row][a] * geometry.direction[row][b];
      }
      if (std::abs(dot - (a == b ? 1 : 0)) <= kTolerance) continue;
      return absl::InvalidArgumentError(fmt::format(
          "{}: its axes {} and {} are no unit vectors at right angles (their product is {:.4g}): a "
          "sheared grid is no scan; resample it onto a rigid grid, for example with ANTs",
          path.string(), "xyz"[a], "xyz"[b], dot));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Geometry> GeometryOf(const itk::ImageIOBase& image,
                                    const std::filesystem::path& path) {
  const unsigned dimensions = image.GetNumberOfDimensions();
  const std::size_t components = image.GetNumberOfComponents();
  if (components != 1) {
    return absl::InvalidArgumentError(
        fmt::format("{} has {} values per voxel, a scan or a label map has 1: split its channels "
                    "into one file each",
                    path.string(), components));
  }
  if (dimensions == 4 && image.GetDimensions(3) > 1) {
    return absl::InvalidArgumentError(
        fmt::format("{} holds {} volumes (4D), Isoscan reads one 3D image per file: split it, for "
                    "example with `fslsplit`, and name each channel's file in the nnU-Net layout",
                    path.string(), image.GetDimensions(3)));
  }
  if (dimensions < 3 || dimensions > 4) {
    return absl::InvalidArgumentError(
        fmt::format("{} has {} dimensions, a volume has 3", path.string(), dimensions));
  }
  Geometry geometry;
  for (unsigned axis = 0; axis < 3; ++axis) {
    geometry.size[axis] = static_cast<std::int64_t>(image.GetDimensions(axis));
    geometry.spacing_mm[axis] = std::abs(image.GetSpacing(axis));
    geometry.origin_mm[axis] = image.GetOrigin(axis);
    if (geometry.size[axis] < 1 || !(geometry.spacing_mm[axis] > 0) ||
        !std::isfinite(geometry.spacing_mm[axis]) || !std::isfinite(geometry.origin_mm[axis])) {
      return absl::InvalidArgumentError(fmt::format(
          "{}: axis {} has {} voxels of {} mm from {} mm: its header is broken, convert it again",
          path.string(), axis, geometry.size[axis], geometry.spacing_mm[axis],
          geometry.origin_mm[axis]));
    }
    const std::vector<double> cosines = image.GetDirection(axis);
    for (std::size_t row = 0; row < 3; ++row) {
      geometry.direction[row][axis] = image.GetSpacing(axis) < 0 ? -cosines[row] : cosines[row];
    }
  }
  RETURN_IF_ERROR(CheckRightAngles(geometry, path));
  return geometry;
}

absl::Status CheckVoxelMemory(const Geometry& geometry, double voxel_bytes,
                              const std::filesystem::path& path) {
  // In floating point: a broken header may ask for more than 64 bits can count.
  double bytes = voxel_bytes;
  for (const std::int64_t size : geometry.size) bytes *= static_cast<double>(size);
  // Asking the system takes as long as reading a crop.
  constexpr double kSmallBytes = 16e6;
  if (bytes < kSmallBytes) return absl::OkStatus();
  return CheckMemory(fmt::format("reading {}", path.string()),
                     static_cast<std::int64_t>(std::min(bytes, 1e18)));
}

// NIfTI, through our own reader: ITK places a sheared or contradictory file by rules of its own,
// answers with zeros where a truncated file ends, and niftilib replaces NaN by 0.

struct OpenedNifti {
  NiftiHeader header;
  NiftiStream stream;  ///< At the first voxel.
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

absl::Status Skip(NiftiStream& stream, std::int64_t bytes, const std::filesystem::path& path) {
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
  ASSIGN_OR_RETURN(NiftiStream stream,
                   NiftiStream::Open(image_of_pair ? Companion(path, ".hdr") : path));
  std::array<std::byte, kNiftiHeaderBytes> bytes{};
  ASSIGN_OR_RETURN(const std::size_t count, stream.Read(bytes));
  ASSIGN_OR_RETURN(const NiftiHeader header, ParseNiftiHeader(std::span(bytes).first(count), path));
  if (header.separate) {
    ASSIGN_OR_RETURN(stream, NiftiStream::Open(Companion(path, ".img")));
  }
  if (header.voxel_offset + header.voxel_data_bytes() > stream.greatest_bytes()) {
    return absl::DataLossError(fmt::format(
        "{} ends too early: its header promises {} x {} x {} voxels, {} bytes from byte {} on, and "
        "a file of this size holds at most {}; it is damaged, copy or convert it again",
        path.string(), header.size[0], header.size[1], header.size[2], header.voxel_data_bytes(),
        header.voxel_offset, stream.greatest_bytes()));
  }
  RETURN_IF_ERROR(Skip(
      stream,
      header.voxel_offset - (header.separate ? 0 : static_cast<std::int64_t>(kNiftiHeaderBytes)),
      path));
  return OpenedNifti{header, std::move(stream)};
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
absl::Status ReadNiftiVoxels(OpenedNifti& nifti, const std::filesystem::path& path,
                             std::vector<float>& voxels) {
  const NiftiHeader& header = nifti.header;
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
    ASSIGN_OR_RETURN(const std::size_t count, nifti.stream.Read(block));
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
                   nifti.stream.Read(std::span(scratch).first(kGreatestSurplus + 1)));
  if (surplus <= kGreatestSurplus) return absl::OkStatus();
  return absl::DataLossError(fmt::format(
      "{} goes on after the {} x {} x {} voxels of its header: the header does not belong to these "
      "data; convert it again",
      path.string(), header.size[0], header.size[1], header.size[2]));
}

absl::StatusOr<Volume> ReadNifti(const std::filesystem::path& path, GeometrySource source) {
  ASSIGN_OR_RETURN(OpenedNifti nifti, OpenNifti(path));
  ASSIGN_OR_RETURN(GeometryAudit audit, AuditNiftiGeometry(nifti.header, source, path));
  RETURN_IF_ERROR(CheckVoxelMemory(audit.geometry, sizeof(float), path));
  Volume volume{.geometry = audit.geometry, .voxels = {}};
  RETURN_IF_ERROR(ReadNiftiVoxels(nifti, path, volume.voxels));
  return volume;
}

// NRRD and MetaImage, through ITK.

struct OpenedImage {
  itk::ImageIOBase::Pointer reader;
  Geometry geometry;
};

/// May throw ITK's exceptions.
absl::StatusOr<OpenedImage> OpenImage(const std::filesystem::path& path, Format format) {
  ASSIGN_OR_RETURN(const NiftiStream file, NiftiStream::Open(path));  // For its errors' sake.
  OpenedImage image;
  itk::Object::GlobalWarningDisplayOff();  // They name files on stderr, and help no user.
  image.reader = MakeReader(format);
  image.reader->SetFileName(path.string());
  image.reader->ReadImageInformation();
  ASSIGN_OR_RETURN(image.geometry, GeometryOf(*image.reader, path));
  return image;
}

template <typename Stored>
void ConvertTo(std::vector<float>& voxels, const std::vector<std::byte>& buffer) {
  const auto* stored = reinterpret_cast<const Stored*>(buffer.data());
  for (std::size_t i = 0; i < voxels.size(); ++i) voxels[i] = static_cast<float>(stored[i]);
}

absl::Status Convert(itk::IOComponentEnum type, const std::vector<std::byte>& buffer,
                     std::vector<float>& voxels, const std::filesystem::path& path) {
  switch (type) {
    case itk::IOComponentEnum::UCHAR:
      return ConvertTo<unsigned char>(voxels, buffer), absl::OkStatus();
    case itk::IOComponentEnum::CHAR:
      return ConvertTo<signed char>(voxels, buffer), absl::OkStatus();
    case itk::IOComponentEnum::USHORT:
      return ConvertTo<unsigned short>(voxels, buffer), absl::OkStatus();
    case itk::IOComponentEnum::SHORT:
      return ConvertTo<short>(voxels, buffer), absl::OkStatus();
    case itk::IOComponentEnum::UINT:
      return ConvertTo<unsigned int>(voxels, buffer), absl::OkStatus();
    case itk::IOComponentEnum::INT:
      return ConvertTo<int>(voxels, buffer), absl::OkStatus();
    case itk::IOComponentEnum::ULONG:
      return ConvertTo<unsigned long>(voxels, buffer), absl::OkStatus();
    case itk::IOComponentEnum::LONG:
      return ConvertTo<long>(voxels, buffer), absl::OkStatus();
    case itk::IOComponentEnum::ULONGLONG:
      return ConvertTo<unsigned long long>(voxels, buffer), absl::OkStatus();
    case itk::IOComponentEnum::LONGLONG:
      return ConvertTo<long long>(voxels, buffer), absl::OkStatus();
    case itk::IOComponentEnum::FLOAT:
      return ConvertTo<float>(voxels, buffer), absl::OkStatus();
    case itk::IOComponentEnum::DOUBLE:
      return ConvertTo<double>(voxels, buffer), absl::OkStatus();
    default:
      return absl::InvalidArgumentError(
          fmt::format("{} stores voxels of type {}, which Isoscan does not read: save it as int16 "
                      "or float32",
                      path.string(), itk::ImageIOBase::GetComponentTypeAsString(type)));
  }
}

void WholeRegion(itk::ImageIOBase& image) {
  const unsigned dimensions = image.GetNumberOfDimensions();
  itk::ImageIORegion region(dimensions);
  for (unsigned axis = 0; axis < dimensions; ++axis) {
    region.SetIndex(axis, 0);
    region.SetSize(axis, image.GetDimensions(axis));
  }
  image.SetIORegion(region);
}

/// May throw ITK's exceptions.
absl::StatusOr<Volume> ReadThroughItk(const std::filesystem::path& path, Format format) {
  ASSIGN_OR_RETURN(const OpenedImage image, OpenImage(path, format));
  const bool plain_floats = image.reader->GetComponentType() == itk::IOComponentEnum::FLOAT;
  const std::size_t stored_bytes = plain_floats ? 0 : image.reader->GetComponentSize();
  RETURN_IF_ERROR(
      CheckVoxelMemory(image.geometry, static_cast<double>(stored_bytes + sizeof(float)), path));
  const auto voxels = static_cast<std::size_t>(image.geometry.voxels());
  Volume volume{.geometry = image.geometry, .voxels = std::vector<float>(voxels)};
  WholeRegion(*image.reader);
  if (plain_floats) {
    image.reader->Read(volume.voxels.data());
    return volume;
  }
  std::vector<std::byte> buffer(voxels * stored_bytes);
  image.reader->Read(buffer.data());
  RETURN_IF_ERROR(Convert(image.reader->GetComponentType(), buffer, volume.voxels, path));
  return volume;
}

absl::StatusOr<Volume> ReadAny(const std::filesystem::path& path, GeometrySource source) {
  ASSIGN_OR_RETURN(const Format format, FormatOf(path));
  return format == Format::kNifti ? ReadNifti(path, source) : ReadThroughItk(path, format);
}

absl::StatusOr<GeometryAudit> AuditAny(const std::filesystem::path& path, GeometrySource source) {
  ASSIGN_OR_RETURN(const Format format, FormatOf(path));
  if (format == Format::kNifti) {
    ASSIGN_OR_RETURN(const OpenedNifti nifti, OpenNifti(path));
    return AuditNiftiGeometry(nifti.header, source, path);
  }
  ASSIGN_OR_RETURN(const OpenedImage image, OpenImage(path, format));
  GeometryAudit audit;
  audit.geometry = image.geometry;
  audit.form = "file";
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
  ASSIGN_OR_RETURN(const Format format, FormatOf(input));
  const auto not_on_grid = [&](const Geometry& grid) {
    return absl::InvalidArgumentError(fmt::format(
        "an image of {} x {} x {} voxels is not on the grid of {}, which has {} x {} x {}{}",
        geometry.size[0], geometry.size[1], geometry.size[2], input.string(), grid.size[0],
        grid.size[1], grid.size[2],
        grid.size == geometry.size
            ? fmt::format(" up to {:.4g} mm away", GreatestCornerDistance(grid, geometry))
            : ""));
  };
  if (format != Format::kNifti) {
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
  } catch (const itk::ExceptionObject& failure) {
    return ErrorFrom(failure, path);
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
  try {
    return AuditAny(path, source);
  } catch (const itk::ExceptionObject& failure) {
    return ErrorFrom(failure, path);
  }
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
