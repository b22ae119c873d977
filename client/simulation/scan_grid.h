#pragma once

#include <array>
#include <string_view>

#include "client/imaging/volume.h"

namespace isoscan {

/// True for three letters, one of each pair R/L, A/P and S/I: "LPS" is canonical.
bool IsOrientation(std::string_view orientation);

/// The grid that a scanner lays over a field of view.
///
/// Letter a of `orientation` says where stored axis a runs to, in the patient; `spacing_mm` is in
/// the order of stored axes, the third is the slices'. The grid is then turned by `oblique_degrees`
/// about the diagonal of the patient's axes, so that no axis keeps its direction. Its centre is the
/// field of view's; its size the extent over the spacing, rounded.
/// Requires IsOrientation(orientation) and a canonical `field_of_view`.
Geometry ScanGrid(const Geometry& field_of_view, const std::array<double, 3>& spacing_mm,
                  std::string_view orientation, double oblique_degrees);

}  // namespace isoscan
