#include "client/evaluation/nearest_points.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <tuple>
#include <utility>

#include "client/kernels/vector_clones.h"
#include <omp.h>

namespace isoscan {
namespace {

/// Rows that are looked at around every point, which the grid's margin makes room for.
constexpr std::size_t kRows = 256;

/// Rows that are looked at around one that has nothing in those: as far as 36 points.
constexpr std::size_t kMoreRows = 4096;

/// Points on either side that an unaligned word holds in any case.
constexpr std::int64_t kReach = 28;

/// Points that one thread takes at a time.
constexpr std::int64_t kBlock = 2048;

/// Up to here, waking another thread takes longer than the work.
constexpr std::int64_t kFewPoints = 8 * kBlock;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// What the search takes of its tables, as plain pointers for the compiler.
struct Search {
  const double* row_squared = nullptr;
  const std::int64_t* row_offset = nullptr;  ///< In bytes.
  std::size_t rows = 0;
  const double* along_x = nullptr;
};

/// Squared distance from the middle of a window of 2 kReach + 1 points, which begins in bit `shift`
/// of the byte `window`, to the nearest point in the rows around it.
inline double SearchAround(const Search& search, const unsigned char* window, unsigned shift) {
  double nearest = kInfinity;
  for (std::size_t i = 0; i < search.rows && search.row_squared[i] < nearest; ++i) {
    std::uint64_t points;
    std::memcpy(&points, window + search.row_offset[i], sizeof(points));
    points >>= shift;
    const int behind = std::countr_zero(points >> kReach);
    const int before = std::countl_zero(points << (BitGrid::kWord - 1 - kReach));
    nearest = std::min(nearest, search.row_squared[i] + search.along_x[std::min(behind, before)]);
  }
  return nearest;
}

ISOSCAN_VECTOR_CLONES
void SearchBlock(const Search& search, const BitGrid& grid, const SurfacePoint* points,
                 std::int64_t count, double* squared_mm) {
  for (std::int64_t i = 0; i < count; ++i) {
    const SurfacePoint& point = points[i];
    // The row's empty word in front makes room for the window of its first points.
    const auto* const row = reinterpret_cast<const unsigned char*>(grid.Row(point.y, point.z) - 1);
    const std::int64_t first = point.x + BitGrid::kWord - kReach;
    squared_mm[i] = SearchAround(search, row + first / 8, static_cast<unsigned>(first % 8));
  }
}

/// Points from x to the nearest one in a row; -1 where there is none.
std::int64_t PointsToNearest(const std::uint64_t* row, std::int64_t words, std::int64_t x) {
  const std::int64_t word = x / BitGrid::kWord;
  const std::int64_t bit = x % BitGrid::kWord;
  std::int64_t nearest = -1;
  std::uint64_t points = row[word] >> bit << bit;
  for (std::int64_t w = word; w < words; points = row[++w]) {
    if (points == 0) continue;
    nearest = w * BitGrid::kWord + std::countr_zero(points) - x;
    break;
  }
  points = row[word] << (BitGrid::kWord - 1 - bit) >> (BitGrid::kWord - 1 - bit);
  for (std::int64_t w = word; w >= 0; points = row[--w]) {
    if (points == 0) continue;
    const std::int64_t before =
        x - (w * BitGrid::kWord + BitGrid::kWord - 1 - std::countl_zero(points));
    return nearest < 0 ? before : std::min(nearest, before);
  }
  return nearest;
}

/// Room for LowerEnvelope() over lines of `count` values.
struct Envelope {
  explicit Envelope(std::int64_t count)
      : vertex(static_cast<std::size_t>(count)),
        height(static_cast<std::size_t>(count)),
        from(static_cast<std::size_t>(count)) {}

  std::vector<std::int64_t> vertex;  ///< Of the parabolas that the envelope consists of.
  std::vector<double> height;
  std::vector<double> from;  ///< Where each begins.
};

/// Replaces each of `count` values by the least of values[j] + (step (i - j))^2 over all j.
/// Source: docs/references.md#felzenszwalb2012, algorithm 1.
void LowerEnvelope(double* values, std::int64_t stride, std::int64_t count, double step,
                   Envelope& envelope) {
  const double squared_step = step * step;
  std::int64_t last = -1;
  for (std::int64_t i = 0; i < count; ++i) {
    const double height = values[i * stride];
    if (height == kInfinity) continue;
    double from = -kInfinity;
    for (; last >= 0; --last) {
      const auto top = static_cast<std::size_t>(last);
      // Where both parabolas meet.
      from = ((height - envelope.height[top]) / squared_step /
                  static_cast<double>(i - envelope.vertex[top]) +
              static_cast<double>(i + envelope.vertex[top])) /
             2;
      if (from > envelope.from[top]) break;
      from = -kInfinity;
    }
    const auto top = static_cast<std::size_t>(++last);
    envelope.vertex[top] = i;
    envelope.height[top] = height;
    envelope.from[top] = from;
  }
  if (last < 0) return;
  std::int64_t at = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    while (at < last && envelope.from[static_cast<std::size_t>(at) + 1] < static_cast<double>(i)) {
      ++at;
    }
    const double distance =
        step * static_cast<double>(i - envelope.vertex[static_cast<std::size_t>(at)]);
    values[i * stride] = envelope.height[static_cast<std::size_t>(at)] + distance * distance;
  }
}

/// Distances within planes of constant x; one thread's.
class PlaneTransform {
 public:
  PlaneTransform(const BitGrid& grid, const std::array<double, 3>& spacing_mm)
      : grid_(grid),
        spacing_mm_(spacing_mm),
        height_(grid.size()[1]),
        depth_(grid.size()[2]),
        squared_(static_cast<std::size_t>(height_ * depth_)),
        transformed_(static_cast<std::size_t>(height_)),
        envelope_(std::max(height_, depth_)) {}

  /// Answers those of `points` that `chosen` names, all of one x: by looking at `rows` around
  /// them, as long as that takes no longer than the transform, which answers the rest.
  void Answer(const std::vector<SurfacePoint>& points, std::span<const std::uint32_t> chosen,
              const std::vector<NearestPoints::Row>& rows, double* squared_mm) {
    std::int64_t left = height_ * depth_;
    while (!chosen.empty()) {
      const std::optional<double> found = Search(points[chosen.front()], rows, left);
      if (!found.has_value()) break;
      squared_mm[chosen.front()] = *found;
      chosen = chosen.subspan(1);
    }
    if (!chosen.empty()) Transform(points, chosen, squared_mm);
  }

 private:
  /// Nothing where the nearest point is farther than the rows, or none are left to look at.
  std::optional<double> Search(const SurfacePoint& point,
                               const std::vector<NearestPoints::Row>& rows,
                               std::int64_t& left) const {
    double nearest = kInfinity;
    for (const NearestPoints::Row& row : rows) {
      if (row.squared_mm >= nearest) return nearest;
      const std::int64_t y = point.y + row.y;
      const std::int64_t z = point.z + row.z;
      if (y < 0 || y >= height_ || z < 0 || z >= depth_) continue;
      if (--left < 0) break;
      const std::int64_t steps = PointsToNearest(grid_.Row(y, z), grid_.words(), point.x);
      if (steps < 0) continue;
      const double distance = spacing_mm_[0] * static_cast<double>(steps);
      nearest = std::min(nearest, row.squared_mm + distance * distance);
    }
    return std::nullopt;
  }

  void Transform(const std::vector<SurfacePoint>& points, std::span<const std::uint32_t> chosen,
                 double* squared_mm) {
    const std::int64_t x = points[chosen.front()].x;
    for (std::int64_t z = 0; z < depth_; ++z) {
      double* const row = squared_.data() + z * height_;
      for (std::int64_t y = 0; y < height_; ++y) {
        const std::int64_t steps = PointsToNearest(grid_.Row(y, z), grid_.words(), x);
        const double distance = spacing_mm_[0] * static_cast<double>(steps);
        row[y] = steps < 0 ? kInfinity : distance * distance;
      }
      LowerEnvelope(row, 1, height_, spacing_mm_[1], envelope_);
    }
    std::fill(transformed_.begin(), transformed_.end(), false);
    for (const std::uint32_t i : chosen) {
      const SurfacePoint& point = points[i];
      if (!transformed_[point.y]) {
        LowerEnvelope(squared_.data() + point.y, height_, depth_, spacing_mm_[2], envelope_);
        transformed_[point.y] = true;
      }
      squared_mm[i] = squared_[static_cast<std::size_t>(point.z * height_ + point.y)];
    }
  }

  const BitGrid& grid_;
  std::array<double, 3> spacing_mm_;
  std::int64_t height_;
  std::int64_t depth_;
  std::vector<double> squared_;  ///< Point (y, z) is z * height_ + y.
  std::vector<bool> transformed_;
  Envelope envelope_;
};

/// The points whose distance is above `limit`, those of one x together: those of x are
/// order[first[x]] to order[first[x + 1] - 1].
struct FarPoints {
  std::vector<std::size_t> first;
  std::vector<std::uint32_t> order;
};

FarPoints FindFar(const Surface& from, const std::vector<double>& squared_mm, double limit) {
  FarPoints far;
  far.first.resize(static_cast<std::size_t>(from.grid.size()[0]) + 1);
  for (std::size_t i = 0; i < from.points.size(); ++i) {
    if (squared_mm[i] > limit) ++far.first[from.points[i].x + std::size_t{1}];
  }
  std::partial_sum(far.first.begin(), far.first.end(), far.first.begin());
  far.order.resize(far.first.back());
  std::vector<std::size_t> next = far.first;
  for (std::size_t i = 0; i < from.points.size(); ++i) {
    if (squared_mm[i] > limit) {
      far.order[next[from.points[i].x]++] = static_cast<std::uint32_t>(i);
    }
  }
  return far;
}

/// The nearest rows around a point, and how far the next one is.
struct Rows {
  std::vector<NearestPoints::Row> nearest;
  double next_squared_mm = 0;
};

Rows NearestRows(const std::array<double, 3>& spacing_mm, std::size_t count) {
  const auto squared = [&](std::int64_t y, std::int64_t z) {
    const double along_y = spacing_mm[1] * static_cast<double>(y);
    const double along_z = spacing_mm[2] * static_cast<double>(z);
    return along_y * along_y + along_z * along_z;
  };
  // All rows within a radius that is widened until they are enough.
  std::vector<NearestPoints::Row> rows;
  double radius_squared = static_cast<double>(count) * spacing_mm[1] * spacing_mm[2] / 3;
  for (; rows.size() <= count; radius_squared *= 2) {
    rows.clear();
    for (std::int64_t z = 0; squared(0, z) <= radius_squared; ++z) {
      for (std::int64_t y = 0; squared(y, z) <= radius_squared; ++y) {
        const double squared_mm = squared(y, z);
        rows.push_back({.y = y, .z = z, .squared_mm = squared_mm});
        if (y > 0) rows.push_back({.y = -y, .z = z, .squared_mm = squared_mm});
        if (z > 0) rows.push_back({.y = y, .z = -z, .squared_mm = squared_mm});
        if (y > 0 && z > 0) rows.push_back({.y = -y, .z = -z, .squared_mm = squared_mm});
      }
    }
  }
  std::sort(rows.begin(), rows.end(),
            [](const NearestPoints::Row& left, const NearestPoints::Row& right) {
              return std::tie(left.squared_mm, left.z, left.y) <
                     std::tie(right.squared_mm, right.z, right.y);
            });
  const double next = rows[count].squared_mm;
  rows.resize(count);
  return {.nearest = std::move(rows), .next_squared_mm = next};
}

}  // namespace

NearestPoints::NearestPoints(const std::array<double, 3>& spacing_mm) : spacing_mm_(spacing_mm) {
  Rows rows = NearestRows(spacing_mm, kRows);
  rows_ = std::move(rows.nearest);
  for (const Row& row : rows_) {
    margin_[0] = std::max(margin_[0], row.y);
    margin_[1] = std::max(margin_[1], row.z);
  }
  along_x_.assign(BitGrid::kWord + 1, kInfinity);
  for (std::int64_t steps = 0; steps <= kReach; ++steps) {
    const double distance = spacing_mm[0] * static_cast<double>(steps);
    along_x_[static_cast<std::size_t>(steps)] = distance * distance;
  }
  const double unseen = spacing_mm[0] * static_cast<double>(kReach + 1);
  searched_squared_ = std::min(rows.next_squared_mm, unseen * unseen);
}

std::vector<double> NearestPoints::SquaredDistances(const Surface& from, const Surface& to) const {
  const auto count = static_cast<std::int64_t>(from.points.size());
  assert(from.points.size() <= std::numeric_limits<std::uint32_t>::max());
  std::vector<double> squared_mm(from.points.size(), kInfinity);
  if (to.points.empty()) return squared_mm;

  std::vector<double> row_squared;
  std::vector<std::int64_t> row_offset;
  for (const Row& row : rows_) {
    row_squared.push_back(row.squared_mm);
    row_offset.push_back((row.y * to.grid.row_stride() + row.z * to.grid.slice_stride()) *
                         static_cast<std::int64_t>(sizeof(std::uint64_t)));
  }
  const Search search{.row_squared = row_squared.data(),
                      .row_offset = row_offset.data(),
                      .rows = rows_.size(),
                      .along_x = along_x_.data()};
#pragma omp parallel for schedule(dynamic, 1) if (count > kFewPoints)
  for (std::int64_t first = 0; first < count; first += kBlock) {
    SearchBlock(search, to.grid, from.points.data() + first, std::min(kBlock, count - first),
                squared_mm.data() + first);
  }

  const FarPoints far = FindFar(from, squared_mm, searched_squared_);
  if (far.order.empty()) return squared_mm;
  const Rows more = NearestRows(spacing_mm_, kMoreRows);
  // Room is taken here: a thread that cannot have it would end the program.
  std::vector<PlaneTransform> planes(static_cast<std::size_t>(omp_get_max_threads()),
                                     PlaneTransform(to.grid, spacing_mm_));
#pragma omp parallel for schedule(dynamic, 1)
  for (std::int64_t plane = 0; plane < to.grid.size()[0]; ++plane) {
    const auto x = static_cast<std::size_t>(plane);
    if (far.first[x] == far.first[x + 1]) continue;
    planes[static_cast<std::size_t>(omp_get_thread_num())].Answer(
        from.points, std::span(far.order).subspan(far.first[x], far.first[x + 1] - far.first[x]),
        more.nearest, squared_mm.data());
  }
  return squared_mm;
}

}  // namespace isoscan
