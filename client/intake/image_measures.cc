#include "client/intake/image_measures.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "client/imaging/orientation.h"
#include "client/intake/picture.h"
#include "common/weights/sha256.h"

namespace isoscan {
namespace {

/// Every voxel in canonical order, row by row, without a copy of the volume.
template <typename Row>
void ForEachRow(const Volume& volume, const Geometry& canonical, Row row) {
  const CanonicalWalk walk = CanonicalWalkOf(volume.geometry);
  std::vector<float> values(static_cast<std::size_t>(canonical.size[0]));
  for (std::int64_t z = 0; z < canonical.size[2]; ++z) {
    for (std::int64_t y = 0; y < canonical.size[1]; ++y) {
      const std::int64_t first = walk.first + z * walk.step[2] + y * walk.step[1];
      for (std::size_t x = 0; x < values.size(); ++x) {
        values[x] = volume.voxels[static_cast<std::size_t>(first + static_cast<std::int64_t>(x) *
                                                                       walk.step[0])];
      }
      row(y, z, std::span<const float>(values));
    }
  }
}

/// What is told from an even sample of the voxels.
struct Levels {
  float low = 0;         ///< 0.5 percentile.
  float high = 0;        ///< 99.5 percentile.
  float background = 0;  ///< The commonest value.
  double background_share = 0;
  float air = 0;  ///< A tenth of the way from low to high.
};

Levels LevelsOf(const std::vector<float>& sorted) {
  const auto at = [&sorted](double fraction) {
    return sorted[static_cast<std::size_t>(fraction * static_cast<double>(sorted.size() - 1))];
  };
  Levels levels{.low = at(0.005), .high = at(0.995)};
  std::size_t longest = 0;
  for (std::size_t first = 0; first < sorted.size();) {
    std::size_t end = first;
    while (end < sorted.size() && sorted[end] == sorted[first]) ++end;
    if (end - first > longest) {
      longest = end - first;
      levels.background = sorted[first];
    }
    first = end;
  }
  levels.background_share = static_cast<double>(longest) / static_cast<double>(sorted.size());
  levels.air = levels.low + 0.1f * (levels.high - levels.low);
  return levels;
}

std::vector<float> SortedSample(const std::vector<float>& voxels) {
  constexpr std::size_t kSample = 1 << 16;
  const std::size_t stride = voxels.size() / kSample | 1;  // Odd: no grid's own period.
  std::vector<float> sample;
  sample.reserve(voxels.size() / stride + 1);
  for (std::size_t i = 0; i < voxels.size(); i += stride) sample.push_back(voxels[i]);
  std::sort(sample.begin(), sample.end());
  return sample;
}

/// Background that was set to one exact value, by skull stripping, defacing or the scanner.
constexpr double kExactBackground = 0.2;

/// Above the air, or, where the background is no dark value (an image that was inverted inside its
/// mask), not background.
bool IsInside(float value, const Levels& levels) {
  const bool exact = levels.background_share >= kExactBackground;
  return exact && levels.background > levels.air ? value != levels.background : value > levels.air;
}

std::vector<double> ShapeOf(const std::vector<float>& sorted, const Levels& levels) {
  std::vector<float> inside;
  for (const float value : sorted) {
    if (IsInside(value, levels)) inside.push_back(value);
  }
  std::vector<double> shape;
  if (inside.size() < 100) return shape;
  for (int percent = 5; percent <= 95; percent += 5) {
    shape.push_back(
        static_cast<double>(inside[inside.size() * static_cast<std::size_t>(percent) / 100]));
  }
  const double median = shape[shape.size() / 2];
  const double range = shape.back() - shape.front();
  if (!(range > 0)) return {};
  for (double& value : shape) value = (value - median) / range;
  return shape;
}

/// Air of each of the six faces.
class Border {
 public:
  explicit Border(const Geometry& canonical) : size_(canonical.size) {}

  void Add(std::int64_t x, std::int64_t y, std::int64_t z, bool air, bool background) {
    const std::array<std::int64_t, 3> index{x, y, z};
    for (std::size_t axis = 0; axis < 3; ++axis) {
      if (index[axis] == 0) Count(2 * axis, air, background);
      if (index[axis] == size_[axis] - 1) Count(2 * axis + 1, air, background);
    }
  }

  /// How many faces are air for at least this share.
  int FacesOfAir(double share) const {
    return static_cast<int>(std::count_if(faces_.begin(), faces_.end(), [share](const Face& face) {
      return static_cast<double>(face.air) >= share * static_cast<double>(face.voxels);
    }));
  }
  int FacesOfBackground(double share) const {
    return static_cast<int>(std::count_if(faces_.begin(), faces_.end(), [share](const Face& face) {
      return static_cast<double>(face.background) >= share * static_cast<double>(face.voxels);
    }));
  }

 private:
  struct Face {
    std::int64_t voxels = 0;
    std::int64_t air = 0;
    std::int64_t background = 0;
  };
  void Count(std::size_t face, bool air, bool background) {
    ++faces_[face].voxels;
    faces_[face].air += air ? 1 : 0;
    faces_[face].background += background ? 1 : 0;
  }

  std::array<std::int64_t, 3> size_;
  std::array<Face, 6> faces_;
};

Extent ExtentOf(const Border& border, const Levels& levels) {
  if (levels.background_share >= kExactBackground && border.FacesOfBackground(0.999) == 6) {
    return Extent::kSkullStripped;
  }
  return border.FacesOfAir(0.6) <= 2 ? Extent::kCrop : Extent::kInAir;
}

/// The box of all labelled voxels, two voxels larger on every side.
struct Box {
  std::array<std::int64_t, 3> first;
  std::array<std::int64_t, 3> end;
};

Box BoxOf(const JoinedLabels& labels, const std::array<std::int64_t, 3>& size) {
  Box box{.first = size, .end = {}};
  std::vector<std::uint8_t> slice;
  for (std::int64_t z = 0; z < size[2]; ++z) {
    labels.slices.Read(z, slice);
    auto voxel = slice.begin();
    for (std::int64_t y = 0; y < size[1]; ++y) {
      for (std::int64_t x = 0; x < size[0]; ++x, ++voxel) {
        if (*voxel == 0) continue;
        const std::array<std::int64_t, 3> index{x, y, z};
        for (std::size_t axis = 0; axis < 3; ++axis) {
          box.first[axis] = std::min(box.first[axis], index[axis]);
          box.end[axis] = std::max(box.end[axis], index[axis] + 1);
        }
      }
    }
  }
  for (std::size_t axis = 0; axis < 3; ++axis) {
    box.first[axis] = std::max<std::int64_t>(box.first[axis] - 2, 0);
    box.end[axis] = std::min(box.end[axis] + 2, size[axis]);
  }
  return box;
}

}  // namespace

bool MeasureRange(CaseSight& sight, ImageSight& image, const Volume& volume,
                  const Geometry& canonical) {
  Sha256 digest;
  digest.Update({reinterpret_cast<const char*>(canonical.size.data()), sizeof(canonical.size)});
  double sum = 0;
  double squares = 0;
  const auto shift = static_cast<double>(volume.voxels.front());
  std::int64_t not_finite = 0;
  float minimum = std::numeric_limits<float>::infinity();
  float maximum = -minimum;
  std::vector<float> hashed(static_cast<std::size_t>(canonical.size[0]));
  ForEachRow(volume, canonical, [&](std::int64_t, std::int64_t, std::span<const float> row) {
    double row_sum = 0;
    double row_squares = 0;
    for (std::size_t x = 0; x < row.size(); ++x) {
      const float value = row[x];
      hashed[x] = value + 0.0f;  // -0 is 0.
      if (!std::isfinite(value)) {
        ++not_finite;
        continue;
      }
      minimum = std::min(minimum, value);
      maximum = std::max(maximum, value);
      const double deviation = static_cast<double>(value) - shift;
      row_sum += deviation;
      row_squares += deviation * deviation;
    }
    sum += row_sum;
    squares += row_squares;
    digest.Update({reinterpret_cast<const char*>(hashed.data()), hashed.size() * sizeof(float)});
  });
  image.digest = std::move(digest).Finish();
  const auto voxels = static_cast<double>(volume.voxels.size());
  if (not_finite > 0) {
    sight.Quarantine(Fault::kNotFinite, image.file.path,
                     fmt::format("{} of {} voxels are NaN or infinite: set them to the value of "
                                 "air, or leave the case out",
                                 not_finite, volume.voxels.size()));
    return false;
  }
  image.minimum = static_cast<double>(minimum);
  image.maximum = static_cast<double>(maximum);
  image.mean = shift + sum / voxels;
  image.standard_deviation =
      std::sqrt(std::max(0.0, squares / voxels - sum / voxels * (sum / voxels)));
  // The floor of the harmonisation.
  constexpr double kRelativeFloor = 1e-6;
  if (image.standard_deviation >
      kRelativeFloor * (std::abs(image.mean) + image.maximum - image.minimum)) {
    return true;
  }
  sight.Quarantine(
      Fault::kConstant, image.file.path,
      fmt::format("constant volume: every voxel is {:g}, but for rounding", image.minimum));
  return false;
}

void MeasurePicture(ImageSight& image, const Volume& volume, const Geometry& canonical) {
  const std::vector<float> sample = SortedSample(volume.voxels);
  const Levels levels = LevelsOf(sample);
  image.background_share = levels.background_share;
  image.shape = ShapeOf(sample, levels);
  const bool exact = levels.background_share >= kExactBackground;

  PictureMaker whole(canonical.size);
  PictureMaker inside(canonical.size);
  Border border(canonical);
  ForEachRow(volume, canonical, [&](std::int64_t y, std::int64_t z, std::span<const float> row) {
    const std::size_t line = whole.AxisBlock(1, y) + whole.AxisBlock(2, z);
    const bool outer_row =
        y == 0 || z == 0 || y == canonical.size[1] - 1 || z == canonical.size[2] - 1;
    for (std::size_t x = 0; x < row.size(); ++x) {
      const float value = row[x];
      const auto column = static_cast<std::int64_t>(x);
      const std::size_t block = line + whole.AxisBlock(0, column);
      const auto clamped = static_cast<double>(std::clamp(value, levels.low, levels.high));
      whole.Add(block, clamped);
      if (IsInside(value, levels)) inside.Add(block, clamped);
      if (outer_row || x == 0 || x + 1 == row.size()) {
        const bool background = exact && value == levels.background;
        border.Add(column, y, z, background || value < levels.air, background);
      }
    }
  });
  image.picture = whole.Finish(/*least_share=*/0);
  image.inside = inside.Finish(/*least_share=*/0.25);
  image.extent = ExtentOf(border, levels);
}

void MeasureContrast(CaseSight& sight, const JoinedLabels& labels, const Volume& volume,
                     const Geometry& canonical) {
  const Box box = BoxOf(labels, canonical.size);
  std::vector<double> sums(labels.names.size() + 1);
  std::vector<std::int64_t> counts(sums.size());
  double squares = 0;
  const CanonicalWalk walk = CanonicalWalkOf(volume.geometry);
  std::vector<std::uint8_t> slice;
  for (std::int64_t z = box.first[2]; z < box.end[2]; ++z) {
    labels.slices.Read(z, slice);
    for (std::int64_t y = box.first[1]; y < box.end[1]; ++y) {
      const std::int64_t row = walk.first + z * walk.step[2] + y * walk.step[1];
      const std::int64_t place = y * canonical.size[0];
      for (std::int64_t x = box.first[0]; x < box.end[0]; ++x) {
        const std::uint8_t label = slice[static_cast<std::size_t>(place + x)];
        const double value =
            static_cast<double>(volume.voxels[static_cast<std::size_t>(row + x * walk.step[0])]) -
            sight.images.front().mean;
        sums[label] += value;
        squares += value * value;
        ++counts[label];
      }
    }
  }
  double sum = 0;
  double count = 0;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    sum += sums[i];
    count += static_cast<double>(counts[i]);
  }
  if (counts[0] == 0 || count == 0) return;
  const double deviation = std::sqrt(std::max(0.0, squares / count - sum / count * (sum / count)));
  if (!(deviation > 0)) return;
  const double surroundings = sums[0] / static_cast<double>(counts[0]);
  for (std::size_t i = 0; i < labels.names.size(); ++i) {
    if (counts[i + 1] == 0) continue;
    sight.labels[i].contrast =
        (sums[i + 1] / static_cast<double>(counts[i + 1]) - surroundings) / deviation;
  }
}

}  // namespace isoscan
