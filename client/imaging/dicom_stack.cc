#include "client/imaging/dicom_stack.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <numbers>
#include <string>
#include <utility>

namespace isoscan {
namespace {

using Vector = std::array<double, 3>;

constexpr double kGreatestAngle = 0.1 * std::numbers::pi / 180;  ///< Between parallel slices.
constexpr double kSamePlaceMm = 0.01;
constexpr double kGapTolerance = 0.01;  ///< Of the spacing.
/// Scouts have few slices in each of their directions; a scan has more, or a series of its own.
constexpr std::size_t kLocaliserSlices = 30;

double Dot(const Vector& a, const Vector& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
double Length(const Vector& a) { return std::sqrt(Dot(a, a)); }
Vector Minus(const Vector& a, const Vector& b) { return {a[0] - b[0], a[1] - b[1], a[2] - b[2]}; }
Vector Scaled(const Vector& a, double factor) {
  return {a[0] * factor, a[1] * factor, a[2] * factor};
}
Vector Cross(const Vector& a, const Vector& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}
double Degrees(double radians) { return radians * 180 / std::numbers::pi; }

std::string Name(const DicomSlice& slice) {
  const std::string file = slice.file.filename().string();
  return slice.frame == 0 ? file : fmt::format("{} (frame {})", file, slice.frame + 1);
}

bool SameDirection(const PlaneAxes& left, const PlaneAxes& right) {
  return Length(Minus(left[0], right[0])) <= kGreatestAngle &&
         Length(Minus(left[1], right[1])) <= kGreatestAngle;
}

/// A series of so many directions is no scan; comparing on would take the square of their number.
constexpr std::size_t kMostDirections = 64;

std::vector<std::vector<DicomPlane>> ByDirection(std::vector<DicomPlane> planes) {
  std::vector<std::vector<DicomPlane>> directions;
  for (DicomPlane& plane : planes) {
    const auto same = std::find_if(directions.begin(), directions.end(),
                                   [&plane](const std::vector<DicomPlane>& direction) {
                                     return SameDirection(direction.front().axes, plane.axes);
                                   });
    if (same != directions.end()) {
      same->push_back(std::move(plane));
    } else if (directions.size() == kMostDirections) {
      directions.back().push_back(std::move(plane));  // Refused below, whatever it holds.
    } else {
      directions.push_back({std::move(plane)});
    }
  }
  return directions;
}

/// What is wrong when one series has slices in several directions; none when there is a scan among
/// them.
std::optional<DicomRefusal> RefusalOf(const std::vector<std::vector<DicomPlane>>& directions) {
  std::size_t greatest = 0;
  double least_angle = 180;
  double most_angle = 0;
  for (const std::vector<DicomPlane>& planes : directions) {
    greatest = std::max(greatest, planes.size());
    const double angle = Degrees(std::acos(
        std::min(1.0, std::abs(Dot(directions.front().front().axes[2], planes.front().axes[2])))));
    most_angle = std::max(most_angle, angle);
    if (&planes != &directions.front()) least_angle = std::min(least_angle, angle);
  }
  const bool too_many = directions.size() == kMostDirections;
  if (!too_many && greatest >= kLocaliserSlices && least_angle > 20) return std::nullopt;
  if (!too_many && least_angle > 20) {
    std::string counts;
    for (const auto& planes : directions) {
      counts += fmt::format("{}{}", counts.empty() ? "" : " + ", planes.size());
    }
    return DicomRefusal{
        DicomFault::kLocaliser,
        fmt::format("they are a localiser: {} slices in {} directions", counts, directions.size())};
  }
  return DicomRefusal{
      DicomFault::kNotParallel,
      fmt::format("their slices are not parallel: {} directions, up to {:.3g} degrees "
                  "apart, and {:.1f} are allowed; only parallel slices make a grid",
                  directions.size(), most_angle, Degrees(kGreatestAngle))};
}

/// How many slices lack if every gap is a whole number of the usual gap, or else, where at least
/// three gaps have it, of the smallest; 0 when neither is so.
std::int64_t MissingSlices(const std::vector<double>& gaps, const std::vector<double>& sorted) {
  const auto missing = [&gaps](double unit_mm) -> std::int64_t {
    std::int64_t lacking = 0;
    for (const double gap : gaps) {
      const double slices = std::round(gap / unit_mm);
      if (slices < 1 || slices > 1e6 || std::abs(gap / unit_mm - slices) > kGapTolerance * slices) {
        return 0;
      }
      lacking += static_cast<std::int64_t>(slices) - 1;
    }
    return lacking;
  };
  if (const std::int64_t lacking = missing(sorted[(sorted.size() - 1) / 2]); lacking > 0) {
    return lacking;
  }
  const bool repeated = sorted.size() > 2 && sorted[2] <= sorted[0] * (1 + kGapTolerance);
  return repeated ? missing(sorted[0]) : 0;
}

/// The distance of neighbours, of planes that are sorted along their normal.
std::variant<double, DicomRefusal> GapOf(const std::vector<DicomPlane>& planes,
                                         const std::array<double, 2>& spacing_mm) {
  const PlaneAxes& axes = planes.front().axes;
  const auto place = [&axes](const DicomPlane& plane) { return Dot(plane.position_mm, axes[2]); };

  std::vector<std::size_t> starts;  // Of each place, its first plane.
  for (std::size_t i = 0; i < planes.size(); ++i) {
    if (i == 0 || place(planes[i]) - place(planes[i - 1]) > kSamePlaceMm) starts.push_back(i);
  }
  const std::size_t places = starts.size();
  if (places < planes.size()) {
    std::size_t doubled = 0;
    std::size_t example = 0;
    bool equal = true;
    const std::size_t first_count = places > 1 ? starts[1] : planes.size();
    for (std::size_t i = 0; i < places; ++i) {
      const std::size_t count = (i + 1 < places ? starts[i + 1] : planes.size()) - starts[i];
      if (count > 1 && doubled++ == 0) example = starts[i];
      equal = equal && count == first_count;
    }
    if (equal) {
      return DicomRefusal{
          DicomFault::kManyVolumes,
          fmt::format("they are {} volumes of {} slices (4D: a time series, diffusion, or "
                      "several reconstructions): Isoscan reads one volume; put the files "
                      "of one volume into a folder of its own",
                      first_count, places)};
    }
    return DicomRefusal{
        DicomFault::kDuplicateSlices,
        fmt::format("{} of their {} places hold more than one slice, such as {} and {} at {:.2f} "
                    "mm: remove the repeated ones",
                    doubled, places, Name(planes[example].slice), Name(planes[example + 1].slice),
                    place(planes[example]))};
  }
  if (places == 1) {
    return DicomRefusal{
        DicomFault::kSingleSlice,
        "it is a single slice, whose extent along the third axis nobody knows: a volume "
        "has at least two"};
  }

  std::vector<double> gaps;
  for (std::size_t i = 1; i < planes.size(); ++i) {
    gaps.push_back(place(planes[i]) - place(planes[i - 1]));
  }
  std::vector<double> sorted = gaps;
  std::sort(sorted.begin(), sorted.end());
  // Of two gaps the smaller: a missing slice widens one.
  const double usual_mm = sorted[(sorted.size() - 1) / 2];
  const auto is_uneven = [usual_mm](double gap) {
    return std::abs(gap - usual_mm) > kGapTolerance * usual_mm;
  };
  if (const auto uneven = std::find_if(gaps.begin(), gaps.end(), is_uneven); uneven != gaps.end()) {
    const auto i = static_cast<std::size_t>(uneven - gaps.begin());
    const std::string where =
        fmt::format("{} and {} are {:.4g} mm apart, most neighbours {:.4g} mm",
                    Name(planes[i].slice), Name(planes[i + 1].slice), *uneven, usual_mm);
    if (const std::int64_t missing = MissingSlices(gaps, sorted); missing > 0) {
      return DicomRefusal{DicomFault::kMissingSlices,
                          fmt::format("{} of {} slices are missing: {}; export the series again",
                                      missing, missing + static_cast<std::int64_t>(places), where)};
    }
    return DicomRefusal{
        DicomFault::kUnequalGaps,
        fmt::format("their slices are not equally spaced, from {:.4g} to {:.4g} mm (1 % "
                    "is allowed): {}",
                    sorted.front(), sorted.back(), where)};
  }

  // Every slice must lie straight above the first one.
  const double edge_mm = std::min({spacing_mm[0], spacing_mm[1], usual_mm});
  double aside_mm = 0;
  double angle = 0;
  const DicomPlane* furthest = &planes.front();
  for (const DicomPlane& plane : planes) {
    const Vector step = Minus(plane.position_mm, planes.front().position_mm);
    const double height_mm = Dot(step, axes[2]);
    const double beside_mm = Length(Minus(step, Scaled(axes[2], height_mm)));
    if (beside_mm <= aside_mm) continue;
    aside_mm = beside_mm;
    angle = std::atan2(beside_mm, height_mm);
    furthest = &plane;
  }
  if (aside_mm > 0.25 * edge_mm || (aside_mm > 0.01 * edge_mm && angle > kGreatestAngle)) {
    return DicomRefusal{
        DicomFault::kNotParallel,
        fmt::format("their stack is sheared: {} lies {:.3g} mm beside the normal of {} "
                    "({:.3g} degrees; {:.1f} degrees and a quarter of a voxel are "
                    "allowed), as with a tilted gantry; resample it onto a rigid grid, "
                    "for example with dcm2niix",
                    Name(furthest->slice), aside_mm, Name(planes.front().slice), Degrees(angle),
                    Degrees(kGreatestAngle))};
  }
  const double extent = place(planes.back()) - place(planes.front());
  return extent / static_cast<double>(places - 1);
}

}  // namespace

std::optional<PlaneAxes> PlaneAxesOf(const std::array<double, 6>& orientation) {
  const Vector row{orientation[0], orientation[1], orientation[2]};
  const Vector column{orientation[3], orientation[4], orientation[5]};
  if (std::abs(Length(row) - 1) > 0.01 || std::abs(Length(column) - 1) > 0.01) return std::nullopt;
  const Vector x = Scaled(row, 1 / Length(row));
  const double lean = Dot(column, x);
  if (std::abs(lean) > kGreatestAngle) return std::nullopt;
  const Vector upright = Minus(column, Scaled(x, lean));
  const Vector y = Scaled(upright, 1 / Length(upright));
  return PlaneAxes{x, y, Cross(x, y)};
}

std::vector<DicomDirection> PartByDirection(std::vector<DicomPlane> planes) {
  std::vector<std::vector<DicomPlane>> directions = ByDirection(std::move(planes));
  std::vector<DicomDirection> parts;
  if (directions.size() == 1) {
    parts.push_back({.planes = std::move(directions.front()), .refusal = std::nullopt});
    return parts;
  }
  if (std::optional<DicomRefusal> refusal = RefusalOf(directions)) {
    DicomDirection& all = parts.emplace_back();
    all.refusal = std::move(refusal);
    for (std::vector<DicomPlane>& some : directions) {
      std::move(some.begin(), some.end(), std::back_inserter(all.planes));
    }
    return parts;
  }
  for (std::vector<DicomPlane>& some : directions) {
    DicomDirection& part = parts.emplace_back();
    part.planes = std::move(some);
    if (part.planes.size() >= kLocaliserSlices) continue;
    part.refusal = DicomRefusal{
        DicomFault::kLocaliser,
        fmt::format("they are a localiser: {} slices in another direction than the scan of the "
                    "same series",
                    part.planes.size())};
  }
  return parts;
}

std::variant<Geometry, DicomRefusal> StackPlanes(std::vector<DicomPlane>& planes,
                                                 const std::array<std::int64_t, 2>& size,
                                                 const std::array<double, 2>& spacing_mm) {
  const PlaneAxes axes = planes.front().axes;
  std::stable_sort(planes.begin(), planes.end(),
                   [&axes](const DicomPlane& left, const DicomPlane& right) {
                     return Dot(left.position_mm, axes[2]) < Dot(right.position_mm, axes[2]);
                   });
  std::variant<double, DicomRefusal> gap_mm = GapOf(planes, spacing_mm);
  if (auto* const refusal = std::get_if<DicomRefusal>(&gap_mm)) return std::move(*refusal);
  Geometry geometry;
  geometry.size = {size[0], size[1], std::ssize(planes)};
  geometry.spacing_mm = {spacing_mm[0], spacing_mm[1], std::get<double>(gap_mm)};
  geometry.origin_mm = planes.front().position_mm;
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t axis = 0; axis < 3; ++axis) geometry.direction[row][axis] = axes[axis][row];
  }
  return geometry;
}

}  // namespace isoscan
