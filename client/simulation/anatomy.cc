#include "client/simulation/anatomy.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <utility>

#include "absl/status/status.h"

#include "client/imaging/image_file.h"
#include "client/imaging/orientation.h"
#include "client/simulation/tissue_maps.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

/// Kept around the field of view.
constexpr double kSurroundingsMm = 30;

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
      const auto last = static_cast<double>(size_[axis] - 4);
      const double at = std::clamp(position_mm[axis] / spacing_mm_, 0.0, last + 1);
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

/// The eight voxels around a position and their trilinear weights; the border continues outside.
struct Corners {
  std::array<std::size_t, 8> index{};
  std::array<float, 8> weight{};
};

Corners CornersAt(const Size& size, const Point& at) {
  Size low{};
  Size step{};
  Point part{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const double inside = std::clamp(at[axis], 0.0, static_cast<double>(size[axis] - 1));
    low[axis] = static_cast<std::int64_t>(inside);
    step[axis] = low[axis] + 1 < size[axis] ? 1 : 0;
    part[axis] = inside - static_cast<double>(low[axis]);
  }
  Corners corners;
  for (std::size_t corner = 0; corner < 8; ++corner) {
    Size voxel = low;
    double weight = 1;
    for (std::size_t axis = 0; axis < 3; ++axis) {
      const bool upper = ((corner >> axis) & 1) != 0;
      voxel[axis] += upper ? step[axis] : 0;
      weight *= upper ? part[axis] : 1 - part[axis];
    }
    corners.index[corner] = IndexOf(size, voxel[0], voxel[1], voxel[2]);
    corners.weight[corner] = static_cast<float>(weight);
  }
  return corners;
}

/// From a position on one grid, in voxels, to the same place on another: matrix * x + offset.
struct GridMap {
  std::array<Point, 3> matrix{};
  Point offset{};

  GridMap(const Geometry& from, const Geometry& to) {
    for (std::size_t row = 0; row < 3; ++row) {
      for (std::size_t k = 0; k < 3; ++k) {
        const double cosine = to.direction[k][row] / to.spacing_mm[row];
        offset[row] += cosine * (from.origin_mm[k] - to.origin_mm[k]);
        for (std::size_t axis = 0; axis < 3; ++axis) {
          matrix[row][axis] += cosine * from.direction[k][axis] * from.spacing_mm[axis];
        }
      }
    }
  }

  Point Turned(const Point& x) const {
    Point result{};
    for (std::size_t row = 0; row < 3; ++row) {
      for (std::size_t axis = 0; axis < 3; ++axis) result[row] += matrix[row][axis] * x[axis];
    }
    return result;
  }

  Point operator()(const Point& x) const {
    Point result = Turned(x);
    for (std::size_t row = 0; row < 3; ++row) result[row] += offset[row];
    return result;
  }
};

/// Where along one axis a voxel collects signal, in voxels from its centre, and how much there.
struct Profile {
  std::vector<double> position;
  std::vector<double> weight;
};

/// A box of `width` voxels, blurred by a Gaussian of `sigma` voxels; at most `gap` between samples.
Profile ProfileOf(double width, double sigma, double gap) {
  constexpr int kFewest = 3;
  constexpr int kMost = 15;
  const double span = width + 4 * sigma;
  const int count = std::clamp(static_cast<int>(std::ceil(span / gap)), kFewest, kMost);
  const auto below = [sigma](double x) {
    if (sigma > 0) return std::erfc(-x / (sigma * std::numbers::sqrt2)) / 2;
    return x < 0 ? 0.0 : 1.0;
  };
  Profile profile;
  double sum = 0;
  for (int i = 0; i < count; ++i) {
    const double at = ((i + 0.5) / count - 0.5) * span;
    profile.position.push_back(at);
    profile.weight.push_back(below(at + width / 2) - below(at - width / 2));
    sum += profile.weight.back();
  }
  for (double& weight : profile.weight) weight /= sum;
  return profile;
}

struct Sample {
  Point offset{};  // In voxels of the anatomy.
  float weight = 0;
};

std::vector<Sample> SamplesOf(const Sampling& sampling, const Geometry& anatomy,
                              const GridMap& to_anatomy) {
  constexpr double kFwhmPerSigma = 2.3548200450309493;  // 2 sqrt(2 ln 2)
  const double finest = *std::min_element(anatomy.spacing_mm.begin(), anatomy.spacing_mm.end());
  std::array<Profile, 3> profiles;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const double spacing = sampling.grid.spacing_mm[axis];
    const bool slice = axis == 2;
    const double width = slice && sampling.thickness_mm > 0 ? sampling.thickness_mm / spacing : 1;
    const double sigma = slice ? 0 : sampling.in_plane_fwhm_mm / kFwhmPerSigma / spacing;
    profiles[axis] = ProfileOf(width, sigma, finest / spacing);
  }
  std::vector<Sample> samples;
  for (std::size_t k = 0; k < profiles[2].position.size(); ++k) {
    for (std::size_t j = 0; j < profiles[1].position.size(); ++j) {
      for (std::size_t i = 0; i < profiles[0].position.size(); ++i) {
        samples.push_back(
            {.offset = to_anatomy.Turned(
                 {profiles[0].position[i], profiles[1].position[j], profiles[2].position[k]}),
             .weight = static_cast<float>(profiles[0].weight[i] * profiles[1].weight[j] *
                                          profiles[2].weight[k])});
      }
    }
  }
  return samples;
}

/// The box around all labels, with a margin, inside the grid.
Geometry BoxAroundLabels(const LabelMap& labels, double margin_mm) {
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
  Geometry box = labels.geometry;
  Point corner{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const auto margin =
        static_cast<std::int64_t>(std::ceil(margin_mm / labels.geometry.spacing_mm[axis]));
    low[axis] = std::max<std::int64_t>(0, low[axis] - margin);
    corner[axis] = static_cast<double>(low[axis]);
    box.size[axis] = std::min(size[axis] - 1, high[axis] + margin) - low[axis] + 1;
  }
  box.origin_mm = PhysicalPoint(labels.geometry, corner);
  return box;
}

/// The voxels of `box`, which lies in a grid of voxels and has its axes.
template <typename Voxel>
std::vector<Voxel> Cropped(const std::vector<Voxel>& voxels, const Geometry& grid,
                           const Geometry& box) {
  const Point corner = GridMap(box, grid)({0, 0, 0});
  const auto low = [&corner](std::size_t axis) { return std::llround(corner[axis]); };
  std::vector<Voxel> cropped;
  cropped.reserve(static_cast<std::size_t>(box.voxels()));
  for (std::int64_t z = 0; z < box.size[2]; ++z) {
    for (std::int64_t y = 0; y < box.size[1]; ++y) {
      const auto row = voxels.begin() + static_cast<std::ptrdiff_t>(
                                            IndexOf(grid.size, low(0), low(1) + y, low(2) + z));
      cropped.insert(cropped.end(), row, row + static_cast<std::ptrdiff_t>(box.size[0]));
    }
  }
  return cropped;
}

absl::StatusOr<LabelMap> ReadAtlas(const std::filesystem::path& atlas,
                                   const std::vector<AtlasLabel>& labels) {
  if (labels.empty() || labels.size() > 255) {
    return absl::InvalidArgumentError(
        fmt::format("a label map has 1 to 255 labels, not {}", labels.size()));
  }
  ASSIGN_OR_RETURN(const Volume values, ReadLabelValues(atlas));
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
  return ToCanonical(mapped);
}

absl::StatusOr<Volume> ReadHead(const std::filesystem::path& file, const Geometry& grid) {
  ASSIGN_OR_RETURN(const Volume stored, ReadVolume(file));
  Volume head = ToCanonical(stored);
  if (SameGrid(head.geometry, grid)) return head;
  return absl::InvalidArgumentError(
      fmt::format("the atlas lies on another grid than the image {}; resample it first",
                  file.filename().string()));
}

/// Makes every labelled structure one homogeneous mix of grey and white matter.
void AgreeWithLabels(const LabelMap& labels, std::vector<TissueShares>& tissue) {
  constexpr std::size_t kWhite = isoscan::IndexOf(Tissue::kWhite);
  std::array<double, 256> white{};
  std::array<std::int64_t, 256> voxels{};
  for (std::size_t i = 0; i < tissue.size(); ++i) {
    white[labels.voxels[i]] += tissue[i][kWhite];
    ++voxels[labels.voxels[i]];
  }
  for (std::size_t i = 0; i < tissue.size(); ++i) {
    const std::uint8_t label = labels.voxels[i];
    if (label == 0) continue;
    tissue[i] = {};
    tissue[i][kWhite] = static_cast<float>(white[label] / static_cast<double>(voxels[label]));
    tissue[i][isoscan::IndexOf(Tissue::kGrey)] = 1 - tissue[i][kWhite];
  }
}

}  // namespace

absl::StatusOr<Anatomy> LoadAnatomy(const AnatomyFiles& files,
                                    const std::vector<AtlasLabel>& labels, double margin_mm) {
  ASSIGN_OR_RETURN(const LabelMap whole, ReadAtlas(files.atlas, labels));
  const Geometry& grid = whole.geometry;
  const Geometry kept = BoxAroundLabels(whole, margin_mm + kSurroundingsMm);
  Anatomy anatomy{.field_of_view = BoxAroundLabels(whole, margin_mm),
                  .labels = {.geometry = kept, .voxels = Cropped(whole.voxels, grid, kept)},
                  .image = {.geometry = kept, .voxels = {}},
                  .tissue = {}};
  if (!files.image.empty()) {
    ASSIGN_OR_RETURN(const Volume head, ReadHead(files.image, grid));
    anatomy.image.voxels = Cropped(head.voxels, grid, kept);
    if (!files.brain.empty() && files.tissue.empty()) {
      ASSIGN_OR_RETURN(const Volume brain, ReadHead(files.brain, grid));
      ASSIGN_OR_RETURN(const HeadClasses classes, ClassifyHead(head, brain));
      const std::vector<float> in_brain = Cropped(brain.voxels, grid, kept);
      anatomy.tissue.reserve(in_brain.size());
      for (std::size_t i = 0; i < in_brain.size(); ++i) {
        anatomy.tissue.push_back(classes.SharesOf(anatomy.image.voxels[i], in_brain[i] > 0));
      }
      AgreeWithLabels(anatomy.labels, anatomy.tissue);
    }
  }
  if (!files.tissue.empty()) {
    ASSIGN_OR_RETURN(const std::vector<TissueShares> tissue, ReadTissue(files.tissue, grid));
    anatomy.tissue = Cropped(tissue, grid, kept);
  }
  return anatomy;
}

Anatomy MakePatient(const Anatomy& anatomy, const Sampling& sampling,
                    const PatientVariation& variation, RandomStream random) {
  const Geometry& from = anatomy.labels.geometry;
  const Geometry& to = sampling.grid;
  const GridMap to_anatomy(to, from);
  const std::vector<Sample> samples = SamplesOf(sampling, from, to_anatomy);
  Point extent_mm{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    extent_mm[axis] = static_cast<double>(from.size[axis]) * from.spacing_mm[axis];
  }
  const SmoothDisplacement displacement(extent_mm, variation, random);

  const auto voxels = static_cast<std::size_t>(to.voxels());
  const bool has_image = !anatomy.image.voxels.empty();
  const bool has_tissue = !anatomy.tissue.empty();
  Anatomy patient{.field_of_view = to,
                  .labels = {.geometry = to, .voxels = std::vector<std::uint8_t>(voxels)},
                  .image = {.geometry = to, .voxels = std::vector<float>(has_image ? voxels : 0)},
                  .tissue = std::vector<TissueShares>(has_tissue ? voxels : 0)};
  std::vector<float> texture(patient.tissue.size());
  random.FillNormal(texture, variation.texture);

#pragma omp parallel for schedule(static)
  for (std::int64_t z = 0; z < to.size[2]; ++z) {
    for (std::int64_t y = 0; y < to.size[1]; ++y) {
      for (std::int64_t x = 0; x < to.size[0]; ++x) {
        // The field hardly changes inside a voxel: one displacement serves all its samples.
        Point centre =
            to_anatomy({static_cast<double>(x), static_cast<double>(y), static_cast<double>(z)});
        Point centre_mm{};
        for (std::size_t axis = 0; axis < 3; ++axis) {
          centre_mm[axis] = (centre[axis] + 0.5) * from.spacing_mm[axis];
        }
        const Point moved_mm = displacement.At(centre_mm);
        for (std::size_t axis = 0; axis < 3; ++axis) {
          centre[axis] += moved_mm[axis] / from.spacing_mm[axis];
        }

        const std::size_t index = IndexOf(to.size, x, y, z);
        float intensity = 0;
        TissueShares shares{};
        std::array<float, 256> votes{};
        for (const Sample& sample : samples) {
          const Corners corners =
              CornersAt(from.size, {centre[0] + sample.offset[0], centre[1] + sample.offset[1],
                                    centre[2] + sample.offset[2]});
          for (std::size_t corner = 0; corner < 8; ++corner) {
            const float weight = sample.weight * corners.weight[corner];
            const std::size_t voxel = corners.index[corner];
            votes[anatomy.labels.voxels[voxel]] += weight;
            if (has_image) intensity += weight * anatomy.image.voxels[voxel];
            if (!has_tissue) continue;
            for (std::size_t tissue = 0; tissue < kTissues; ++tissue) {
              shares[tissue] += weight * anatomy.tissue[voxel][tissue];
            }
          }
        }
        patient.labels.voxels[index] =
            static_cast<std::uint8_t>(std::max_element(votes.begin(), votes.end()) - votes.begin());
        if (has_image) patient.image.voxels[index] = intensity;
        if (!has_tissue) continue;
        for (float& share : shares) share *= 1 + texture[index];
        patient.tissue[index] = shares;
      }
    }
  }
  return patient;
}

TissueTable MakeTissues(FieldStrength field, const PatientVariation& variation,
                        RandomStream random) {
  TissueTable tissues = TissuesAt(field);
  const auto factor = [&] { return std::max(0.1, 1 + variation.relaxation * random.Normal()); };
  for (TissueParameters& tissue : tissues) {
    tissue.t1_ms *= factor();
    const double transverse = factor();
    tissue.t2_ms *= transverse;
    tissue.t2_star_ms *= transverse;
    tissue.proton_density *= factor();
  }
  return tissues;
}

}  // namespace isoscan
