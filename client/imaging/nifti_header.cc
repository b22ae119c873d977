#include "client/imaging/nifti_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <string_view>
#include <utility>

#include "common/status/status_macros.h"
#include <nifti1_io.h>

namespace isoscan {
namespace {

static_assert(sizeof(nifti_1_header) == kNiftiHeaderBytes);

using Matrix = std::array<std::array<double, 3>, 3>;

/// Voxel index to RAS millimetres: columns of the three axes, then the first voxel's place.
using Affine = std::array<std::array<double, 4>, 3>;

/// What a sform's axes may be off a right angle: a scan is rigid, a sheared grid is the result of a
/// registration. Source: docs/decisions/0005-grid-tolerance.md.
constexpr double kGreatestShearDegrees = 0.1;

/// Differences that no reader needs to hear of.
constexpr double kSilentMm = 1e-3;
constexpr double kSilentDegrees = 1e-3;

absl::Status NoHeader(const std::filesystem::path& path, const std::string& what) {
  return absl::DataLossError(
      fmt::format("{} has no readable NIfTI header ({}): it is damaged or not what its name says; "
                  "copy or convert it again",
                  path.string(), what));
}

absl::Status NotAVolume(const std::filesystem::path& path, const std::string& what) {
  return absl::InvalidArgumentError(fmt::format("{} {}", path.string(), what));
}

absl::Status ParseSize(const nifti_1_header& raw, const std::filesystem::path& path,
                       NiftiHeader& header) {
  const int dimensions = raw.dim[0];
  if (dimensions < 1 || dimensions > 7) {
    return NoHeader(path, fmt::format("{} dimensions", dimensions));
  }
  std::string size;
  for (int axis = 1; axis <= dimensions; ++axis) {
    size += fmt::format("{}{}", axis == 1 ? "" : "x", raw.dim[axis]);
  }
  for (int axis = 1; axis <= dimensions; ++axis) {
    if (raw.dim[axis] < 1) return NoHeader(path, fmt::format("size {}", size));
  }
  if (dimensions < 3) {
    return NotAVolume(path, fmt::format("has {} dimensions, a volume has 3", dimensions));
  }
  if (dimensions > 3 && raw.dim[4] > 1) {
    return NotAVolume(
        path, fmt::format("holds {} volumes (4D), Isoscan reads one 3D image per file: split it, "
                          "for example with `fslsplit`, and name each channel's file in the "
                          "nnU-Net layout",
                          raw.dim[4]));
  }
  for (int axis = 5; axis <= dimensions; ++axis) {
    if (raw.dim[axis] > 1) {
      return NotAVolume(path, fmt::format("has size {}: {} values per voxel, a scan or a label map "
                                          "has 1: split its channels into one file each",
                                          size, raw.dim[axis]));
    }
  }
  std::copy(raw.dim + 1, raw.dim + 4, header.size.begin());
  return absl::OkStatus();
}

absl::Status ParseType(const nifti_1_header& raw, const std::filesystem::path& path,
                       NiftiHeader& header) {
  int bytes = 0;
  int swap_bytes = 0;
  nifti_datatype_sizes(raw.datatype, &bytes, &swap_bytes);
  const std::string name = nifti_datatype_string(raw.datatype);
  switch (raw.datatype) {
    case NIFTI_TYPE_UINT8:
    case NIFTI_TYPE_INT8:
    case NIFTI_TYPE_UINT16:
    case NIFTI_TYPE_INT16:
    case NIFTI_TYPE_UINT32:
    case NIFTI_TYPE_INT32:
    case NIFTI_TYPE_UINT64:
    case NIFTI_TYPE_INT64:
    case NIFTI_TYPE_FLOAT32:
    case NIFTI_TYPE_FLOAT64:
      break;
    case NIFTI_TYPE_RGB24:
    case NIFTI_TYPE_RGBA32:
    case NIFTI_TYPE_COMPLEX64:
    case NIFTI_TYPE_COMPLEX128:
    case NIFTI_TYPE_COMPLEX256:
      return NotAVolume(
          path, fmt::format("stores {}: {} values per voxel, a scan or a label map has 1: split "
                            "its channels into one file each",
                            name,
                            raw.datatype == NIFTI_TYPE_RGB24    ? 3
                            : raw.datatype == NIFTI_TYPE_RGBA32 ? 4
                                                                : 2));
    case DT_BINARY:
    case NIFTI_TYPE_FLOAT128:
      return NotAVolume(path, fmt::format("stores voxels of type {}, which Isoscan does not read: "
                                          "save it as int16 or float32",
                                          name));
    default:
      return NoHeader(path, fmt::format("type {} of voxels is not one of NIfTI's", raw.datatype));
  }
  if (raw.bitpix != 8 * bytes) {
    return NoHeader(path,
                    fmt::format("{} bits per voxel contradict its type {}", raw.bitpix, name));
  }
  header.datatype = raw.datatype;
  header.voxel_bytes = static_cast<std::size_t>(bytes);
  return absl::OkStatus();
}

absl::Status ParseOffset(const nifti_1_header& raw, const std::filesystem::path& path,
                         NiftiHeader& header) {
  // What lies between is extensions, a few kilobytes.
  constexpr float kGreatest = 1 << 30;
  const float least = header.separate ? 0 : static_cast<float>(kNiftiVoxelOffset);
  if (!(raw.vox_offset >= least && raw.vox_offset <= kGreatest) ||
      raw.vox_offset != std::floor(raw.vox_offset)) {
    return NoHeader(path,
                    fmt::format("voxels at byte {:g}, not {} or more", raw.vox_offset, least));
  }
  header.voxel_offset = static_cast<std::int64_t>(raw.vox_offset);
  return absl::OkStatus();
}

NiftiForms FormsOfHeader(const nifti_1_header& raw) {
  NiftiForms forms;
  forms.qform_code = raw.qform_code;
  forms.sform_code = raw.sform_code;
  std::copy(raw.pixdim, raw.pixdim + 4, forms.pixdim.begin());
  forms.quaternion = {raw.quatern_b, raw.quatern_c, raw.quatern_d};
  forms.offset = {raw.qoffset_x, raw.qoffset_y, raw.qoffset_z};
  std::copy(raw.srow_x, raw.srow_x + 4, forms.sform[0].begin());
  std::copy(raw.srow_y, raw.srow_y + 4, forms.sform[1].begin());
  std::copy(raw.srow_z, raw.srow_z + 4, forms.sform[2].begin());
  forms.units = static_cast<std::uint8_t>(raw.xyzt_units);
  return forms;
}

/// Millimetres per unit of the header; files that name no unit mean millimetres.
double UnitOf(const NiftiForms& forms) {
  switch (XYZT_TO_SPACE(forms.units)) {
    case NIFTI_UNITS_METER:
      return 1e3;
    case NIFTI_UNITS_MICRON:
      return 1e-3;
    default:
      return 1;
  }
}

Matrix AxesOf(const Affine& affine) {
  Matrix axes{};
  for (std::size_t row = 0; row < 3; ++row) {
    std::copy_n(affine[row].begin(), 3, axes[row].begin());
  }
  return axes;
}

double Determinant(const Matrix& m) {
  return m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) -
         m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0]) +
         m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0]);
}

std::array<double, 3> Lengths(const Matrix& axes) {
  std::array<double, 3> lengths{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    lengths[axis] = std::hypot(axes[0][axis], axes[1][axis], axes[2][axis]);
  }
  return lengths;
}

/// The rotation nearest to a matrix whose columns are nearly orthonormal, a reflection where it is
/// one: the mean with its transposed inverse, again and again (Newton's iteration for the polar
/// decomposition). Exact for a matrix that only swaps and flips axes.
Matrix NearestRotation(Matrix m) {
  for (int step = 0; step < 8; ++step) {
    const double determinant = Determinant(m);
    Matrix next{};
    for (std::size_t row = 0; row < 3; ++row) {
      for (std::size_t column = 0; column < 3; ++column) {
        const std::size_t r1 = (row + 1) % 3;
        const std::size_t r2 = (row + 2) % 3;
        const std::size_t c1 = (column + 1) % 3;
        const std::size_t c2 = (column + 2) % 3;
        const double cofactor = m[r1][c1] * m[r2][c2] - m[r1][c2] * m[r2][c1];
        next[row][column] = 0.5 * (m[row][column] + cofactor / determinant);
      }
    }
    m = next;
  }
  return m;
}

/// Unit quaternion (a, b, c, d) with a >= 0, as NIfTI derives a from the other three: below 1e-7,
/// a^2 is rounding, and half a turn is meant.
std::array<double, 4> QuaternionOf(const std::array<float, 3>& stored) {
  const double b = stored[0];
  const double c = stored[1];
  const double d = stored[2];
  const double squared = b * b + c * c + d * d;
  if (1 - squared >= 1e-7) return {std::sqrt(1 - squared), b, c, d};
  const double length = std::sqrt(squared);
  return {0, b / length, c / length, d / length};
}

Matrix RotationOf(const std::array<double, 4>& quaternion) {
  const auto [a, b, c, d] = quaternion;
  return {{{a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)},
           {2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)},
           {2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c}}};
}

/// What one form says, or why it says nothing.
absl::StatusOr<Affine> QformOf(const NiftiForms& forms) {
  std::array<double, 3> edges{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    edges[axis] = UnitOf(forms) * forms.pixdim[axis + 1];
    if (!(edges[axis] > 0) || !std::isfinite(edges[axis])) {
      return absl::InvalidArgumentError(fmt::format("its pixdim says voxels of {:g} x {:g} x {:g}",
                                                    forms.pixdim[1], forms.pixdim[2],
                                                    forms.pixdim[3]));
    }
  }
  double squared = 0;
  for (const float part : forms.quaternion) squared += static_cast<double>(part) * part;
  if (!(squared <= 1.01)) {
    return absl::InvalidArgumentError(
        fmt::format("its quaternion ({:g}, {:g}, {:g}) is longer than 1 and no rotation",
                    forms.quaternion[0], forms.quaternion[1], forms.quaternion[2]));
  }
  if (forms.pixdim[0] < 0) edges[2] = -edges[2];
  const Matrix rotation = RotationOf(QuaternionOf(forms.quaternion));
  Affine affine{};
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t axis = 0; axis < 3; ++axis) {
      affine[row][axis] = rotation[row][axis] * edges[axis];
    }
    affine[row][3] = UnitOf(forms) * forms.offset[row];
    if (!std::isfinite(affine[row][3])) {
      return absl::InvalidArgumentError("its qoffset is not finite");
    }
  }
  return affine;
}

absl::StatusOr<Affine> SformOf(const NiftiForms& forms) {
  Affine affine{};
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t column = 0; column < 4; ++column) {
      affine[row][column] = UnitOf(forms) * forms.sform[row][column];
      if (!std::isfinite(affine[row][column])) {
        return absl::InvalidArgumentError("its sform is not finite");
      }
    }
  }
  const std::array<double, 3> lengths = Lengths(AxesOf(affine));
  if (*std::min_element(lengths.begin(), lengths.end()) <= 0 ||
      !(std::abs(Determinant(AxesOf(affine))) > 0)) {
    return absl::InvalidArgumentError("its sform is singular: an axis has no length of its own");
  }
  return affine;
}

/// Neither form is set: what ITK does.
absl::StatusOr<Affine> NoFormOf(const NiftiForms& forms) {
  NiftiForms lps = forms;
  lps.pixdim[0] = 1;
  lps.quaternion = {0, 0, 1};  // Half a turn around z: LPS axes, in RAS.
  lps.offset = {};
  return QformOf(lps);
}

double GreatestCornerDistance(const Affine& left, const Affine& right,
                              const std::array<std::int64_t, 3>& size) {
  double greatest = 0;
  for (unsigned corner = 0; corner < 8; ++corner) {
    std::array<double, 3> difference{};
    for (std::size_t row = 0; row < 3; ++row) {
      difference[row] = left[row][3] - right[row][3];
      for (std::size_t axis = 0; axis < 3; ++axis) {
        const double index = (corner >> axis & 1U) != 0 ? static_cast<double>(size[axis] - 1) : 0.0;
        difference[row] += index * (left[row][axis] - right[row][axis]);
      }
    }
    greatest = std::max(greatest, std::hypot(difference[0], difference[1], difference[2]));
  }
  return greatest;
}

/// How far single precision alone may move a corner by the qform: a = sqrt(1 - b^2 - c^2 - d^2)
/// loses half of its digits near half a turn, which is how every LPS image is stored.
double QformRoundingMm(const NiftiForms& forms, const Affine& affine,
                       const std::array<std::int64_t, 3>& size) {
  constexpr double kSquaredRounding = 2 * std::numeric_limits<float>::epsilon();
  const double a = QuaternionOf(forms.quaternion)[0];
  const double turn = 2 * std::max(std::sqrt(a * a + kSquaredRounding) - a,
                                   a - std::sqrt(std::max(0.0, a * a - kSquaredRounding)));
  double diagonal = 0;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const double edge = Lengths(AxesOf(affine))[axis] * static_cast<double>(size[axis] - 1);
    diagonal += edge * edge;
  }
  return turn * std::sqrt(diagonal);
}

/// Of three axes, the greatest deviation of two from a right angle.
double ShearDegrees(const Matrix& axes) {
  const std::array<double, 3> lengths = Lengths(axes);
  double greatest = 0;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const std::size_t other = (axis + 1) % 3;
    double cosine = 0;
    for (const auto& row : axes) cosine += row[axis] * row[other];
    cosine /= lengths[axis] * lengths[other];
    greatest = std::max(greatest, std::asin(std::min(1.0, std::abs(cosine))));
  }
  return greatest * 180 / std::numbers::pi;
}

/// The nearest rigid grid, in LPS. Edges as long as `nominal_mm` says where the affine means the
/// same to within rounding: 1 rather than 0.99999994.
Geometry RigidGeometry(const Affine& affine, const std::array<std::int64_t, 3>& size,
                       const std::array<double, 3>& nominal_mm) {
  Geometry geometry;
  geometry.size = size;
  Matrix axes = AxesOf(affine);
  const std::array<double, 3> lengths = Lengths(axes);
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const double off = std::abs(lengths[axis] - nominal_mm[axis]);
    const bool same = off * static_cast<double>(size[axis]) <= kSilentMm;
    geometry.spacing_mm[axis] = same ? nominal_mm[axis] : lengths[axis];
    for (auto& row : axes) row[axis] /= lengths[axis];
  }
  const Matrix rotation = NearestRotation(axes);
  constexpr std::array<double, 3> kLpsOfRas{-1, -1, 1};
  for (std::size_t row = 0; row < 3; ++row) {
    geometry.origin_mm[row] = kLpsOfRas[row] * affine[row][3];
    for (std::size_t axis = 0; axis < 3; ++axis) {
      geometry.direction[row][axis] = kLpsOfRas[row] * rotation[row][axis];
    }
  }
  return geometry;
}

std::string AffineText(const absl::StatusOr<Affine>& affine) {
  if (!affine.ok()) return std::string(affine.status().message());
  std::string text;
  for (const auto& row : *affine) {
    text += fmt::format("{}[{:.6g} {:.6g} {:.6g} {:.6g}]", text.empty() ? "" : " ", row[0] + 0.0,
                        row[1] + 0.0, row[2] + 0.0, row[3] + 0.0);  // No "-0".
  }
  return text;
}

constexpr std::string_view kWayOut =
    "Find out which one is right, then write it into both with nibabel "
    "(image.set_qform(image.get_sform()) or image.set_sform(image.get_qform())), or name it with "
    "--geometry qform|sform (client.toml: geometry = \"qform\" or \"sform\" in the [[cohort]])";

}  // namespace

absl::StatusOr<NiftiHeader> ParseNiftiHeader(std::span<const std::byte> bytes,
                                             const std::filesystem::path& path) {
  if (bytes.size() < kNiftiHeaderBytes) {
    return NoHeader(path,
                    fmt::format("{} bytes, a header has {}", bytes.size(), kNiftiHeaderBytes));
  }
  nifti_1_header raw;
  std::memcpy(&raw, bytes.data(), sizeof(raw));
  NiftiHeader header;
  if (raw.sizeof_hdr != static_cast<int>(kNiftiHeaderBytes)) {
    swap_nifti_header(&raw, /*is_nifti=*/1);
    header.swapped = true;
  }
  constexpr int kNifti2HeaderBytes = 540;
  int stored_bytes = 0;
  std::memcpy(&stored_bytes, bytes.data(), sizeof(stored_bytes));
  if (stored_bytes == kNifti2HeaderBytes || raw.sizeof_hdr == kNifti2HeaderBytes) {
    return NotAVolume(path,
                      "is a NIfTI-2 file, Isoscan reads NIfTI-1: save it as NIfTI-1, for "
                      "example with nibabel's Nifti1Image or `mri_convert`");
  }
  if (raw.sizeof_hdr != static_cast<int>(kNiftiHeaderBytes)) {
    return NoHeader(path, "it does not begin with the length of one");
  }
  const std::string_view magic(raw.magic, sizeof(raw.magic));
  if (magic != std::string_view("n+1\0", 4) && magic != std::string_view("ni1\0", 4)) {
    return NotAVolume(path,
                      "has no NIfTI magic, an ANALYZE image perhaps: that format does not say "
                      "where left is; convert the original scan with dcm2niix");
  }
  header.separate = raw.magic[1] == 'i';
  RETURN_IF_ERROR(ParseSize(raw, path, header));
  RETURN_IF_ERROR(ParseType(raw, path, header));
  RETURN_IF_ERROR(ParseOffset(raw, path, header));
  header.forms = FormsOfHeader(raw);
  // The standard: a slope of 0 means that there is none.
  if (raw.scl_slope != 0 && std::isfinite(raw.scl_slope) && std::isfinite(raw.scl_inter)) {
    header.slope = raw.scl_slope;
    header.intercept = raw.scl_inter;
  }
  return header;
}

absl::StatusOr<GeometryAudit> AuditNiftiGeometry(const NiftiHeader& header, GeometrySource source,
                                                 const std::filesystem::path& path) {
  const NiftiForms& forms = header.forms;
  const bool has_qform = forms.qform_code > 0;
  const bool has_sform = forms.sform_code > 0;
  const absl::StatusOr<Affine> qform = has_qform ? QformOf(forms) : NoFormOf(forms);
  const absl::StatusOr<Affine> sform = SformOf(forms);
  GeometryAudit audit;
  audit.qform_code = forms.qform_code;
  audit.sform_code = forms.sform_code;
  if (has_sform && sform.ok()) audit.shear_degrees = ShearDegrees(AxesOf(*sform));

  bool use_sform = has_sform && (source != GeometrySource::kQform || !has_qform);
  if (has_qform && has_sform) {
    const bool both = qform.ok() && sform.ok();
    double limit_mm = 0;
    double rounding_mm = kSilentMm;
    if (both) {
      audit.disagreement_mm = GreatestCornerDistance(*qform, *sform, header.size);
      audit.mirrored = Determinant(AxesOf(*qform)) * Determinant(AxesOf(*sform)) < 0;
      limit_mm =
          0.25 * UnitOf(forms) * *std::min_element(forms.pixdim.begin() + 1, forms.pixdim.end());
      rounding_mm = std::max(rounding_mm, QformRoundingMm(forms, *qform, header.size));
    }
    const std::string place = fmt::format(
        "its qform (code {}) and sform (code {}) place the image differently, up to {:.4g} mm "
        "apart{}",
        forms.qform_code, forms.sform_code, audit.disagreement_mm,
        audit.mirrored ? " and mirrored" : "");
    if (source == GeometrySource::kAgreed) {
      if (!both) {
        return absl::InvalidArgumentError(
            fmt::format("{}: one of its forms says nothing: qform {}; sform {}. {}", path.string(),
                        AffineText(qform), AffineText(sform), kWayOut));
      }
      if (audit.mirrored || audit.disagreement_mm > limit_mm) {
        return absl::InvalidArgumentError(fmt::format(
            "{}: {} (at most {:.3g} mm, a quarter of a voxel, is accepted), and programs disagree "
            "on which one counts: qform {}; sform {}. {}",
            path.string(), place, limit_mm, AffineText(qform), AffineText(sform), kWayOut));
      }
      // A qform is rigid by construction, and says the same.
      use_sform = audit.shear_degrees <= kGreatestShearDegrees;
    }
    if (audit.mirrored || audit.disagreement_mm > std::min(rounding_mm, limit_mm)) {
      audit.notes.push_back(fmt::format("{}; the {} counts", place, use_sform ? "sform" : "qform"));
    }
  }

  const absl::StatusOr<Affine>& used = use_sform ? sform : qform;
  audit.form = use_sform ? "sform" : has_qform ? "qform" : "none";
  if (!used.ok()) {
    return absl::InvalidArgumentError(fmt::format("{}: {}: its header is broken, convert it again",
                                                  path.string(),
                                                  std::string(used.status().message())));
  }
  if (use_sform && audit.shear_degrees > kGreatestShearDegrees) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: the axes of its sform are not at right angles, but up to {:.3g} degrees off (at most "
        "{:g} are accepted): sform {}. Resample it onto a rigid grid, for example with ANTs, or "
        "set "
        "the sform from the qform with nibabel",
        path.string(), audit.shear_degrees, kGreatestShearDegrees, AffineText(sform)));
  }
  if (audit.shear_degrees > kSilentDegrees) {
    audit.notes.push_back(fmt::format(
        "the axes of its sform are up to {:.3g} degrees off a right angle; {}", audit.shear_degrees,
        use_sform ? "the nearest rigid grid is used" : "the qform counts"));
  }
  std::array<double, 3> nominal_mm{};
  const std::array<double, 3> lengths = Lengths(AxesOf(*used));
  for (std::size_t axis = 0; axis < 3; ++axis) {
    nominal_mm[axis] = UnitOf(forms) * forms.pixdim[axis + 1];
    const double off = std::abs(lengths[axis] - nominal_mm[axis]);
    audit.pixdim_error_mm =
        std::max(audit.pixdim_error_mm, off * static_cast<double>(header.size[axis] - 1));
  }
  if (!(audit.pixdim_error_mm <= kSilentMm)) {
    audit.notes.push_back(fmt::format(
        "its pixdim says voxels of {:.5g} x {:.5g} x {:.5g} mm, its sform {:.5g} x {:.5g} x {:.5g} "
        "mm; the sform counts",
        nominal_mm[0], nominal_mm[1], nominal_mm[2], lengths[0], lengths[1], lengths[2]));
  }
  if (audit.form == "none") {
    audit.notes.push_back(
        "neither its qform nor its sform is set: nothing tells left from right, and the axes are "
        "taken for left, posterior, superior");
  }
  audit.geometry = RigidGeometry(*used, header.size, nominal_mm);
  return audit;
}

NiftiForms FormsOf(const Geometry& geometry) {
  NiftiForms forms;
  forms.qform_code = NIFTI_XFORM_SCANNER_ANAT;
  forms.sform_code = NIFTI_XFORM_SCANNER_ANAT;
  constexpr std::array<double, 3> kRasOfLps{-1, -1, 1};
  Matrix rotation{};
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t axis = 0; axis < 3; ++axis) {
      rotation[row][axis] = kRasOfLps[row] * geometry.direction[row][axis];
      forms.sform[row][axis] = static_cast<float>(rotation[row][axis] * geometry.spacing_mm[axis]);
    }
    forms.offset[row] = static_cast<float>(kRasOfLps[row] * geometry.origin_mm[row]);
    forms.sform[row][3] = forms.offset[row];
    forms.pixdim[row + 1] = static_cast<float>(geometry.spacing_mm[row]);
  }
  if (Determinant(rotation) < 0) {
    forms.pixdim[0] = -1;
    for (auto& row : rotation) row[2] = -row[2];
  }

  // The greatest of the four is never small: divide by it.
  const Matrix& r = rotation;
  const std::array<double, 4> squares{
      1 + r[0][0] + r[1][1] + r[2][2], 1 + r[0][0] - r[1][1] - r[2][2],
      1 - r[0][0] + r[1][1] - r[2][2], 1 - r[0][0] - r[1][1] + r[2][2]};
  const auto largest =
      static_cast<std::size_t>(std::max_element(squares.begin(), squares.end()) - squares.begin());
  const double twice = std::sqrt(squares[largest]);
  const double xy = r[1][0] - r[0][1];
  const double zx = r[0][2] - r[2][0];
  const double yz = r[2][1] - r[1][2];
  std::array<double, 4> q{};
  switch (largest) {
    case 0:
      q = {twice, yz / twice, zx / twice, xy / twice};
      break;
    case 1:
      q = {yz / twice, twice, (r[0][1] + r[1][0]) / twice, (r[0][2] + r[2][0]) / twice};
      break;
    case 2:
      q = {zx / twice, (r[0][1] + r[1][0]) / twice, twice, (r[1][2] + r[2][1]) / twice};
      break;
    default:
      q = {xy / twice, (r[0][2] + r[2][0]) / twice, (r[1][2] + r[2][1]) / twice, twice};
  }
  const double half = q[0] < 0 ? -0.5 : 0.5;
  for (double& part : q) part *= half;

  double best = std::numeric_limits<double>::infinity();
  constexpr int kNeighbours = 8;
  const auto neighbour = [](double part, int steps) {
    return static_cast<float>(part * (1 + steps * 0.5 * std::numeric_limits<float>::epsilon()));
  };
  for (int i = -kNeighbours; i <= kNeighbours; ++i) {
    for (int j = -kNeighbours; j <= kNeighbours; ++j) {
      for (int k = -kNeighbours; k <= kNeighbours; ++k) {
        const std::array<float, 3> stored{neighbour(q[1], i), neighbour(q[2], j),
                                          neighbour(q[3], k)};
        const Matrix read = RotationOf(QuaternionOf(stored));
        double error = 0;
        for (std::size_t row = 0; row < 3; ++row) {
          for (std::size_t axis = 0; axis < 3; ++axis) {
            error = std::max(error, std::abs(read[row][axis] - rotation[row][axis]));
          }
        }
        if (error < best) {
          best = error;
          forms.quaternion = stored;
        }
      }
    }
  }
  return forms;
}

std::string NiftiHeaderBytes(const std::array<std::int64_t, 3>& size, const NiftiForms& forms,
                             std::int16_t datatype) {
  nifti_1_header raw{};
  raw.sizeof_hdr = static_cast<int>(kNiftiHeaderBytes);
  raw.regular = 'r';
  raw.dim[0] = 3;
  std::fill(raw.dim + 1, raw.dim + 8, std::int16_t{1});
  for (std::size_t axis = 0; axis < 3; ++axis) {
    raw.dim[axis + 1] = static_cast<std::int16_t>(size[axis]);
  }
  int bytes = 0;
  int swap_bytes = 0;
  nifti_datatype_sizes(datatype, &bytes, &swap_bytes);
  raw.datatype = datatype;
  raw.bitpix = static_cast<std::int16_t>(8 * bytes);
  raw.vox_offset = static_cast<float>(kNiftiVoxelOffset);
  raw.scl_slope = 1;
  raw.xyzt_units = static_cast<char>(forms.units);
  raw.qform_code = forms.qform_code;
  raw.sform_code = forms.sform_code;
  std::fill(raw.pixdim + 4, raw.pixdim + 8, 1.0F);
  std::copy(forms.pixdim.begin(), forms.pixdim.end(), raw.pixdim);
  raw.quatern_b = forms.quaternion[0];
  raw.quatern_c = forms.quaternion[1];
  raw.quatern_d = forms.quaternion[2];
  raw.qoffset_x = forms.offset[0];
  raw.qoffset_y = forms.offset[1];
  raw.qoffset_z = forms.offset[2];
  std::copy(forms.sform[0].begin(), forms.sform[0].end(), raw.srow_x);
  std::copy(forms.sform[1].begin(), forms.sform[1].end(), raw.srow_y);
  std::copy(forms.sform[2].begin(), forms.sform[2].end(), raw.srow_z);
  std::memcpy(raw.magic, "n+1", 4);
  std::string header(kNiftiVoxelOffset, '\0');
  std::memcpy(header.data(), &raw, sizeof(raw));
  return header;
}

}  // namespace isoscan
