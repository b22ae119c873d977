#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "client/imaging/dicom_fault.h"
#include "client/imaging/dicom_series.h"
#include "client/imaging/volume.h"

// Planes in space become volumes, or are told why they are none: docs/dicom.md#what-a-series-is.

namespace isoscan {

/// Unit vectors along a row, along a column and along the normal; LPS.
using PlaneAxes = std::array<std::array<double, 3>, 3>;

/// Of ImageOrientationPatient. Headers round their cosines: the column is turned at right angles to
/// the row, by at most 0.1 degrees; none where it would take more, or where they are no directions.
std::optional<PlaneAxes> PlaneAxesOf(const std::array<double, 6>& orientation);

/// One plane of a series, while it is looked for.
struct DicomPlane {
  DicomSlice slice;
  std::array<double, 3> position_mm{};  ///< LPS, centre of the first voxel.
  PlaneAxes axes{};
};

/// The planes of a series that lie in one direction; or those that cannot be parted, and why.
struct DicomDirection {
  std::vector<DicomPlane> planes;
  std::optional<DicomRefusal> refusal;
};

/// Parts planes that agree in all but their place by their direction. Of several directions, those
/// of at least 30 planes are scans of their own, those of fewer a localiser.
std::vector<DicomDirection> PartByDirection(std::vector<DicomPlane> planes);

/// The grid of planes of one direction, each `size` pixels (columns, rows) of `spacing_mm`; they
/// are sorted along the normal, the first slice first. A refusal where they are no single volume.
std::variant<Geometry, DicomRefusal> StackPlanes(std::vector<DicomPlane>& planes,
                                                 const std::array<std::int64_t, 2>& size,
                                                 const std::array<double, 2>& spacing_mm);

}  // namespace isoscan
