/// Small volumes with everything that real ones have: oblique axes, unequal spacing, odd sizes; and
/// NIfTI files written byte by byte, for what our own writer would never write.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "client/imaging/volume.h"

namespace isoscan {

/// Rotated by about 10 degrees around two axes, 0.8 x 1.1 x 2.9 mm, off-centre; nearest to LPS.
inline Geometry ObliqueGeometry(const std::array<std::int64_t, 3>& size) {
  const double a = 0.17;
  const double b = -0.21;
  Geometry geometry;
  geometry.size = size;
  geometry.spacing_mm = {0.8, 1.1, 2.9};
  geometry.origin_mm = {-91.5, 40.25, 13.0};
  geometry.direction = {{{std::cos(a), -std::sin(a) * std::cos(b), std::sin(a) * std::sin(b)},
                         {std::sin(a), std::cos(a) * std::cos(b), -std::cos(a) * std::sin(b)},
                         {0.0, std::sin(b), std::cos(b)}}};
  return geometry;
}

/// A smooth function of the place in the patient, between about 70 and 170.
inline float AnatomyAt(const std::array<double, 3>& point_mm) {
  return static_cast<float>(120 + 30 * std::sin(point_mm[0] / 7) + 12 * std::cos(point_mm[1] / 5) +
                            8 * std::sin(point_mm[2] / 11));
}

inline Volume SmoothVolume(const Geometry& geometry) {
  Volume volume{.geometry = geometry, .voxels = {}};
  for (std::int64_t z = 0; z < geometry.size[2]; ++z) {
    for (std::int64_t y = 0; y < geometry.size[1]; ++y) {
      for (std::int64_t x = 0; x < geometry.size[0]; ++x) {
        volume.voxels.push_back(AnatomyAt(PhysicalPoint(
            geometry, {static_cast<double>(x), static_cast<double>(y), static_cast<double>(z)})));
      }
    }
  }
  return volume;
}

/// Every voxel another value: nothing can be mistaken for its neighbour.
inline Volume NumberedVolume(const Geometry& geometry) {
  Volume volume{.geometry = geometry, .voxels = {}};
  for (std::int64_t i = 0; i < geometry.voxels(); ++i) {
    volume.voxels.push_back(static_cast<float>(i));
  }
  return volume;
}

/// Label 1 in a box in the middle, label 2 in the half of it with greater x.
inline LabelMap BoxLabels(const Geometry& geometry) {
  LabelMap labels{.geometry = geometry, .voxels = {}};
  for (std::int64_t z = 0; z < geometry.size[2]; ++z) {
    for (std::int64_t y = 0; y < geometry.size[1]; ++y) {
      for (std::int64_t x = 0; x < geometry.size[0]; ++x) {
        const auto middle = [](std::int64_t i, std::int64_t n) {
          return 4 * i >= n && 4 * i < 3 * n;
        };
        const bool inside = middle(x, geometry.size[0]) && middle(y, geometry.size[1]) &&
                            middle(z, geometry.size[2]);
        labels.voxels.push_back(!inside                    ? std::uint8_t{0}
                                : 2 * x < geometry.size[0] ? std::uint8_t{1}
                                                           : std::uint8_t{2});
      }
    }
  }
  return labels;
}

/// A NIfTI-1 file as its bytes; docs/references.md#nifti1. Rows of `sform` and `qform_offset` are
/// in NIfTI's RAS millimetres.
struct RawNifti {
  std::vector<std::int16_t> size = {};  ///< 1 to 7 axes, x first.
  std::int16_t datatype = 16;           ///< 2 uint8, 4 int16, 16 float32, 64 float64, 128 RGB.
  std::int16_t bits = 32;
  std::array<float, 3> spacing_mm{1, 1, 1};
  float slope = 1;
  float intercept = 0;
  std::int16_t qform_code = 1;
  std::int16_t sform_code = 1;
  float qfac = 1;
  std::array<float, 3> quaternion{0, 0, 0};
  std::array<float, 3> qform_offset{0, 0, 0};
  std::array<std::array<float, 4>, 3> sform{{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}}};
  std::int8_t units = 2;  ///< 1 metres, 2 millimetres, 3 micrometres.
  std::string voxels = "";

  template <typename T>
  void Append(T value) {
    voxels.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }

  void Write(const std::filesystem::path& path) const {
    std::ofstream file(path, std::ios::binary);
    file << Header() << voxels;
  }

  /// The 352 bytes before the voxels.
  std::string Header() const {
    static_assert(std::endian::native == std::endian::little);
    std::string header(352, '\0');
    const auto put = [&header](std::size_t offset, auto value) {
      std::memcpy(header.data() + offset, &value, sizeof(value));
    };
    put(0, std::int32_t{348});
    put(40, static_cast<std::int16_t>(size.size()));
    for (std::size_t axis = 0; axis < 7; ++axis) {
      put(42 + 2 * axis, axis < size.size() ? size[axis] : std::int16_t{1});
    }
    put(70, datatype);
    put(72, bits);
    put(76, qfac);
    for (std::size_t axis = 0; axis < 7; ++axis) {
      put(80 + 4 * axis, axis < 3 ? spacing_mm[axis] : 1.0f);
    }
    put(108, 352.0f);
    put(112, slope);
    put(116, intercept);
    put(123, units);
    put(252, qform_code);
    put(254, sform_code);
    for (std::size_t i = 0; i < 3; ++i) put(256 + 4 * i, quaternion[i]);
    for (std::size_t i = 0; i < 3; ++i) put(268 + 4 * i, qform_offset[i]);
    for (std::size_t row = 0; row < 3; ++row) {
      for (std::size_t column = 0; column < 4; ++column) {
        put(280 + 16 * row + 4 * column, sform[row][column]);
      }
    }
    std::memcpy(header.data() + 344, "n+1", 4);
    return header;
  }
};

}  // namespace isoscan
