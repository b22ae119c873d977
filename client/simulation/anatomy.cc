#include "client/simulation/anatomy.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <utility>

#include "absl/status/status.h"

#include "client/imaging/image_file.h"
#include "client/imaging/orientation.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

using Point = std::array<double, 3>;  // x, y, z in voxels or millimetres, as named.
using Size = std::array<std::int64_t, 3>;

std::size_t IndexOf(const Size& size, std::int64_t x, std::int64_t y, std::int64_t z) {
  return static_cast<std::size_t>((z * size[1] + y) * size[0] + x);
}

/// A vector field over a box: uniform cubic B-spline of random control points.
class SmoothDisplacement {
 public:
  SmoothDisplacement(const Point& extent_mm, const PatientVariation& variation,
                     RandomStream& random)
      : spacing_mm_(variation.control_spacing_mm) {
    for (std::size_t axis = 0; axis < 3; ++axis) {
      // One control point before the box and two behind it: the support of a cubic spline.
      size_[axis] = static_cast<std::int64_t>(std::ceil(extent_mm[axis] / spacing_mm_)) + 4;
    }
    control_.resize(static_cast<std::size_t>(size_[0] * size_[1] * size_[2]));
    for (Point& point : control_) {
      for (double& component : point) component = variation.displacement_mm * random.Normal();
    }
  }

  Point At(const Point& position_mm) const {
    std::array<std::int64_t, 3> first{};
    std::array<std::array<double, 4>, 3> weight{};
    for (std::size_t axis = 0; axis < 3; ++axis) {
      const double at = std::max(0.0, position_mm[axis] / spacing_mm_);
      first[axis] = std::min(static_cast<std::int64_t>(at), size_[axis] - 4);
      weight[axis] = CubicBasis(at - static_cast<double>(first[axis]));
    }
    Point sum{};
    for (std::int64_t k = 0; k < 4; ++k) {
      for (std::int64_t j = 0; j < 4; ++j) {
        for (std::int64_t i = 0; i < 4; ++i) {
          const double w = weight[0][static_cast<std::size_t>(i)] *
                           weight[1][static_cast<std::size_t>(j)] *
                           weight[2][static_cast<std::size_t>(k)];
          const Point& point = control_[IndexOf(size_, first[0] + i, first[1] + j, first[2] + k)];
          for (std::size_t axis = 0; axis < 3; ++axis) sum[axis] += w * point[axis];
        }
      }
    }
    return sum;
  }

 private:
  static std::array<double, 4> CubicBasis(double t) {
    const double s = 1 - t;
    return {s * s * s / 6, (3 * t * t * t - 6 * t * t + 4) / 6, (3 * s * s * s - 6 * s * s + 4) / 6,
            t * t * t / 6};
  }

  double spacing_mm_;
  Size size_{};
  std::vector<Point> control_;
};

/// Trilinear value and nearest label at a position in voxels; the border continues outside.
class Sampler {
 public:
  explicit Sampler(const Anatomy& anatomy)
      : anatomy_(anatomy), size_(anatomy.image.geometry.size) {}

  double Value(const Point& at) const {
    Size low{};
    Size high{};
    Point part{};
    for (std::size_t axis = 0; axis < 3; ++axis) {
      const double inside = std::clamp(at[axis], 0.0, static_cast<double>(size_[axis] - 1));
      low[axis] = static_cast<std::int64_t>(inside);
      high[axis] = std::min(low[axis] + 1, size_[axis] - 1);
      part[axis] = inside - static_cast<double>(low[axis]);
    }
    const auto voxel = [&](std::int64_t x, std::int64_t y, std::int64_t z) {
      return static_cast<double>(anatomy_.image.voxels[IndexOf(size_, x, y, z)]);
    };
    const auto row = [&](std::int64_t y, std::int64_t z) {
      return std::lerp(voxel(low[0], y, z), voxel(high[0], y, z), part[0]);
    };
    const auto plane = [&](std::int64_t z) {
      return std::lerp(row(low[1], z), row(high[1], z), part[1]);
    };
    return std::lerp(plane(low[2]), plane(high[2]), part[2]);
  }

  std::uint8_t Label(const Point& at) const {
    Size nearest{};
    for (std::size_t axis = 0; axis < 3; ++axis) {
      nearest[axis] = std::clamp<std::int64_t>(std::llround(at[axis]), 0, size_[axis] - 1);
    }
    return anatomy_.labels.voxels[IndexOf(size_, nearest[0], nearest[1], nearest[2])];
  }

 private:
  const Anatomy& anatomy_;
  Size size_;
};

struct Box {
  Size low{};
  Size size{};
};

/// The box around all labels, with a margin, inside the grid.
Box BoxAroundLabels(const LabelMap& labels, double margin_mm) {
  const Size& size = labels.geometry.size;
  Size low = size;
  Size high{-1, -1, -1};
  for (std::int64_t z = 0; z < size[2]; ++z) {
    for (std::int64_t y = 0; y < size[1]; ++y) {
      for (std::int64_t x = 0; x < size[0]; ++x) {
        if (labels.voxels[IndexOf(size, x, y, z)] == 0) continue;
        const Size at{x, y, z};
        for (std::size_t axis = 0; axis < 3; ++axis) {
          low[axis] = std::min(low[axis], at[axis]);
          high[axis] = std::max(high[axis], at[axis]);
        }
      }
    }
  }
  Box box;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const auto margin =
        static_cast<std::int64_t>(std::ceil(margin_mm / labels.geometry.spacing_mm[axis]));
    box.low[axis] = std::max<std::int64_t>(0, low[axis] - margin);
    box.size[axis] = std::min(size[axis] - 1, high[axis] + margin) - box.low[axis] + 1;
  }
  return box;
}

Anatomy Crop(const Anatomy& whole, const Box& box) {
  const Geometry& from = whole.image.geometry;
  Geometry geometry = from;
  geometry.size = box.size;
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t axis = 0; axis < 3; ++axis) {
      geometry.origin_mm[row] +=
          from.direction[row][axis] * from.spacing_mm[axis] * static_cast<double>(box.low[axis]);
    }
  }
  Anatomy crop{.image = {.geometry = geometry, .voxels = {}},
               .labels = {.geometry = geometry, .voxels = {}}};
  crop.image.voxels.reserve(static_cast<std::size_t>(geometry.voxels()));
  crop.labels.voxels.reserve(static_cast<std::size_t>(geometry.voxels()));
  for (std::int64_t z = 0; z < box.size[2]; ++z) {
    for (std::int64_t y = 0; y < box.size[1]; ++y) {
      const std::size_t first = IndexOf(from.size, box.low[0], box.low[1] + y, box.low[2] + z);
      const std::size_t last = first + static_cast<std::size_t>(box.size[0]);
      crop.image.voxels.insert(crop.image.voxels.end(), &whole.image.voxels[first],
                               whole.image.voxels.data() + last);
      crop.labels.voxels.insert(crop.labels.voxels.end(), &whole.labels.voxels[first],
                                whole.labels.voxels.data() + last);
    }
  }
  return crop;
}

}  // namespace

absl::StatusOr<Anatomy> LoadAnatomy(const std::filesystem::path& image,
                                    const std::filesystem::path& atlas,
                                    const std::vector<AtlasLabel>& labels, double margin_mm) {
  ASSIGN_OR_RETURN(const Volume stored, ReadVolume(image));
  ASSIGN_OR_RETURN(const Volume values, ReadLabelValues(atlas));
  if (!SameGrid(stored.geometry, values.geometry)) {
    return absl::InvalidArgumentError(
        fmt::format("the atlas {} lies on another grid than the image {}; resample it first",
                    atlas.filename().string(), image.filename().string()));
  }
  LabelMap mapped{.geometry = values.geometry, .voxels = {}};
  mapped.voxels.resize(values.voxels.size());
  for (std::size_t label = 0; label < labels.size(); ++label) {
    std::int64_t found = 0;
    for (std::size_t i = 0; i < values.voxels.size(); ++i) {
      const auto value = static_cast<std::int64_t>(values.voxels[i]);
      if (std::find(labels[label].values.begin(), labels[label].values.end(), value) ==
          labels[label].values.end()) {
        continue;
      }
      mapped.voxels[i] = static_cast<std::uint8_t>(label + 1);
      ++found;
    }
    if (found == 0) {
      return absl::InvalidArgumentError(fmt::format("no voxel of {} has a value of the label {}",
                                                    atlas.filename().string(), labels[label].name));
    }
  }
  const Anatomy whole{.image = ToCanonical(stored), .labels = ToCanonical(mapped)};
  return Crop(whole, BoxAroundLabels(whole.labels, margin_mm));
}

Anatomy MakePatient(const Anatomy& anatomy, const PatientVariation& variation,
                    RandomStream random) {
  constexpr int kSamples = 3;  // Per axis of a voxel; odd, so that votes hardly ever tie.
  const Geometry& from = anatomy.image.geometry;
  Geometry to = from;
  Point extent_mm{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    extent_mm[axis] = static_cast<double>(from.size[axis]) * from.spacing_mm[axis];
    to.size[axis] = std::max<std::int64_t>(1, std::llround(extent_mm[axis] / variation.spacing_mm));
    to.spacing_mm[axis] = variation.spacing_mm;
    // The lower corner of the box stays where it is, so the first centre moves.
    for (std::size_t row = 0; row < 3; ++row) {
      to.origin_mm[row] +=
          from.direction[row][axis] * (variation.spacing_mm - from.spacing_mm[axis]) / 2;
    }
  }
  const SmoothDisplacement displacement(extent_mm, variation, random);
  const Sampler sampler(anatomy);

  Anatomy patient{.image = {.geometry = to, .voxels = {}},
                  .labels = {.geometry = to, .voxels = {}}};
  patient.image.voxels.resize(static_cast<std::size_t>(to.voxels()));
  patient.labels.voxels.resize(static_cast<std::size_t>(to.voxels()));
#pragma omp parallel for schedule(static)
  for (std::int64_t z = 0; z < to.size[2]; ++z) {
    for (std::int64_t y = 0; y < to.size[1]; ++y) {
      for (std::int64_t x = 0; x < to.size[0]; ++x) {
        // The field hardly changes inside a voxel: one displacement serves all its samples.
        const Size voxel{x, y, z};
        Point centre_mm{};
        for (std::size_t axis = 0; axis < 3; ++axis) {
          centre_mm[axis] = (static_cast<double>(voxel[axis]) + 0.5) * variation.spacing_mm;
        }
        const Point moved_mm = displacement.At(centre_mm);
        double sum = 0;
        std::array<int, 256> votes{};
        for (int sample = 0; sample < kSamples * kSamples * kSamples; ++sample) {
          const Size part{sample % kSamples, sample / kSamples % kSamples,
                          sample / (kSamples * kSamples)};
          Point at{};
          for (std::size_t axis = 0; axis < 3; ++axis) {
            const double offset = (static_cast<double>(part[axis]) + 0.5) / kSamples - 0.5;
            at[axis] = (centre_mm[axis] + moved_mm[axis] + offset * variation.spacing_mm) /
                           from.spacing_mm[axis] -
                       0.5;
          }
          sum += sampler.Value(at);
          ++votes[sampler.Label(at)];
        }
        const std::size_t index = IndexOf(to.size, x, y, z);
        patient.image.voxels[index] = static_cast<float>(sum / (kSamples * kSamples * kSamples));
        patient.labels.voxels[index] =
            static_cast<std::uint8_t>(std::max_element(votes.begin(), votes.end()) - votes.begin());
      }
    }
  }
  return patient;
}

}  // namespace isoscan
