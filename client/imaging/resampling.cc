#include "client/imaging/resampling.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>

namespace isoscan {
namespace {

/// A volume of fewer voxels is done before another thread wakes up.
constexpr std::int64_t kLargeVolume = 1 << 18;

/// Where one sample of an axis takes its values from: voxels `index` with `weight`, clamped to the
/// border, so that a sample beyond it takes the nearest voxel.
struct Taps {
  std::array<std::int64_t, 4> index{};
  std::array<float, 4> weight{};
};

/// Coordinates of the target's samples along `axis`, in voxels of the source.
std::vector<double> SampleCoordinates(const Geometry& source, const Geometry& target,
                                      std::size_t axis) {
  double offset_mm = 0;
  for (std::size_t row = 0; row < 3; ++row) {
    offset_mm += source.direction[row][axis] * (target.origin_mm[row] - source.origin_mm[row]);
  }
  std::vector<double> coordinates(static_cast<std::size_t>(target.size[axis]));
  const auto last = static_cast<double>(source.size[axis] - 1);
  for (std::size_t i = 0; i < coordinates.size(); ++i) {
    const double coordinate =
        (offset_mm + target.spacing_mm[axis] * static_cast<double>(i)) / source.spacing_mm[axis];
    // A coordinate that is whole but for rounding must not blend its neighbour in.
    const double whole = std::round(coordinate);
    const double snapped = std::abs(coordinate - whole) < 1e-9 * (1 + last) ? whole : coordinate;
    coordinates[i] = std::clamp(snapped, 0.0, last);
  }
  return coordinates;
}

/// The two neighbours of each sample: index[0], index[1], weight[1] the share of the second.
std::vector<Taps> LinearTaps(const std::vector<double>& coordinates, std::int64_t size) {
  std::vector<Taps> taps(coordinates.size());
  for (std::size_t i = 0; i < taps.size(); ++i) {
    const auto lower = static_cast<std::int64_t>(std::floor(coordinates[i]));
    const double share = coordinates[i] - static_cast<double>(lower);
    taps[i].index = {lower, std::min(lower + 1, size - 1), 0, 0};
    taps[i].weight = {static_cast<float>(1 - share), static_cast<float>(share), 0, 0};
  }
  return taps;
}

/// Index of coefficient `index` of an axis that is mirrored at its first and last voxel.
std::int64_t Mirrored(std::int64_t index, std::int64_t size) {
  if (size == 1) return 0;
  const std::int64_t period = 2 * (size - 1);
  index = ((index % period) + period) % period;
  return index < size ? index : period - index;
}

std::vector<Taps> CubicTaps(const std::vector<double>& coordinates, std::int64_t size) {
  std::vector<Taps> taps(coordinates.size());
  for (std::size_t i = 0; i < taps.size(); ++i) {
    const auto lower = static_cast<std::int64_t>(std::floor(coordinates[i]));
    const double t = coordinates[i] - static_cast<double>(lower);
    const double u = 1 - t;
    const std::array<double, 4> weight{u * u * u / 6, (4 - 6 * t * t + 3 * t * t * t) / 6,
                                       (4 - 6 * u * u + 3 * u * u * u) / 6, t * t * t / 6};
    for (std::size_t tap = 0; tap < 4; ++tap) {
      taps[i].index[tap] = Mirrored(lower - 1 + static_cast<std::int64_t>(tap), size);
      taps[i].weight[tap] = static_cast<float>(weight[tap]);
    }
  }
  return taps;
}

/// A volume seen along one axis: `outer` blocks of `length` rows of `inner` neighbouring voxels.
struct AxisView {
  std::int64_t outer = 1;
  std::int64_t length = 1;
  std::int64_t inner = 1;
};

AxisView ViewAlong(const std::array<std::int64_t, 3>& size, std::size_t axis) {
  AxisView view{.outer = 1, .length = size[axis], .inner = 1};
  for (std::size_t other = 0; other < axis; ++other) view.inner *= size[other];
  for (std::size_t other = axis + 1; other < 3; ++other) view.outer *= size[other];
  return view;
}

/// Turns samples into cubic B-spline coefficients along one axis, in place.
/// Source: docs/references.md#unser1993, recursive filter with pole sqrt(3) - 2, mirrored borders.
void FilterToCoefficients(std::vector<float>& voxels, const AxisView& view) {
  if (view.length == 1) return;
  const double pole = std::sqrt(3.0) - 2;
  const double gain = (1 - pole) * (1 - 1 / pole);
  // |pole|^k is below the rounding of float long before the horizon.
  const std::int64_t horizon = std::min<std::int64_t>(view.length, 30);
#pragma omp parallel if (view.outer * view.length * view.inner > kLargeVolume)
  {
    std::vector<double> line(static_cast<std::size_t>(view.length));
#pragma omp for
    for (std::int64_t column = 0; column < view.outer * view.inner; ++column) {
      float* first =
          voxels.data() + column / view.inner * view.length * view.inner + column % view.inner;
      for (std::int64_t k = 0; k < view.length; ++k) {
        line[static_cast<std::size_t>(k)] = gain * first[k * view.inner];
      }
      double sum = 0;
      double power = 1;
      for (std::int64_t k = 0; k < horizon; ++k, power *= pole) {
        sum += power * line[static_cast<std::size_t>(k)];
      }
      if (horizon == view.length) {
        // Short lines: the mirrored signal is periodic, and its sum has a closed form.
        const auto n = static_cast<std::size_t>(view.length);
        double backwards = std::pow(pole, static_cast<double>(n));
        for (std::size_t k = n - 2; k >= 1; --k, backwards *= pole) sum += backwards * line[k];
        sum /= 1 - std::pow(pole, static_cast<double>(2 * n - 2));
      }
      line[0] = sum;
      for (std::size_t k = 1; k < line.size(); ++k) line[k] += pole * line[k - 1];
      const std::size_t last = line.size() - 1;
      line[last] = pole / (pole * pole - 1) * (line[last] + pole * line[last - 1]);
      for (std::size_t k = last; k-- > 0;) line[k] = pole * (line[k + 1] - line[k]);
      for (std::int64_t k = 0; k < view.length; ++k) {
        first[k * view.inner] = static_cast<float>(line[static_cast<std::size_t>(k)]);
      }
    }
  }
}

/// Samples along one axis; `count` taps per sample are used.
std::vector<float> SampleAlong(const std::vector<float>& voxels, const AxisView& view,
                               const std::vector<Taps>& taps, std::size_t count) {
  const auto samples = static_cast<std::int64_t>(taps.size());
  std::vector<float> result(static_cast<std::size_t>(view.outer * samples * view.inner));
#pragma omp parallel for collapse(2) if (view.outer * samples * view.inner > kLargeVolume)
  for (std::int64_t block = 0; block < view.outer; ++block) {
    for (std::int64_t sample = 0; sample < samples; ++sample) {
      const Taps& tap = taps[static_cast<std::size_t>(sample)];
      float* to = result.data() + (block * samples + sample) * view.inner;
      for (std::size_t t = 0; t < count; ++t) {
        const float weight = tap.weight[t];
        if (weight == 0) continue;
        const float* from = voxels.data() + (block * view.length + tap.index[t]) * view.inner;
        for (std::int64_t i = 0; i < view.inner; ++i) to[i] += weight * from[i];
      }
    }
  }
  return result;
}

bool SharesSamples(const Geometry& from, const Geometry& to, std::size_t axis,
                   const std::vector<double>& coordinates) {
  if (from.size[axis] != to.size[axis]) return false;
  for (std::size_t i = 0; i < coordinates.size(); ++i) {
    if (coordinates[i] != static_cast<double>(i)) return false;
  }
  return true;
}

[[maybe_unused]] bool SharesDirection(const Geometry& left, const Geometry& right) {
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t axis = 0; axis < 3; ++axis) {
      if (std::abs(left.direction[row][axis] - right.direction[row][axis]) > 1e-6) return false;
    }
  }
  return true;
}

std::array<std::vector<Taps>, 3> LinearTapsOf(const Geometry& from, const Geometry& to) {
  std::array<std::vector<Taps>, 3> taps;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    taps[axis] = LinearTaps(SampleCoordinates(from, to, axis), from.size[axis]);
  }
  return taps;
}

}  // namespace

Geometry WithSpacing(const Geometry& geometry, const std::array<double, 3>& spacing_mm) {
  Geometry result = geometry;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    if (spacing_mm[axis] == 0) continue;
    const double extent_mm = static_cast<double>(geometry.size[axis]) * geometry.spacing_mm[axis];
    result.size[axis] = std::max<std::int64_t>(1, std::llround(extent_mm / spacing_mm[axis]));
    if (result.size[axis] == geometry.size[axis]) continue;
    result.spacing_mm[axis] = extent_mm / static_cast<double>(result.size[axis]);
    const double shift_mm = 0.5 * (result.spacing_mm[axis] - geometry.spacing_mm[axis]);
    for (std::size_t row = 0; row < 3; ++row) {
      result.origin_mm[row] += geometry.direction[row][axis] * shift_mm;
    }
  }
  return result;
}

Volume Resample(const Volume& volume, const Geometry& target, ImageInterpolation interpolation) {
  assert(SharesDirection(volume.geometry, target));
  Volume result = volume;
  result.geometry = target;
  std::array<std::int64_t, 3> size = volume.geometry.size;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const std::vector<double> coordinates = SampleCoordinates(volume.geometry, target, axis);
    if (SharesSamples(volume.geometry, target, axis, coordinates)) continue;
    const AxisView view = ViewAlong(size, axis);
    if (interpolation == ImageInterpolation::kBSpline) {
      FilterToCoefficients(result.voxels, view);
      result.voxels = SampleAlong(result.voxels, view, CubicTaps(coordinates, view.length), 4);
    } else {
      result.voxels = SampleAlong(result.voxels, view, LinearTaps(coordinates, view.length), 2);
    }
    size[axis] = target.size[axis];
  }
  return result;
}

LabelMap Resample(const LabelMap& labels, const Geometry& target) {
  assert(SharesDirection(labels.geometry, target));
  const std::array<std::vector<Taps>, 3> taps = LinearTapsOf(labels.geometry, target);
  const std::array<std::int64_t, 3>& from = labels.geometry.size;
  LabelMap result;
  result.geometry = target;
  result.voxels.resize(static_cast<std::size_t>(target.voxels()));
#pragma omp parallel for if (target.voxels() > kLargeVolume)
  for (std::int64_t z = 0; z < target.size[2]; ++z) {
    const Taps& along_z = taps[2][static_cast<std::size_t>(z)];
    for (std::int64_t y = 0; y < target.size[1]; ++y) {
      const Taps& along_y = taps[1][static_cast<std::size_t>(y)];
      std::array<const std::uint8_t*, 4> rows{};
      std::array<float, 4> row_weight{};
      for (std::size_t corner = 0; corner < 4; ++corner) {
        const std::int64_t row = along_z.index[corner >> 1] * from[1] + along_y.index[corner & 1];
        rows[corner] = labels.voxels.data() + row * from[0];
        row_weight[corner] = along_z.weight[corner >> 1] * along_y.weight[corner & 1];
      }
      std::uint8_t* to = result.voxels.data() + (z * target.size[1] + y) * target.size[0];
      for (std::int64_t x = 0; x < target.size[0]; ++x) {
        const Taps& along_x = taps[0][static_cast<std::size_t>(x)];
        std::array<std::uint8_t, 8> label{};
        std::array<float, 8> weight{};
        bool uniform = true;
        for (std::size_t corner = 0; corner < 8; ++corner) {
          label[corner] = rows[corner >> 1][along_x.index[corner & 1]];
          weight[corner] = row_weight[corner >> 1] * along_x.weight[corner & 1];
          uniform = uniform && label[corner] == label[0];
        }
        to[x] = label[0];
        if (uniform) continue;
        float greatest = -1;
        for (std::size_t corner = 0; corner < 8; ++corner) {
          float share = 0;
          for (std::size_t other = 0; other < 8; ++other) {
            if (label[other] == label[corner]) share += weight[other];
          }
          if (share > greatest || (share == greatest && label[corner] < to[x])) {
            greatest = share;
            to[x] = label[corner];
          }
        }
      }
    }
  }
  return result;
}

LabelMap ArgMaxResampled(const std::vector<float>& scores, std::int64_t classes,
                         const Geometry& from, const Geometry& to) {
  assert(SharesDirection(from, to));
  assert(static_cast<std::int64_t>(scores.size()) == classes * from.voxels());
  const std::array<std::vector<Taps>, 3> taps = LinearTapsOf(from, to);
  LabelMap result;
  result.geometry = to;
  result.voxels.resize(static_cast<std::size_t>(to.voxels()));
#pragma omp parallel if (classes * to.voxels() > kLargeVolume)
  {
    std::vector<float> source_row(static_cast<std::size_t>(from.size[0]));
    std::vector<float> best(static_cast<std::size_t>(to.size[0]));
#pragma omp for
    for (std::int64_t z = 0; z < to.size[2]; ++z) {
      const Taps& along_z = taps[2][static_cast<std::size_t>(z)];
      for (std::int64_t y = 0; y < to.size[1]; ++y) {
        const Taps& along_y = taps[1][static_cast<std::size_t>(y)];
        std::uint8_t* labels = result.voxels.data() + (z * to.size[1] + y) * to.size[0];
        for (std::int64_t label = 0; label < classes; ++label) {
          std::fill(source_row.begin(), source_row.end(), 0.0f);
          for (std::size_t corner = 0; corner < 4; ++corner) {
            const float weight = along_z.weight[corner >> 1] * along_y.weight[corner & 1];
            if (weight == 0) continue;
            const std::int64_t row =
                (label * from.size[2] + along_z.index[corner >> 1]) * from.size[1] +
                along_y.index[corner & 1];
            const float* values = scores.data() + row * from.size[0];
            for (std::size_t x = 0; x < source_row.size(); ++x) source_row[x] += weight * values[x];
          }
          for (std::size_t x = 0; x < best.size(); ++x) {
            const Taps& along_x = taps[0][x];
            const float score =
                along_x.weight[0] * source_row[static_cast<std::size_t>(along_x.index[0])] +
                along_x.weight[1] * source_row[static_cast<std::size_t>(along_x.index[1])];
            if (label == 0 || score > best[x]) {
              best[x] = score;
              labels[x] = static_cast<std::uint8_t>(label);
            }
          }
        }
      }
    }
  }
  return result;
}

}  // namespace isoscan
