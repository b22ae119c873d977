#include "client/training/spatial_augmentation.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace isoscan {
namespace {

constexpr double kProbability = 0.2;
constexpr double kSteepestTilt = 30.0 / 180 * std::numbers::pi;
constexpr double kWholeTurn = std::numbers::pi;
constexpr double kLargestAnisotropy = 3;
constexpr std::size_t kCorners = 8;

Matrix3 Product(const Matrix3& left, const Matrix3& right) {
  Matrix3 product{};
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t column = 0; column < 3; ++column) {
      for (std::size_t k = 0; k < 3; ++k) product[row][column] += left[row][k] * right[k][column];
    }
  }
  return product;
}

/// About one axis; positive angles turn axis + 1 towards axis + 2, cyclically.
Matrix3 RotationAbout(std::size_t axis, double angle) {
  const std::size_t first = (axis + 1) % 3;
  const std::size_t second = (axis + 2) % 3;
  Matrix3 rotation{};
  rotation[axis][axis] = 1;
  rotation[first][first] = std::cos(angle);
  rotation[first][second] = -std::sin(angle);
  rotation[second][first] = std::sin(angle);
  rotation[second][second] = std::cos(angle);
  return rotation;
}

/// The eight voxels around a place, and how much each counts.
struct Cell {
  std::array<std::int64_t, kCorners> voxels;  ///< -1: outside.
  std::array<float, kCorners> weights;        ///< In the order z, y, x of their offsets 0 and 1.
};

/// Without a call of libm, which floor() is on older processors.
std::int64_t Floor(double value) {
  const auto truncated = static_cast<std::int64_t>(value);
  return truncated - (value < static_cast<double>(truncated) ? 1 : 0);
}

/// `inside`: the caller knows that all eight voxels are.
template <bool inside>
Cell CellAt(const std::array<double, 3>& place, const Triple& size) {
  std::array<std::int64_t, 3> lower{};
  std::array<std::array<float, 2>, 3> share{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    lower[axis] = Floor(place[axis]);
    const auto upper = static_cast<float>(place[axis] - static_cast<double>(lower[axis]));
    share[axis] = {1 - upper, upper};
  }
  const std::int64_t first = (lower[0] * size[1] + lower[1]) * size[2] + lower[2];
  Cell cell;
  for (std::size_t corner = 0; corner < kCorners; ++corner) {
    const std::array<std::size_t, 3> offset{corner >> 2U, corner >> 1U & 1U, corner & 1U};
    cell.weights[corner] = share[0][offset[0]] * share[1][offset[1]] * share[2][offset[2]];
    cell.voxels[corner] =
        first +
        (static_cast<std::int64_t>(offset[0]) * size[1] + static_cast<std::int64_t>(offset[1])) *
            size[2] +
        static_cast<std::int64_t>(offset[2]);
    if constexpr (!inside) {
      for (std::size_t axis = 0; axis < 3; ++axis) {
        const std::int64_t index = lower[axis] + static_cast<std::int64_t>(offset[axis]);
        if (index < 0 || index >= size[axis]) cell.voxels[corner] = -1;
      }
    }
  }
  return cell;
}

template <bool inside>
float ValueOf(const Cell& cell, const float* image) {
  float value = 0;
  for (std::size_t corner = 0; corner < kCorners; ++corner) {
    if (inside || cell.voxels[corner] >= 0) {
      value += cell.weights[corner] * image[cell.voxels[corner]];
    }
  }
  return value;
}

/// `labels` are the corners', not all the same.
std::uint8_t MostWeight(const Cell& cell, const std::array<std::uint8_t, kCorners>& labels) {
  std::array<float, kCorners> sums{};  // Of each corner's label.
  float most = 0;
  for (std::size_t corner = 0; corner < kCorners; ++corner) {
    for (std::size_t other = 0; other < kCorners; ++other) {
      if (labels[other] == labels[corner]) sums[corner] += cell.weights[other];
    }
    most = std::max(most, sums[corner]);
  }
  const auto nearest = static_cast<std::size_t>(
      std::max_element(cell.weights.begin(), cell.weights.end()) - cell.weights.begin());
  if (sums[nearest] == most) return labels[nearest];
  std::uint8_t smallest = 255;
  for (std::size_t corner = 0; corner < kCorners; ++corner) {
    if (sums[corner] == most) smallest = std::min(smallest, labels[corner]);
  }
  return smallest;
}

template <bool inside>
std::uint8_t LabelOf(const Cell& cell, const std::uint8_t* image) {
  std::array<std::uint8_t, kCorners> labels{};
  bool same = true;
  for (std::size_t corner = 0; corner < kCorners; ++corner) {
    if (inside || cell.voxels[corner] >= 0) labels[corner] = image[cell.voxels[corner]];
    same = same && labels[corner] == labels[0];
  }
  return same ? labels[0] : MostWeight(cell, labels);
}

}  // namespace

std::optional<std::size_t> FlatAxis(const Study& study) {
  const Triple& patch = study.training.patch_size;
  const std::array<double, 3>& spacing = study.harmonization.spacing_mm;
  const bool declared = *std::min_element(spacing.begin(), spacing.end()) > 0;
  const auto thick = static_cast<std::size_t>(
      declared ? std::max_element(spacing.begin(), spacing.end()) - spacing.begin()
               : std::min_element(patch.begin(), patch.end()) - patch.begin());
  const auto longest = static_cast<double>(*std::max_element(patch.begin(), patch.end()));
  if (longest <= kLargestAnisotropy * static_cast<double>(patch[thick])) return std::nullopt;
  return thick;
}

std::optional<Matrix3> DrawRotationAndScaling(std::optional<std::size_t> flat_axis,
                                              RandomStream& random) {
  const bool turns = random.Chance(kProbability);
  const bool scales = random.Chance(kProbability);
  if (!turns && !scales) return std::nullopt;

  Matrix3 matrix = PatchPlacement().matrix;
  if (turns && flat_axis.has_value()) {
    matrix = RotationAbout(*flat_axis, random.Uniform(-kWholeTurn, kWholeTurn));
  } else if (turns) {
    for (std::size_t axis = 0; axis < 3; ++axis) {
      const double angle = random.Uniform(-kSteepestTilt, kSteepestTilt);
      matrix = Product(RotationAbout(axis, angle), matrix);
    }
  }
  if (scales) {
    const double factor = random.Uniform(0.7, 1.4);
    for (std::size_t column = 0; column < 3; ++column) {
      if (column == flat_axis) continue;
      for (std::size_t row = 0; row < 3; ++row) matrix[row][column] *= factor;
    }
  }
  return matrix;
}

void SamplePatch(const PreparedCase& source, std::int64_t channels, const PatchPlacement& placement,
                 const Triple& patch_size, float* image, std::uint8_t* labels) {
  const Triple size{source.grid.size[2], source.grid.size[1], source.grid.size[0]};
  const std::int64_t case_voxels = size[0] * size[1] * size[2];
  const std::int64_t patch_voxels = patch_size[0] * patch_size[1] * patch_size[2];
  std::array<double, 3> middle{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    middle[axis] = static_cast<double>(patch_size[axis] - 1) / 2;
  }
  const auto place_of = [&](std::int64_t z, std::int64_t y, std::int64_t x) {
    const std::array<double, 3> from_middle{static_cast<double>(z) - middle[0],
                                            static_cast<double>(y) - middle[1],
                                            static_cast<double>(x) - middle[2]};
    std::array<double, 3> place = placement.centre;
    for (std::size_t axis = 0; axis < 3; ++axis) {
      for (std::size_t k = 0; k < 3; ++k) place[axis] += placement.matrix[axis][k] * from_middle[k];
    }
    return place;
  };
  const auto is_inside = [&](const std::array<double, 3>& place) {
    for (std::size_t axis = 0; axis < 3; ++axis) {
      if (place[axis] < 0 || place[axis] >= static_cast<double>(size[axis] - 1)) return false;
    }
    return true;
  };

  const auto fill_row = [&]<bool inside>(std::int64_t z, std::int64_t y) {
    const std::int64_t row = (z * patch_size[1] + y) * patch_size[2];
    for (std::int64_t x = 0; x < patch_size[2]; ++x) {
      const Cell cell = CellAt<inside>(place_of(z, y, x), size);
      labels[row + x] = LabelOf<inside>(cell, source.labels.data());
      for (std::int64_t channel = 0; channel < channels; ++channel) {
        image[channel * patch_voxels + row + x] =
            ValueOf<inside>(cell, source.image.data() + channel * case_voxels);
      }
    }
  };
  for (std::int64_t z = 0; z < patch_size[0]; ++z) {
    for (std::int64_t y = 0; y < patch_size[1]; ++y) {
      // A row is straight: with both ends, all of it is inside.
      if (is_inside(place_of(z, y, 0)) && is_inside(place_of(z, y, patch_size[2] - 1))) {
        fill_row.operator()<true>(z, y);
      } else {
        fill_row.operator()<false>(z, y);
      }
    }
  }
}

}  // namespace isoscan
