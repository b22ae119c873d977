#include "client/imaging/image_file.h"

#include <fmt/format.h>
#include <itkImageIOBase.h>
#include <itkMetaImageIO.h>
#include <itkNiftiImageIO.h>
#include <itkNrrdImageIO.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "client/imaging/dicom_series.h"
#include "common/process/resources.h"
#include "common/status/file_error.h"
#include "common/status/status_macros.h"
#include <nifti1_io.h>

namespace isoscan {
namespace {

enum class Format { kNifti, kNrrd, kMetaImage };

absl::StatusOr<Format> FormatOf(const std::filesystem::path& path) {
  std::string name = path.filename().string();
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  for (const std::string_view ending : {".nii", ".nii.gz", ".hdr", ".img"}) {
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
  switch (format) {
    case Format::kNrrd:
      return itk::NrrdImageIO::New().GetPointer();
    case Format::kMetaImage:
      return itk::MetaImageIO::New().GetPointer();
    case Format::kNifti:
      break;
  }
  return itk::NiftiImageIO::New().GetPointer();
}

/// ITK puts its own file, line and object first or on further lines; a user needs one sentence.
std::string FirstLine(const itk::ExceptionObject& error) {
  std::string text = error.GetDescription();
  if (const std::size_t prefix = text.find("): ");
      text.starts_with("ITK ERROR") && prefix != std::string::npos) {
    text.erase(0, prefix + 3);
  }
  text.erase(0, text.find_first_not_of(" \n"));
  return text.substr(0, text.find('\n'));
}

absl::Status ErrorFrom(const itk::ExceptionObject& error, const std::filesystem::path& path) {
  const std::string line = FirstLine(error);
  if (line.find("rthonormal") != std::string::npos) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: the axes of its sform are not at right angles, or pixdim contradicts it ({}): "
        "resample "
        "it onto a rigid grid, for example with ANTs, or set the sform from the qform with nibabel",
        path.string(), line));
  }
  return absl::DataLossError(
      fmt::format("{} cannot be decoded ({}): it is damaged or not what its name says; copy or "
                  "convert it again",
                  path.string(), line));
}

std::string MatrixText(const mat44& matrix) {
  std::string text;
  for (const auto& row : matrix.m) {
    if (&row == &matrix.m[3]) break;
    text += fmt::format("{}[{:.6g} {:.6g} {:.6g} {:.6g}]", text.empty() ? "" : " ", row[0], row[1],
                        row[2], row[3]);
  }
  return text;
}

using NiftiHeader = std::unique_ptr<nifti_image, decltype(&nifti_image_free)>;

absl::StatusOr<NiftiHeader> ReadNiftiHeader(const std::filesystem::path& path) {
  nifti_set_debug_level(0);  // It would print to stderr.
  NiftiHeader header(nifti_image_read(path.c_str(), /*read_data=*/0), &nifti_image_free);
  if (header != nullptr) return header;
  return absl::DataLossError(
      fmt::format("{} has no readable NIfTI header: it is damaged or not what its name says; copy "
                  "or convert it again",
                  path.string()));
}

/// A NIfTI header may say twice where the image lies, and programs disagree on which one counts:
/// the left-right swap that nobody notices. Source: docs/references.md#nifti1.
absl::Status CheckThatFormsAgree(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const NiftiHeader header, ReadNiftiHeader(path));
  if (header->qform_code <= 0 || header->sform_code <= 0) return absl::OkStatus();

  double distance = 0;
  for (int corner = 0; corner < 8; ++corner) {
    const std::array<double, 3> index{(corner & 1) != 0 ? header->nx - 1.0 : 0.0,
                                      (corner & 2) != 0 ? header->ny - 1.0 : 0.0,
                                      (corner & 4) != 0 ? header->nz - 1.0 : 0.0};
    double squared = 0;
    for (int row = 0; row < 3; ++row) {
      double difference =
          static_cast<double>(header->qto_xyz.m[row][3]) - header->sto_xyz.m[row][3];
      for (std::size_t axis = 0; axis < 3; ++axis) {
        difference += index[axis] * (static_cast<double>(header->qto_xyz.m[row][axis]) -
                                     header->sto_xyz.m[row][axis]);
      }
      squared += difference * difference;
    }
    distance = std::max(distance, std::sqrt(squared));
  }
  const double limit =
      0.25 * std::min({std::abs(header->dx), std::abs(header->dy), std::abs(header->dz)});
  if (distance <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "{}: its qform (code {}) and sform (code {}) place the image differently, up to {:.4g} mm "
      "apart (at most {:.3g} mm is rounding), and programs disagree on which one counts: qform {}; "
      "sform {}. Find out which one is right and write it into both, with nibabel: "
      "image.set_qform(image.get_sform()) or image.set_sform(image.get_qform())",
      path.string(), header->qform_code, header->sform_code, distance, limit,
      MatrixText(header->qto_xyz), MatrixText(header->sto_xyz)));
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
  return geometry;
}

struct OpenedImage {
  Format format = Format::kNifti;
  itk::ImageIOBase::Pointer reader;
  Geometry geometry;
};

absl::StatusOr<OpenedImage> OpenImage(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    return absl::NotFoundError(fmt::format("there is no file {}", path.string()));
  }
  OpenedImage image;
  ASSIGN_OR_RETURN(image.format, FormatOf(path));
  if (std::filesystem::is_directory(path, error)) {
    return FileError("cannot open", path.string(), EISDIR);
  }
  if (!std::ifstream(path).is_open()) return FileError("cannot open", path.string(), errno);
  if (image.format == Format::kNifti) RETURN_IF_ERROR(CheckThatFormsAgree(path));

  try {
    itk::Object::GlobalWarningDisplayOff();  // They name files on stderr, and help no user.
    image.reader = MakeReader(image.format);
    image.reader->SetFileName(path.string());
    image.reader->ReadImageInformation();
  } catch (const itk::ExceptionObject& failure) {
    return ErrorFrom(failure, path);
  }
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

itk::IOComponentEnum ComponentOf(int nifti_datatype) {
  switch (nifti_datatype) {
    case NIFTI_TYPE_UINT8:
      return itk::IOComponentEnum::UCHAR;
    case NIFTI_TYPE_INT8:
      return itk::IOComponentEnum::CHAR;
    case NIFTI_TYPE_UINT16:
      return itk::IOComponentEnum::USHORT;
    case NIFTI_TYPE_INT16:
      return itk::IOComponentEnum::SHORT;
    case NIFTI_TYPE_UINT32:
      return itk::IOComponentEnum::UINT;
    case NIFTI_TYPE_INT32:
      return itk::IOComponentEnum::INT;
    case NIFTI_TYPE_UINT64:
      return itk::IOComponentEnum::ULONGLONG;
    case NIFTI_TYPE_INT64:
      return itk::IOComponentEnum::LONGLONG;
    case NIFTI_TYPE_FLOAT32:
      return itk::IOComponentEnum::FLOAT;
    case NIFTI_TYPE_FLOAT64:
      return itk::IOComponentEnum::DOUBLE;
    default:
      return itk::IOComponentEnum::UNKNOWNCOMPONENTTYPE;
  }
}

/// Reads the voxels of a NIfTI file directly: ITK answers with zeros where a truncated file ends,
/// and niftilib replaces NaN by 0.
absl::Status ReadNiftiVoxels(const std::filesystem::path& path, std::vector<float>& voxels) {
  ASSIGN_OR_RETURN(const NiftiHeader header, ReadNiftiHeader(path));
  std::vector<std::byte> buffer(voxels.size() * static_cast<std::size_t>(header->nbyper));
  znzFile file = znzopen(header->iname, "rb", nifti_is_gzfile(header->iname));
  if (znz_isnull(file)) return FileError("cannot open", header->iname, errno);
  const bool found = znzseek(file, header->iname_offset, SEEK_SET) >= 0;
  const std::size_t bytes = found ? znzread(buffer.data(), 1, buffer.size(), file) : 0;
  znzclose(file);
  if (bytes != buffer.size()) {
    return absl::DataLossError(
        fmt::format("{} ends too early: {} of {} bytes of voxels are readable; it is damaged, copy "
                    "or convert it again",
                    path.string(), std::min(bytes, buffer.size()), buffer.size()));
  }
  if (header->swapsize > 1 && header->byteorder != nifti_short_order()) {
    nifti_swap_Nbytes(voxels.size(), header->swapsize, buffer.data());
  }
  RETURN_IF_ERROR(Convert(ComponentOf(header->datatype), buffer, voxels, path));
  const double slope = header->scl_slope;
  const double intercept = header->scl_inter;
  if (slope == 0 || !std::isfinite(slope) || !std::isfinite(intercept)) return absl::OkStatus();
  if (slope == 1 && intercept == 0) return absl::OkStatus();
  for (float& voxel : voxels) voxel = static_cast<float>(voxel * slope + intercept);
  return absl::OkStatus();
}

absl::Status ReadVoxels(const OpenedImage& image, const std::filesystem::path& path,
                        std::vector<float>& voxels) {
  if (image.format == Format::kNifti) return ReadNiftiVoxels(path, voxels);
  std::vector<std::byte> buffer(voxels.size() * image.reader->GetComponentSize());
  WholeRegion(*image.reader);
  image.reader->Read(buffer.data());
  return Convert(image.reader->GetComponentType(), buffer, voxels, path);
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
                        itk::IOComponentEnum type, std::size_t bytes, const void* voxels) {
  const std::string ending = NiftiEnding(path);
  if (ending.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("cannot write {}: the name must end in .nii or .nii.gz", path.string()));
  }
  const std::filesystem::path folder =
      path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    return absl::NotFoundError(
        fmt::format("cannot write {}: there is no folder {}", path.string(), folder.string()));
  }
  // ITK's NIfTI writer does not tell when the disk is full.
  ASSIGN_OR_RETURN(const std::int64_t free_bytes, FreeDiskBytes(folder));
  if (free_bytes < static_cast<std::int64_t>(bytes)) {
    return absl::ResourceExhaustedError(
        fmt::format("cannot write {}: it takes up to {} bytes and the disk has {} free",
                    path.string(), bytes, free_bytes));
  }

  const std::filesystem::path partial =
      folder / fmt::format(".partial-{:08x}{}", std::random_device()(), ending);
  try {
    itk::Object::GlobalWarningDisplayOff();
    const auto writer = itk::NiftiImageIO::New();
    writer->SetFileName(partial.string());
    writer->SetNumberOfDimensions(3);
    writer->SetNumberOfComponents(1);
    writer->SetPixelType(itk::IOPixelEnum::SCALAR);
    writer->SetComponentType(type);
    for (unsigned axis = 0; axis < 3; ++axis) {
      writer->SetDimensions(axis, static_cast<itk::SizeValueType>(geometry.size[axis]));
      writer->SetSpacing(axis, geometry.spacing_mm[axis]);
      writer->SetOrigin(axis, geometry.origin_mm[axis]);
      writer->SetDirection(
          axis, std::vector<double>{geometry.direction[0][axis], geometry.direction[1][axis],
                                    geometry.direction[2][axis]});
    }
    WholeRegion(*writer);
    writer->Write(voxels);
  } catch (const itk::ExceptionObject& failure) {
    std::filesystem::remove(partial, error);
    return absl::DataLossError(
        fmt::format("cannot write {}: {}", path.string(), FirstLine(failure)));
  }
  std::filesystem::rename(partial, path, error);
  if (!error) return absl::OkStatus();
  std::error_code ignored;
  std::filesystem::remove(partial, ignored);
  return FileError("cannot write", path.string(), error);
}

}  // namespace

absl::StatusOr<Volume> ReadVolume(const std::filesystem::path& path) {
  if (MayBeDicom(path)) {
    ASSIGN_OR_RETURN(const DicomSeries series, FindDicomSeries(path));
    return ReadDicomSeries(series);
  }
  ASSIGN_OR_RETURN(const OpenedImage image, OpenImage(path));
  // ITK decodes into a buffer of its own first. In floating point, since a broken header may ask
  // for more than 64 bits can count.
  const double buffers = image.format == Format::kNifti ? 1 : 2;
  double bytes = buffers * image.reader->GetComponentSize() + sizeof(float);
  for (const std::int64_t size : image.geometry.size) bytes *= static_cast<double>(size);
  RETURN_IF_ERROR(CheckMemory(fmt::format("reading {}", path.string()),
                              static_cast<std::int64_t>(std::min(bytes, 1e18))));
  const auto voxels = static_cast<std::size_t>(image.geometry.voxels());
  Volume volume;
  volume.geometry = image.geometry;
  try {
    volume.voxels.resize(voxels);
    RETURN_IF_ERROR(ReadVoxels(image, path, volume.voxels));
  } catch (const itk::ExceptionObject& failure) {
    return ErrorFrom(failure, path);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        fmt::format("not enough memory to read the {} voxels of {}", voxels, path.string()));
  }
  return volume;
}

absl::StatusOr<Volume> ReadLabelValues(const std::filesystem::path& path) {
  return ReadVolume(path);
}

absl::StatusOr<Geometry> ReadGeometry(const std::filesystem::path& path) {
  if (MayBeDicom(path)) {
    ASSIGN_OR_RETURN(const DicomSeries series, FindDicomSeries(path));
    return series.geometry;
  }
  ASSIGN_OR_RETURN(const OpenedImage image, OpenImage(path));
  return image.geometry;
}

absl::Status WriteVolume(const std::filesystem::path& path, const Volume& volume) {
  return WriteNifti(path, volume.geometry, itk::IOComponentEnum::FLOAT,
                    volume.voxels.size() * sizeof(float), volume.voxels.data());
}

absl::Status WriteLabelMap(const std::filesystem::path& path, const LabelMap& labels) {
  return WriteNifti(path, labels.geometry, itk::IOComponentEnum::UCHAR, labels.voxels.size(),
                    labels.voxels.data());
}

}  // namespace isoscan
