#include "client/simulation/scan_grid.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace isoscan {
namespace {

constexpr std::string_view kForward = "LPS";
constexpr std::string_view kBackward = "RAI";

/// The patient's axis that a letter names, 0 to 2; 3 when it names none.
std::size_t AxisOf(char letter) {
  const std::size_t forward = kForward.find(letter);
  return std::min<std::size_t>(forward != std::string_view::npos ? forward : kBackward.find(letter),
                               3);
}

}  // namespace

bool IsOrientation(std::string_view orientation) {
  std::array<bool, 4> seen{};
  for (const char letter : orientation) seen[AxisOf(letter)] = true;
  return orientation.size() == 3 && seen[0] && seen[1] && seen[2];
}

Geometry ScanGrid(const Geometry& field_of_view, const std::array<double, 3>& spacing_mm,
                  std::string_view orientation, double oblique_degrees) {
  // Rodrigues' formula about (1, 1, 1) / sqrt(3): a circulant matrix.
  const double angle = oblique_degrees * std::numbers::pi / 180;
  const double along = (1 - std::cos(angle)) / 3;
  const double across = std::sin(angle) / std::sqrt(3.0);
  const std::array<double, 3> circulant{std::cos(angle) + along, along - across, along + across};

  Geometry grid;
  grid.spacing_mm = spacing_mm;
  std::array<double, 3> centre{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    centre[axis] = static_cast<double>(field_of_view.size[axis] - 1) / 2;
  }
  grid.origin_mm = PhysicalPoint(field_of_view, centre);
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const std::size_t patient = AxisOf(orientation[axis]);
    const double sign = orientation[axis] == kForward[patient] ? 1 : -1;
    const double extent_mm =
        static_cast<double>(field_of_view.size[patient]) * field_of_view.spacing_mm[patient];
    grid.size[axis] = std::max<std::int64_t>(1, std::llround(extent_mm / spacing_mm[axis]));
    for (std::size_t row = 0; row < 3; ++row) {
      double cosine = 0;
      for (std::size_t k = 0; k < 3; ++k) {
        cosine += circulant[(k + 3 - row) % 3] * field_of_view.direction[k][patient];
      }
      grid.direction[row][axis] = sign * cosine;
      grid.origin_mm[row] -= grid.direction[row][axis] * spacing_mm[axis] *
                             static_cast<double>(grid.size[axis] - 1) / 2;
    }
  }
  return grid;
}

}  // namespace isoscan
