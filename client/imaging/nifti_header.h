#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/imaging/image_file.h"
#include "client/imaging/stored_voxels.h"
#include "client/imaging/volume.h"

namespace isoscan {

/// The fields of a NIfTI header that say where the image lies, as they are stored: NIfTI's RAS
/// space, in single precision and the file's own unit. Source: docs/references.md#nifti1.
struct NiftiForms {
  std::int16_t qform_code = 0;  ///< 0: not set.
  std::int16_t sform_code = 0;
  std::array<float, 4> pixdim{1, 1, 1, 1};  ///< qfac (-1 or 1), then the voxel's edges.
  std::array<float, 3> quaternion{};        ///< b, c, d.
  std::array<float, 3> offset{};            ///< The first voxel, by the qform.
  std::array<std::array<float, 4>, 3> sform{};
  std::uint8_t units = 2;  ///< xyzt_units; 2 is millimetres.

  bool operator==(const NiftiForms&) const = default;
};

/// What the voxels are and where they begin.
struct NiftiHeader : StoredVoxels {
  NiftiForms forms;
  bool separate = false;          ///< The voxels are in an .img file beside this .hdr.
  std::int64_t voxel_offset = 0;  ///< From the start of the file that holds the voxels.
};

/// A NIfTI-1 header is 348 bytes, in an .nii file followed by 4 that announce extensions.
inline constexpr std::size_t kNiftiHeaderBytes = 348;
inline constexpr std::size_t kNiftiVoxelOffset = 352;

/// Reads what is in the first kNiftiHeaderBytes of a file, in either byte order; `path` is for
/// messages.
/// Errors: DATA_LOSS no NIfTI-1 header, or one that contradicts itself; INVALID_ARGUMENT not one
///         scalar 3D image (a 4D file with one volume is), or a type of voxels that is not read.
absl::StatusOr<NiftiHeader> ParseNiftiHeader(std::span<const std::byte> bytes,
                                             const std::filesystem::path& path);

/// Where the image lies, by both forms, in double precision: see GeometryAudit.
/// Errors: INVALID_ARGUMENT forms that contradict each other under GeometrySource::kAgreed (the
///         message shows both), a sform whose axes are more than 0.1 degrees off a right angle, a
///         form that is no rotation or not finite.
absl::StatusOr<GeometryAudit> AuditNiftiGeometry(const NiftiHeader& header, GeometrySource source,
                                                 const std::filesystem::path& path);

/// Both forms set to `geometry`, code 1 (the scanner's). The sform is exact to single precision,
/// the qform as exact as its quaternion can be: the best of the neighbours in single precision,
/// which is below 1e-3 mm for a head unless the rotation is half a turn but for a few hundredths of
/// a degree (then up to 0.1 mm).
NiftiForms FormsOf(const Geometry& geometry);

/// The kNiftiVoxelOffset bytes before the voxels of an .nii file, without any text.
std::string NiftiHeaderBytes(const std::array<std::int64_t, 3>& size, const NiftiForms& forms,
                             std::int16_t datatype);

}  // namespace isoscan
