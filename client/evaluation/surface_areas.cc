#include "client/evaluation/surface_areas.h"

#include <bit>
#include <cmath>
#include <cstddef>

namespace isoscan {
namespace {

using Corners = unsigned;  ///< A set of the cube's eight corners; corner i is bit i.

/// Corners that one step along an axis leads to from a corner of `corners`.
Corners NeighboursOf(Corners corners) {
  Corners neighbours = 0;
  for (unsigned corner = 0; corner < 8; ++corner) {
    if ((corners >> corner & 1) == 0) continue;
    for (unsigned axis = 0; axis < 3; ++axis) neighbours |= 1u << (corner ^ (1u << axis));
  }
  return neighbours;
}

/// What of `corners` hangs together with its lowest one along the cube's edges.
Corners FirstPieceOf(Corners corners) {
  Corners piece = corners & (~corners + 1);
  for (Corners grown = 0; grown != piece;) {
    grown = piece;
    piece |= NeighboursOf(piece) & corners;
  }
  return piece;
}

/// Edges inside a set, per axis; and how many the corner with the most of them has.
struct Edges {
  std::array<int, 3> along{};
  int all = 0;
  int most = 0;
  std::size_t middle = 0;  ///< Axis of an edge whose both corners have another one.
};

Edges EdgesOf(Corners piece) {
  Edges edges;
  const auto degree = [piece](unsigned corner) {
    return std::popcount(NeighboursOf(1u << corner) & piece);
  };
  for (unsigned corner = 0; corner < 8; ++corner) {
    if ((piece >> corner & 1) == 0) continue;
    edges.most = std::max(edges.most, degree(corner));
    for (unsigned axis = 0; axis < 3; ++axis) {
      const unsigned other = corner ^ (1u << axis);
      if (other < corner || (piece >> other & 1) == 0) continue;
      ++edges.along[axis];
      ++edges.all;
      if (degree(corner) > 1 && degree(other) > 1) edges.middle = axis;
    }
  }
  return edges;
}

/// The surface around up to four corners that hang together. Every piece of it is a polygon through
/// the middles of cube edges, most of them flat; the two that are not are cut into triangles.
double AreaAround(Corners piece, const std::array<double, 3>& mm) {
  const auto others = [](std::size_t axis) {
    return std::array<std::size_t, 2>{(axis + 1) % 3, (axis + 2) % 3};
  };
  /// Of the triangle that cuts off one corner.
  const double triangle = std::hypot(mm[1] * mm[2], mm[0] * mm[2], mm[0] * mm[1]) / 8;
  const auto diagonal = [&](std::size_t axis) {
    return std::hypot(mm[others(axis)[0]], mm[others(axis)[1]]);
  };
  const Edges edges = EdgesOf(piece);
  switch (std::popcount(piece)) {
    case 1:
      return triangle;
    case 2: {  // A rectangle along the edge.
      std::size_t axis = 0;
      while (edges.along[axis] == 0) ++axis;
      return mm[axis] * diagonal(axis) / 2;
    }
    case 3: {  // Half of a face, and a trapezoid in the plane of a corner's triangle.
      std::size_t axis = 0;
      while (edges.along[axis] != 0) ++axis;
      return mm[others(axis)[0]] * mm[others(axis)[1]] / 2 + 3 * triangle;
    }
    default:
      break;
  }
  if (edges.all == 4) {  // A face.
    std::size_t axis = 0;
    while (edges.along[axis] != 0) ++axis;
    return mm[others(axis)[0]] * mm[others(axis)[1]];
  }
  if (edges.most == 3) return 6 * triangle;  // A hexagon around a corner and its neighbours.
  // A path of three edges: four triangles, two of them along its first and its last edge.
  const auto [first, last] = others(edges.middle);
  return 4 * triangle + mm[first] * diagonal(first) / 4 + mm[last] * diagonal(last) / 4;
}

}  // namespace

std::array<double, 256> SurfaceAreas(const std::array<double, 3>& spacing_mm) {
  std::array<double, 256> areas{};
  for (Corners code = 0; code < areas.size(); ++code) {
    // The fewer corners are cut off, those of the mask or those outside it.
    Corners rest = std::popcount(code) > 4 ? ~code & 0xff : code;
    while (rest != 0) {
      const Corners piece = FirstPieceOf(rest);
      areas[code] += AreaAround(piece, spacing_mm);
      rest &= ~piece;
    }
  }
  return areas;
}

}  // namespace isoscan
