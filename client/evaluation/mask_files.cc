#include "client/evaluation/mask_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "client/imaging/grid_check.h"
#include "client/imaging/orientation.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

constexpr std::size_t kMostValues = 255;

/// Whole numbers from here on may stand for others in a float.
constexpr float kLargestValue = 1 << 24;

absl::StatusOr<std::set<std::int64_t>> ValuesOf(const Volume& mask,
                                                const std::filesystem::path& path) {
  std::set<std::int64_t> values;
  float last = 0;
  for (const float value : mask.voxels) {
    if (value == last) continue;  // Neighbours are alike.
    last = value;
    if (!(value >= 0 && value <= kLargestValue) || value != std::floor(value)) {
      return absl::InvalidArgumentError(
          fmt::format("{} holds {:g}: a label map holds whole numbers from 0 to {:g}; threshold a "
                      "probability map at 0.5, and resample labels with nearest neighbours",
                      path.string(), value, kLargestValue));
    }
    if (value != 0) values.insert(static_cast<std::int64_t>(value));
  }
  return values;
}

/// Voxels of the i-th value get label i + 1, all others 0.
LabelMap Numbered(const Volume& mask, const std::vector<std::int64_t>& values) {
  LabelMap labels{.geometry = mask.geometry, .voxels = {}};
  labels.voxels.resize(mask.voxels.size());
  float last = 0;
  std::uint8_t label = 0;
  for (std::size_t i = 0; i < mask.voxels.size(); ++i) {
    if (mask.voxels[i] != last) {
      last = mask.voxels[i];
      const auto value = static_cast<std::int64_t>(last);
      const auto found = std::lower_bound(values.begin(), values.end(), value);
      label = found != values.end() && *found == value
                  ? static_cast<std::uint8_t>(found - values.begin() + 1)
                  : std::uint8_t{0};
    }
    labels.voxels[i] = label;
  }
  return labels;
}

absl::StatusOr<Volume> ReadCanonical(const std::filesystem::path& path, GeometrySource geometry) {
  ASSIGN_OR_RETURN(Volume stored, ReadLabelValues(path, geometry));
  return ToCanonical(std::move(stored));
}

}  // namespace

absl::StatusOr<std::map<std::int64_t, LabelScore>> ScoreMaskFiles(
    const std::filesystem::path& predicted, const std::filesystem::path& reference,
    const std::optional<std::set<std::int64_t>>& values, const SurfaceOptions& options,
    GeometrySource geometry) {
  ASSIGN_OR_RETURN(Volume expected, ReadCanonical(reference, geometry));
  ASSIGN_OR_RETURN(Volume found, ReadCanonical(predicted, geometry));
  RETURN_IF_ERROR(CheckSameGrid(reference, expected.geometry, predicted, found.geometry));
  ASSIGN_OR_RETURN(std::set<std::int64_t> seen, ValuesOf(expected, reference));
  ASSIGN_OR_RETURN(std::set<std::int64_t> seen_too, ValuesOf(found, predicted));
  seen.merge(seen_too);
  const std::set<std::int64_t>& wanted = values.has_value() ? *values : seen;
  if (wanted.size() > kMostValues) {
    return absl::InvalidArgumentError(
        fmt::format("{} and {} hold {} values, at most {} can be scored at a time",
                    predicted.string(), reference.string(), wanted.size(), kMostValues));
  }
  const std::vector<std::int64_t> sorted(wanted.begin(), wanted.end());
  const LabelMap reference_labels = Numbered(expected, sorted);
  expected = {};
  const LabelMap predicted_labels = Numbered(found, sorted);
  found = {};
  const std::vector<LabelScore> scores = ScoreLabels(
      reference_labels, predicted_labels, static_cast<std::int64_t>(sorted.size()), options);
  std::map<std::int64_t, LabelScore> by_value;
  for (std::size_t i = 0; i < sorted.size(); ++i) by_value.emplace(sorted[i], scores[i]);
  return by_value;
}

}  // namespace isoscan
