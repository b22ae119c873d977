#include "client/imaging/score_labels.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <utility>

#include "client/imaging/axis_samples.h"
#include "client/kernels/vector_clones.h"

namespace isoscan {
namespace {

/// What is done before another thread wakes up.
constexpr std::int64_t kFewScores = 1 << 16;

/// Where `scores` exceed the best so far, they and their label take its place.
ISOSCAN_VECTOR_CLONES
void TakeGreater(const float* scores, std::uint8_t label, float* best, std::uint8_t* labels,
                 std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const bool greater = scores[i] > best[i];
    best[i] = greater ? scores[i] : best[i];
    labels[i] = greater ? label : labels[i];
  }
}

}  // namespace

struct ScoreLabels::State {
  State(const Geometry& from, const Geometry& to, std::int64_t class_count)
      : source(from),
        classes(class_count),
        taps(LinearTapsOf(from, to)),
        row(static_cast<std::size_t>(to.size[0])),
        slice(row * static_cast<std::size_t>(to.size[1])),
        rows(static_cast<std::size_t>(class_count * from.size[1]) * row) {
    labels.geometry = to;
    labels.voxels.resize(static_cast<std::size_t>(to.voxels()));
    for (auto& plane : planes) plane.resize(static_cast<std::size_t>(classes) * slice);
  }

  void SampleAlongX(const float* scores, std::int64_t class_stride);
  void SampleAlongY(std::vector<float>& plane) const;
  void WriteLabels(std::int64_t z);

  const Geometry source;
  const std::int64_t classes;
  const std::array<std::vector<Taps>, 3> taps;
  const std::size_t row;    ///< Of the target.
  const std::size_t slice;  ///< Likewise.
  std::vector<float> rows;  ///< [classes, H of the source, W of the target].
  /// The latest two slices of the source at the target's x and y, [classes, slice], by z % 2.
  std::array<std::vector<float>, 2> planes;
  std::int64_t added = 0;
  std::int64_t written = 0;  ///< Slices of the target.
  LabelMap labels;
};

void ScoreLabels::State::SampleAlongX(const float* scores, std::int64_t class_stride) {
  const std::int64_t height = source.size[1];
  const std::int64_t width = source.size[0];
#pragma omp parallel for if (classes * height * width > kFewScores)
  for (std::int64_t line = 0; line < classes * height; ++line) {
    const float* from = scores + line / height * class_stride + line % height * width;
    float* to = rows.data() + static_cast<std::size_t>(line) * row;
    for (std::size_t x = 0; x < row; ++x) {
      const Taps& sample = taps[0][x];
      to[x] = sample.weight[0] * from[sample.index[0]] + sample.weight[1] * from[sample.index[1]];
    }
  }
}

void ScoreLabels::State::SampleAlongY(std::vector<float>& plane) const {
  const std::int64_t height = labels.geometry.size[1];
#pragma omp parallel for if (static_cast <std::int64_t>(plane.size()) > kFewScores)
  for (std::int64_t line = 0; line < classes * height; ++line) {
    const Taps& sample = taps[1][static_cast<std::size_t>(line % height)];
    const float* of_class = rows.data() + static_cast<std::size_t>(line / height) * row *
                                              static_cast<std::size_t>(source.size[1]);
    BlendTwo(plane.data() + static_cast<std::size_t>(line) * row,
             of_class + static_cast<std::size_t>(sample.index[0]) * row,
             of_class + static_cast<std::size_t>(sample.index[1]) * row, sample.weight[0],
             sample.weight[1], row);
  }
}

void ScoreLabels::State::WriteLabels(std::int64_t z) {
  const Taps& sample = taps[2][static_cast<std::size_t>(z)];
  const std::vector<float>& lower = planes[static_cast<std::size_t>(sample.index[0] % 2)];
  const std::vector<float>& upper = planes[static_cast<std::size_t>(sample.index[1] % 2)];
  const std::int64_t height = labels.geometry.size[1];
#pragma omp parallel if (static_cast <std::int64_t>(lower.size()) > kFewScores)
  {
    std::vector<float> best(row);
    std::vector<float> scores(row);
#pragma omp for
    for (std::int64_t y = 0; y < height; ++y) {
      const std::size_t first = static_cast<std::size_t>(y) * row;
      std::uint8_t* to = labels.voxels.data() + static_cast<std::size_t>(z) * slice + first;
      std::fill(to, to + row, std::uint8_t{0});
      for (std::int64_t label = 0; label < classes; ++label) {
        const std::size_t place = static_cast<std::size_t>(label) * slice + first;
        BlendTwo(label == 0 ? best.data() : scores.data(), lower.data() + place,
                 upper.data() + place, sample.weight[0], sample.weight[1], row);
        if (label == 0) continue;
        TakeGreater(scores.data(), static_cast<std::uint8_t>(label), best.data(), to, row);
      }
    }
  }
}

ScoreLabels::ScoreLabels(const Geometry& from, const Geometry& to, std::int64_t classes)
    : state_(std::make_unique<State>(from, to, classes)) {
  assert(SharesDirection(from, to));
}
ScoreLabels::ScoreLabels(ScoreLabels&&) noexcept = default;
ScoreLabels& ScoreLabels::operator=(ScoreLabels&&) noexcept = default;
ScoreLabels::~ScoreLabels() = default;

void ScoreLabels::Add(const float* scores, std::int64_t class_stride) {
  State& state = *state_;
  const std::int64_t z = state.added++;
  state.SampleAlongX(scores, class_stride);
  state.SampleAlongY(state.planes[static_cast<std::size_t>(z % 2)]);
  // What lies between this slice and the one before it, or on it.
  const std::vector<Taps>& along_z = state.taps[2];
  while (state.written < static_cast<std::int64_t>(along_z.size()) &&
         along_z[static_cast<std::size_t>(state.written)].index[1] <= z) {
    state.WriteLabels(state.written++);
  }
}

LabelMap ScoreLabels::Take() && {
  assert(state_->added == state_->source.size[2]);
  return std::move(state_->labels);
}

LabelMap ArgMaxResampled(const std::vector<float>& scores, std::int64_t classes,
                         const Geometry& from, const Geometry& to) {
  assert(static_cast<std::int64_t>(scores.size()) == classes * from.voxels());
  ScoreLabels labels(from, to, classes);
  const std::int64_t slice = from.size[0] * from.size[1];
  for (std::int64_t z = 0; z < from.size[2]; ++z) {
    labels.Add(scores.data() + z * slice, from.voxels());
  }
  return std::move(labels).Take();
}

}  // namespace isoscan
