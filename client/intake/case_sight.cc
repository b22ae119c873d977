#include "client/intake/case_sight.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <exception>
#include <new>
#include <numbers>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "client/imaging/image_file.h"
#include "client/imaging/orientation.h"
#include "client/intake/image_measures.h"
#include "client/intake/joined_labels.h"
#include "client/intake/left_right.h"
#include "client/intake/mask_advice.h"
#include "client/intake/reader_fault.h"

namespace isoscan {
namespace {

/// Where the stored axes run to in the patient.
std::string OrientationOf(const Geometry& geometry) {
  constexpr std::string_view kTowards = "LPS";
  constexpr std::string_view kFrom = "RAI";
  std::string code;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    std::size_t nearest = 0;
    for (std::size_t row = 1; row < 3; ++row) {
      if (std::abs(geometry.direction[row][axis]) > std::abs(geometry.direction[nearest][axis])) {
        nearest = row;
      }
    }
    code += geometry.direction[nearest][axis] > 0 ? kTowards[nearest] : kFrom[nearest];
  }
  return code;
}

double ObliqueDegreesOf(const Geometry& geometry) {
  double least = 1;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    double cosine = 0;
    for (std::size_t row = 0; row < 3; ++row) {
      cosine = std::max(cosine, std::abs(geometry.direction[row][axis]));
    }
    least = std::min(least, cosine);
  }
  return std::acos(std::clamp(least, 0.0, 1.0)) * 180 / std::numbers::pi;
}

std::string GridText(const Geometry& grid) {
  return fmt::format("{}x{}x{} voxels of {:.4g}x{:.4g}x{:.4g} mm at ({:.4g}, {:.4g}, {:.4g})",
                     grid.size[0], grid.size[1], grid.size[2], grid.spacing_mm[0],
                     grid.spacing_mm[1], grid.spacing_mm[2], grid.origin_mm[0], grid.origin_mm[1],
                     grid.origin_mm[2]);
}

/// The most that reading a case takes: one volume at a time; with labels these, joined, and a
/// thinned copy, of which masks are made when the volume is gone (with their runs, of which every
/// second voxel of a noise image begins one); and the process that decodes compressed slices.
std::int64_t MemoryOf(const CaseSight& sight, const Geometry& canonical) {
  constexpr std::int64_t kFixed = std::int64_t{16} << 20;
  double voxels = 1;  // A broken header may ask for more than 64 bits can count.
  for (const std::int64_t size : canonical.size) voxels *= static_cast<double>(size);
  if (voxels > 1e15) return std::int64_t{1} << 60;
  double bytes = sizeof(float) * voxels;
  if (!sight.files.labels.empty()) {
    const std::int64_t n = MaskStride(canonical);
    double thinned = 1;
    for (const std::int64_t size : canonical.size) {
      thinned *= static_cast<double>((size + n - 1) / n);
    }
    bytes = voxels + std::max(bytes + sizeof(float) * thinned, 22 * thinned);
  }
  std::int64_t decoder_bytes = 0;
  for (const ImageSight& image : sight.images) {
    if (!image.file.series.has_value()) continue;
    decoder_bytes = std::max(decoder_bytes, image.file.series->decoder_bytes);
  }
  return static_cast<std::int64_t>(bytes) + decoder_bytes + kFixed;
}

void CheckOnGrid(CaseSight& sight, const Geometry& canonical, const std::filesystem::path& path,
                 const Geometry& other) {
  if (SameGrid(canonical, CanonicalGeometry(other), GridToleranceOf(canonical))) return;
  sight.Quarantine(
      Fault::kGrid, path,
      fmt::format("it does not lie on the grid of {}, both in canonical orientation: {} against {}",
                  sight.images.front().file.path.filename().string(),
                  GridText(CanonicalGeometry(other)), GridText(canonical)));
}

/// Where an image lies, and what is questionable about that.
absl::StatusOr<Geometry> GeometryOf(CaseSight& sight, const ScanFiles::Image& image) {
  if (image.series.has_value()) {
    sight.notes = image.series->notes;
    if (image.series->derived) {
      sight.Flag(Fault::kModality, image.path, "it was computed from other images (DERIVED)");
    }
    return image.series->geometry;
  }
  absl::StatusOr<GeometryAudit> audit = AuditGeometry(image.path, sight.files.geometry);
  if (!audit.ok()) return audit.status();
  for (std::string& note : audit->notes) {
    sight.Flag(Fault::kGeometry, image.path, std::move(note));
  }
  return audit->geometry;
}

/// Voxels are between a hundredth of a millimetre (microscopy of a sample) and 50 mm; what lies
/// beyond was written in another unit.
void CheckSpacing(CaseSight& sight, const ImageSight& image) {
  const auto [least, greatest] =
      std::minmax_element(image.stored.spacing_mm.begin(), image.stored.spacing_mm.end());
  if (*least >= 0.01 && *greatest <= 50) return;
  sight.Quarantine(Fault::kSpacing, image.file.path,
                   fmt::format("its voxels are {:.4g} to {:.4g} mm large, which no scan is: its "
                               "header is in another unit than millimetres",
                               *least, *greatest));
}

void LookAtImage(CaseSight& sight, std::size_t index, const JoinedLabels& labels,
                 const Geometry& canonical) {
  ImageSight& image = sight.images[index];
  absl::StatusOr<Volume> volume = image.file.series.has_value()
                                      ? ReadDicomSeries(*image.file.series)
                                      : ReadVolume(image.file.path, sight.files.geometry);
  if (!volume.ok()) {
    sight.Quarantine(FaultOf(volume.status()), image.file.path,
                     std::string(volume.status().message()));
    return;
  }
  if (CanonicalGeometry(volume->geometry).size != canonical.size) {
    sight.Quarantine(Fault::kGrid, image.file.path, "it changed while it was read");
    return;
  }
  if (!MeasureRange(sight, image, *volume, canonical)) return;
  MeasurePicture(image, *volume, canonical);
  image.read = true;
  if (index > 0 || sight.label_digest.empty()) return;
  MeasureContrast(sight, labels, *volume, canonical);
  MeasureMasks(sight, *std::move(volume), labels.slices);
}

void ReadHeaders(CaseSight& sight) {
  if (!sight.files.sidecar.fault.empty()) {
    sight.Flag(Fault::kSidecar, sight.files.images.front().path, sight.files.sidecar.fault);
  }
  if (!sight.files.fault.empty()) {
    sight.Quarantine(Fault::kSeries, sight.files.images.front().path, sight.files.fault_reason);
    sight.findings.back().series_fault = sight.files.fault;
    return;
  }
  std::optional<Geometry> canonical;
  for (const ScanFiles::Image& file : sight.files.images) {
    ImageSight& image = sight.images.emplace_back();
    image.file = file;
    const absl::StatusOr<Geometry> geometry = GeometryOf(sight, file);
    if (!geometry.ok()) {
      sight.Quarantine(FaultOf(geometry.status()), file.path,
                       std::string(geometry.status().message()));
      continue;
    }
    image.stored = *geometry;
    image.orientation = OrientationOf(*geometry);
    image.oblique_degrees = ObliqueDegreesOf(*geometry);
    CheckSpacing(sight, image);
    if (canonical.has_value()) {
      CheckOnGrid(sight, *canonical, file.path, *geometry);
    } else {
      canonical = CanonicalGeometry(*geometry);
    }
  }
  std::vector<std::filesystem::path> beside;
  for (const ScanFiles::LabelFile& file : sight.files.labels) beside.push_back(file.path);
  if (!sight.files.mask.empty()) beside.push_back(sight.files.mask);
  for (const std::filesystem::path& path : beside) {
    const absl::StatusOr<Geometry> geometry = ReadGeometry(path, sight.files.geometry);
    if (!geometry.ok()) {
      sight.Quarantine(FaultOf(geometry.status()), path, std::string(geometry.status().message()));
    } else if (canonical.has_value()) {
      CheckOnGrid(sight, *canonical, path, *geometry);
    }
  }
  if (canonical.has_value() && !sight.quarantined()) {
    sight.bytes = MemoryOf(sight, *canonical);
  }
}

void ReadVoxels(CaseSight& sight) {
  const Geometry canonical = CanonicalGeometry(sight.images.front().stored);
  const JoinedLabels labels = ReadLabels(sight, canonical);
  CheckGivenMask(sight, labels, canonical);
  CheckLeftAndRight(sight);
  for (std::size_t index = 0; index < sight.images.size(); ++index) {
    LookAtImage(sight, index, labels, canonical);
  }
}

/// One case that takes more memory than there is must not end the others: neither here nor in the
/// threads that call this.
template <typename Work>
void OrQuarantined(CaseSight& sight, const Work& work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    sight.Quarantine(Fault::kMemory, sight.files.images.front().path,
                     "not enough memory to read it");
  } catch (const std::exception& failure) {
    sight.Quarantine(Fault::kUnreadable, sight.files.images.front().path,
                     fmt::format("it cannot be read: {}", failure.what()));
  }
}

}  // namespace

bool CaseSight::quarantined() const {
  return std::any_of(findings.begin(), findings.end(),
                     [](const Finding& finding) { return finding.quarantines; });
}

void CaseSight::Quarantine(Fault fault, const std::filesystem::path& path, std::string reason) {
  findings.push_back(
      {.fault = fault, .quarantines = true, .path = path, .reason = std::move(reason)});
}

void CaseSight::Flag(Fault fault, const std::filesystem::path& path, std::string reason) {
  findings.push_back(
      {.fault = fault, .quarantines = false, .path = path, .reason = std::move(reason)});
}

CaseSight LookAtHeaders(ScanFiles files) {
  CaseSight sight;
  sight.files = std::move(files);
  OrQuarantined(sight, [&sight] { ReadHeaders(sight); });
  return sight;
}

void LookAtVoxels(CaseSight& sight) {
  if (sight.quarantined() || sight.images.empty()) return;
  OrQuarantined(sight, [&sight] { ReadVoxels(sight); });
}

}  // namespace isoscan
