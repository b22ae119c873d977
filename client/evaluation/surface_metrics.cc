#include "client/evaluation/surface_metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <exception>
#include <limits>
#include <utility>

#include "client/evaluation/label_extents.h"
#include "client/evaluation/nearest_points.h"
#include "client/evaluation/surface_areas.h"
#include <omp.h>

namespace isoscan {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

constexpr double kPercentile = 0.95;

/// See ScoreLabels().
constexpr double kToleranceSlack = 1 + 1e-6;

/// Where a share of a surface falls between two elements but for rounding, it is the nearer one's.
constexpr double kShareSlack = 1 - 1e-12;

/// Equal parts of the greatest distance, one of which has the percentile.
constexpr std::size_t kBuckets = 4096;

/// How far one surface lies from the other.
struct Apart {
  double weight = 0;  ///< Area in mm2, or voxels.
  double moment = 0;  ///< Sum of weight * distance.
  double greatest_mm = 0;
  double percentile_mm = 0;
  std::vector<double> within;  ///< Weight within each tolerance.
};

/// Least distance that a share of the surface's area does not exceed.
double AreaPercentile(const std::vector<double>& mm, const std::vector<double>& areas, double area,
                      double greatest_mm) {
  if (greatest_mm == 0) return 0;
  const double buckets_per_mm = static_cast<double>(kBuckets) / greatest_mm;
  const auto bucket_of = [&](double distance) {
    return std::min(static_cast<std::size_t>(distance * buckets_per_mm), kBuckets - 1);
  };
  std::vector<double> area_of(kBuckets);
  for (std::size_t i = 0; i < mm.size(); ++i) area_of[bucket_of(mm[i])] += areas[i];
  const double wanted = kPercentile * area * kShareSlack;
  std::size_t bucket = 0;
  double below = 0;
  for (; bucket + 1 < kBuckets && below + area_of[bucket] < wanted; ++bucket) {
    below += area_of[bucket];
  }
  std::vector<std::pair<double, double>> members;
  for (std::size_t i = 0; i < mm.size(); ++i) {
    if (bucket_of(mm[i]) == bucket) members.emplace_back(mm[i], areas[i]);
  }
  std::sort(members.begin(), members.end());
  for (const auto& [distance, member_area] : members) {
    below += member_area;
    if (below >= wanted) return distance;
  }
  return members.empty() ? greatest_mm : members.back().first;
}

/// Linear between the two distances that the rank falls between. Reorders `mm`.
double VoxelPercentile(std::vector<double>& mm) {
  const double rank = kPercentile * static_cast<double>(mm.size() - 1);
  const auto lower = mm.begin() + static_cast<std::ptrdiff_t>(rank);
  std::nth_element(mm.begin(), lower, mm.end());
  const double share = rank - std::floor(rank);
  if (share == 0) return *lower;
  return *lower + share * (*std::min_element(lower + 1, mm.end()) - *lower);
}

Apart Measure(const Surface& surface, std::vector<double> squared_mm,
              const std::array<double, 256>* areas, const std::vector<double>& tolerances_mm) {
  Apart apart;
  std::vector<double>& mm = squared_mm;
  for (double& distance : mm) distance = std::sqrt(distance);
  std::vector<double> weights(areas != nullptr ? mm.size() : 0);
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = (*areas)[surface.points[i].code];
  for (std::size_t i = 0; i < mm.size(); ++i) {
    const double weight = areas != nullptr ? weights[i] : 1;
    apart.weight += weight;
    apart.moment += weight * mm[i];
    apart.greatest_mm = std::max(apart.greatest_mm, mm[i]);
  }
  for (const double tolerance : tolerances_mm) {
    double within = 0;
    for (std::size_t i = 0; i < mm.size(); ++i) {
      const double weight = areas != nullptr ? weights[i] : 1;
      within += mm[i] <= tolerance * kToleranceSlack ? weight : 0;
    }
    apart.within.push_back(within);
  }
  apart.percentile_mm = areas != nullptr
                            ? AreaPercentile(mm, weights, apart.weight, apart.greatest_mm)
                            : VoxelPercentile(mm);
  return apart;
}

/// Distances of a label that both maps have.
void MeasureSurfaces(const LabelMap& reference, const LabelMap& predicted, std::uint8_t label,
                     const VoxelBox& box, const SurfaceOptions& options, LabelScore& score) {
  const std::array<double, 3>& spacing_mm = reference.geometry.spacing_mm;
  const NearestPoints nearest(spacing_mm);
  std::array<Surface, 2> surfaces{
      SurfaceOf(VoxelsOf(reference, label, box), options.definition, nearest.margin()),
      SurfaceOf(VoxelsOf(predicted, label, box), options.definition, nearest.margin())};
  std::array<std::vector<double>, 2> squared_mm{nearest.SquaredDistances(surfaces[0], surfaces[1]),
                                                nearest.SquaredDistances(surfaces[1], surfaces[0])};

  const bool elements = options.definition == SurfaceDefinition::kElements;
  const std::array<double, 256> areas = SurfaceAreas(spacing_mm);
  std::array<Apart, 2> apart;
  std::exception_ptr failure;
#pragma omp parallel for if (surfaces[0].points.size() + surfaces[1].points.size() > 10'000)
  for (std::size_t side = 0; side < 2; ++side) {
    try {
      apart[side] = Measure(surfaces[side], std::move(squared_mm[side]),
                            elements ? &areas : nullptr, options.tolerances_mm);
    } catch (...) {
#pragma omp critical(isoscan_surface_metrics)
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);

  const double weight = apart[0].weight + apart[1].weight;
  score.hd_mm = std::max(apart[0].greatest_mm, apart[1].greatest_mm);
  score.hd95_mm = std::max(apart[0].percentile_mm, apart[1].percentile_mm);
  score.assd_mm = (apart[0].moment + apart[1].moment) / weight;
  for (std::size_t i = 0; i < options.tolerances_mm.size(); ++i) {
    score.nsd[i] = (apart[0].within[i] + apart[1].within[i]) / weight;
  }
}

LabelScore ScoreLabel(const LabelMap& reference, const LabelMap& predicted, std::uint8_t label,
                      const LabelExtent& extent, const SurfaceOptions& options) {
  const Geometry& grid = reference.geometry;
  LabelScore score;
  score.overlap = extent.overlap;
  score.voxel_ml = grid.spacing_mm[0] * grid.spacing_mm[1] * grid.spacing_mm[2] / 1000;
  score.nsd.resize(options.tolerances_mm.size());
  if (score.measured()) {
    MeasureSurfaces(reference, predicted, label, extent.box, options, score);
    return score;
  }
  if (score.outcome() == ScoreOutcome::kBothEmpty) return BothEmptyScore(options);
  score.hd_mm = score.hd95_mm = score.assd_mm =
      std::hypot(static_cast<double>(grid.size[0]) * grid.spacing_mm[0],
                 static_cast<double>(grid.size[1]) * grid.spacing_mm[1],
                 static_cast<double>(grid.size[2]) * grid.spacing_mm[2]);
  return score;
}

}  // namespace

ScoreOutcome LabelScore::outcome() const {
  if (overlap.reference_voxels > 0) {
    return overlap.common_voxels > 0 ? ScoreOutcome::kScored : ScoreOutcome::kMiss;
  }
  return overlap.predicted_voxels > 0 ? ScoreOutcome::kFalseAlarm : ScoreOutcome::kBothEmpty;
}

double LabelScore::reference_ml() const {
  return voxel_ml * static_cast<double>(overlap.reference_voxels);
}

double LabelScore::predicted_ml() const {
  return voxel_ml * static_cast<double>(overlap.predicted_voxels);
}

double LabelScore::volume_error_ml() const {
  return outcome() == ScoreOutcome::kBothEmpty ? kNaN : predicted_ml() - reference_ml();
}

double LabelScore::relative_volume_error() const {
  if (overlap.reference_voxels == 0) return kNaN;
  return static_cast<double>(overlap.predicted_voxels - overlap.reference_voxels) /
         static_cast<double>(overlap.reference_voxels);
}

LabelScore BothEmptyScore(const SurfaceOptions& options) {
  LabelScore score;
  score.hd_mm = score.hd95_mm = score.assd_mm = kNaN;
  score.nsd.assign(options.tolerances_mm.size(), kNaN);
  return score;
}

std::vector<LabelScore> ScoreLabels(const LabelMap& reference, const LabelMap& predicted,
                                    std::int64_t labels, const SurfaceOptions& options) {
  const std::vector<LabelExtent> extents = FindExtents(reference, predicted);
  std::vector<LabelScore> scores(static_cast<std::size_t>(labels));
  // Many labels go side by side, few one after the other with all threads on each.
  const std::int64_t present =
      std::count_if(extents.begin(), extents.end(), [](const LabelExtent& extent) {
        return extent.overlap.reference_voxels > 0 && extent.overlap.predicted_voxels > 0;
      });
  const bool many = present >= 2 * std::int64_t{omp_get_max_threads()};
  std::exception_ptr failure;
#pragma omp parallel for schedule(dynamic, 1) if (many)
  for (std::size_t i = 0; i < scores.size(); ++i) {
    try {
      scores[i] = ScoreLabel(reference, predicted, static_cast<std::uint8_t>(i + 1), extents[i + 1],
                             options);
    } catch (...) {
#pragma omp critical(isoscan_surface_metrics)
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
  return scores;
}

}  // namespace isoscan
