#include "client/imaging/resampling.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>

#include "client/imaging/axis_samples.h"
#include "client/kernels/vector_clones.h"

namespace isoscan {
namespace {

/// A volume of fewer voxels is done before another thread wakes up.
constexpr std::int64_t kLargeVolume = 1 << 18;

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

/// Lines that are filtered together: a vector of each voxel's neighbours.
constexpr std::size_t kLines = 8;
using Lines = std::array<double, kLines>;

/// The recursive filter along `line`, of at least 2 voxels, for kLines lines at once.
ISOSCAN_VECTOR_CLONES
void FilterLines(Lines* line, std::size_t length) {
  const double pole = std::sqrt(3.0) - 2;
  // |pole|^k is below the rounding of float long before the horizon.
  const std::size_t horizon = std::min<std::size_t>(length, 30);
  Lines sum{};
  double power = 1;
  for (std::size_t k = 0; k < horizon; ++k, power *= pole) {
    for (std::size_t i = 0; i < kLines; ++i) sum[i] += power * line[k][i];
  }
  if (horizon == length) {
    // Short lines: the mirrored signal is periodic, and its sum has a closed form.
    double backwards = std::pow(pole, static_cast<double>(length));
    for (std::size_t k = length - 2; k >= 1; --k, backwards *= pole) {
      for (std::size_t i = 0; i < kLines; ++i) sum[i] += backwards * line[k][i];
    }
    const double period = 1 - std::pow(pole, static_cast<double>(2 * length - 2));
    for (std::size_t i = 0; i < kLines; ++i) sum[i] /= period;
  }
  line[0] = sum;
  for (std::size_t k = 1; k < length; ++k) {
    for (std::size_t i = 0; i < kLines; ++i) line[k][i] += pole * line[k - 1][i];
  }
  const std::size_t last = length - 1;
  for (std::size_t i = 0; i < kLines; ++i) {
    line[last][i] = pole / (pole * pole - 1) * (line[last][i] + pole * line[last - 1][i]);
  }
  for (std::size_t k = last; k-- > 0;) {
    for (std::size_t i = 0; i < kLines; ++i) line[k][i] = pole * (line[k + 1][i] - line[k][i]);
  }
}

/// Turns samples into cubic B-spline coefficients along one axis, in place.
/// Source: docs/references.md#unser1993, recursive filter with pole sqrt(3) - 2, mirrored borders.
void FilterToCoefficients(std::vector<float>& voxels, const AxisView& view) {
  if (view.length == 1) return;
  const double pole = std::sqrt(3.0) - 2;
  const double gain = (1 - pole) * (1 - 1 / pole);
  const auto length = static_cast<std::size_t>(view.length);
  const auto columns = static_cast<std::size_t>(view.outer * view.inner);
#pragma omp parallel if (view.outer * view.length * view.inner > kLargeVolume)
  {
    std::vector<Lines> line(length);
#pragma omp for
    for (std::size_t column = 0; column < columns; column += kLines) {
      std::array<float*, kLines> first{};
      for (std::size_t i = 0; i < kLines; ++i) {
        const auto c = static_cast<std::int64_t>(std::min(column + i, columns - 1));
        first[i] = voxels.data() + c / view.inner * view.length * view.inner + c % view.inner;
      }
      for (std::size_t k = 0; k < length; ++k) {
        const std::size_t offset = k * static_cast<std::size_t>(view.inner);
        for (std::size_t i = 0; i < kLines; ++i) line[k][i] = gain * first[i][offset];
      }
      FilterLines(line.data(), length);
      for (std::size_t k = 0; k < length; ++k) {
        const std::size_t offset = k * static_cast<std::size_t>(view.inner);
        for (std::size_t i = 0; i < kLines; ++i) first[i][offset] = static_cast<float>(line[k][i]);
      }
    }
  }
}

/// Per row of voxels along x: its label where it has one label only, else -1. Most rows do.
std::vector<int> LabelsOfRows(const LabelMap& labels) {
  const auto length = static_cast<std::size_t>(labels.geometry.size[0]);
  std::vector<int> result(labels.voxels.size() / length);
  for (std::size_t row = 0; row < result.size(); ++row) {
    const std::uint8_t* first = labels.voxels.data() + row * length;
    // Equal to itself moved by one voxel.
    result[row] = std::equal(first + 1, first + length, first) ? *first : -1;
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

/// As BlendTwo, of four rows.
ISOSCAN_VECTOR_CLONES
void BlendFour(float* to, const std::array<const float*, 4>& rows,
               const std::array<float, 4>& weights, std::size_t count) {
  const float *a = rows[0], *b = rows[1], *c = rows[2], *d = rows[3];
  const auto [weight_a, weight_b, weight_c, weight_d] = weights;
  for (std::size_t i = 0; i < count; ++i) {
    to[i] = weight_a * a[i] + weight_b * b[i] + weight_c * c[i] + weight_d * d[i];
  }
}

/// One axis of a separable resampling.
struct AxisSamples {
  std::vector<Taps> taps;  ///< Empty where the samples are the voxels themselves.
  std::int64_t source = 0;
  std::int64_t target = 0;
};

/// Resamples axis by axis, x first, but slice by slice: what lies between source and target stays
/// in the cache. `Count` taps a sample.
template <std::size_t Count>
class SliceSampler {
 public:
  SliceSampler(const float* source, const std::array<AxisSamples, 3>& axes)
      : source_(source),
        axes_(axes),
        row_(static_cast<std::size_t>(axes[0].target)),
        row_source_(static_cast<std::size_t>(axes[0].source)),
        slice_(row_ * static_cast<std::size_t>(axes[1].target)),
        slice_source_(row_source_ * static_cast<std::size_t>(axes[1].source)) {}

  /// Writes slice `z` of the target. Fastest for one z after the other.
  void Write(std::int64_t z, float* to) {
    if (axes_[2].taps.empty()) {
      SampleSlice(source_ + static_cast<std::size_t>(z) * slice_source_, to);
      return;
    }
    const Taps& taps = axes_[2].taps[static_cast<std::size_t>(z)];
    std::array<const float*, Count> slices{};
    for (std::size_t t = 0; t < Count; ++t) slices[t] = SampledSlice(taps.index[t]);
    Blend(to, slices, taps, slice_);
  }

 private:
  static void Blend(float* to, const std::array<const float*, Count>& rows, const Taps& taps,
                    std::size_t count) {
    if constexpr (Count == 2) {
      BlendTwo(to, rows[0], rows[1], taps.weight[0], taps.weight[1], count);
    } else {
      BlendFour(to, rows, taps.weight, count);
    }
  }

  /// A slice of the source at the target's x and y. The slices of one sample follow each other,
  /// also where they are mirrored, so that no two of them share a place.
  const float* SampledSlice(std::int64_t index) {
    const float* stored = source_ + static_cast<std::size_t>(index) * slice_source_;
    if (axes_[0].taps.empty() && axes_[1].taps.empty()) return stored;
    const auto place = static_cast<std::size_t>(index) % Count;
    if (kept_index_[place] != index) {
      kept_[place].resize(slice_);
      SampleSlice(stored, kept_[place].data());
      kept_index_[place] = index;
    }
    return kept_[place].data();
  }

  void SampleSlice(const float* stored, float* to) {
    if (axes_[1].taps.empty()) {
      SampleRows(stored, axes_[1].source, to);
      return;
    }
    if (!axes_[0].taps.empty()) {
      rows_.resize(row_ * static_cast<std::size_t>(axes_[1].source));
      SampleRows(stored, axes_[1].source, rows_.data());
      stored = rows_.data();
    }
    for (const Taps& taps : axes_[1].taps) {
      std::array<const float*, Count> rows{};
      for (std::size_t t = 0; t < Count; ++t) {
        rows[t] = stored + static_cast<std::size_t>(taps.index[t]) * row_;
      }
      Blend(to, rows, taps, row_);
      to += row_;
    }
  }

  void SampleRows(const float* stored, std::int64_t rows, float* to) {
    if (axes_[0].taps.empty()) {
      std::copy(stored, stored + static_cast<std::size_t>(rows) * row_, to);
      return;
    }
    for (std::int64_t row = 0; row < rows; ++row, stored += row_source_) {
      for (const Taps& taps : axes_[0].taps) {
        float sum = taps.weight[0] * stored[taps.index[0]];
        for (std::size_t t = 1; t < Count; ++t) sum += taps.weight[t] * stored[taps.index[t]];
        *to++ = sum;
      }
    }
  }

  const float* source_;
  const std::array<AxisSamples, 3>& axes_;
  std::size_t row_;
  std::size_t row_source_;
  std::size_t slice_;
  std::size_t slice_source_;
  std::vector<float> rows_;
  std::array<std::vector<float>, Count> kept_;
  std::array<std::int64_t, Count> kept_index_ = Nowhere();

  static std::array<std::int64_t, Count> Nowhere() {
    std::array<std::int64_t, Count> index{};
    index.fill(-1);
    return index;
  }
};

template <std::size_t Count>
void SampleSlices(const std::vector<float>& source, const std::array<AxisSamples, 3>& axes,
                  std::vector<float>& target) {
  const std::int64_t slices = axes[2].target;
  const std::int64_t slice = axes[0].target * axes[1].target;
  target.resize(static_cast<std::size_t>(slices * slice));
#pragma omp parallel if (slices * slice > kLargeVolume)
  {
    SliceSampler<Count> sampler(source.data(), axes);
#pragma omp for schedule(static)
    for (std::int64_t z = 0; z < slices; ++z) sampler.Write(z, target.data() + z * slice);
  }
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
  const bool spline = interpolation == ImageInterpolation::kBSpline;
  const std::array<std::int64_t, 3>& size = volume.geometry.size;
  std::array<AxisSamples, 3> axes;
  std::vector<float> coefficients;
  const std::vector<float>* source = &volume.voxels;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    axes[axis] = {.taps = {}, .source = size[axis], .target = target.size[axis]};
    const std::vector<double> coordinates = SampleCoordinates(volume.geometry, target, axis);
    if (SharesSamples(volume.geometry, target, axis, coordinates)) continue;
    axes[axis].taps =
        spline ? CubicTaps(coordinates, size[axis]) : LinearTaps(coordinates, size[axis]);
    if (!spline) continue;
    if (source != &coefficients) coefficients = volume.voxels;
    source = &coefficients;
    FilterToCoefficients(coefficients, ViewAlong(size, axis));
  }
  Volume result{.geometry = target, .voxels = {}};
  if (spline) {
    SampleSlices<4>(*source, axes, result.voxels);
  } else {
    SampleSlices<2>(*source, axes, result.voxels);
  }
  return result;
}

LabelMap Resample(const LabelMap& labels, const Geometry& target) {
  assert(SharesDirection(labels.geometry, target));
  const std::array<std::vector<Taps>, 3> taps = LinearTapsOf(labels.geometry, target);
  const std::array<std::int64_t, 3>& from = labels.geometry.size;
  const std::vector<int> label_of_row = LabelsOfRows(labels);
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
      std::array<int, 4> row_label{};
      for (std::size_t corner = 0; corner < 4; ++corner) {
        const std::int64_t row = along_z.index[corner >> 1] * from[1] + along_y.index[corner & 1];
        rows[corner] = labels.voxels.data() + row * from[0];
        row_weight[corner] = along_z.weight[corner >> 1] * along_y.weight[corner & 1];
        row_label[corner] = label_of_row[static_cast<std::size_t>(row)];
      }
      std::uint8_t* to = result.voxels.data() + (z * target.size[1] + y) * target.size[0];
      if (row_label[0] >= 0 && std::count(row_label.begin(), row_label.end(), row_label[0]) == 4) {
        std::fill(to, to + target.size[0], static_cast<std::uint8_t>(row_label[0]));
        continue;
      }
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

}  // namespace isoscan
