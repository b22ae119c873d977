#include "client/inference/window_sums.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <limits>

#include "client/kernels/vector_clones.h"

namespace isoscan {
namespace {

float ToFloat(float score) { return score; }
float ToFloat(std::uint16_t bfloat16) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bfloat16) << 16U);
}

template <typename Score>
inline void AddRowOf(float* sums, const Score* scores, const float* weights, float weight,
                     std::size_t count) {
  for (std::size_t x = 0; x < count; ++x) sums[x] += weight * weights[x] * ToFloat(scores[x]);
}

/// sums += weight x weights x scores, along x.
ISOSCAN_VECTOR_CLONES
void AddRow(float* sums, const float* scores, const float* weights, float weight,
            std::size_t count) {
  AddRowOf(sums, scores, weights, weight, count);
}

ISOSCAN_VECTOR_CLONES
void AddRow(float* sums, const std::uint16_t* scores, const float* weights, float weight,
            std::size_t count) {
  AddRowOf(sums, scores, weights, weight, count);
}

/// mean = sums / (total x totals), along x; how many are not finite.
ISOSCAN_VECTOR_CLONES
std::int64_t DivideRow(const float* sums, const float* totals, float total, float* mean,
                       std::size_t count) {
  std::int32_t unusable = 0;
  for (std::size_t x = 0; x < count; ++x) {
    mean[x] = sums[x] / (total * totals[x]);
    unusable += std::abs(mean[x]) <= std::numeric_limits<float>::max() ? 0 : 1;
  }
  return unusable;
}

}  // namespace

WindowSums::WindowSums(const Windows& windows, std::int64_t classes, const SliceTaker& take)
    : windows_(windows),
      classes_(classes),
      take_(take),
      slice_(classes * windows.padded[1] * windows.padded[2]),
      sums_(static_cast<std::size_t>(windows.window[0] * slice_), 0.0F),
      mean_(static_cast<std::size_t>(classes * windows.volume[1] * windows.volume[2])) {}

absl::Status WindowSums::Add(const Triple& corner, const float* scores) {
  return AddScores(corner, scores);
}

absl::Status WindowSums::Add(const Triple& corner, const std::uint16_t* scores) {
  return AddScores(corner, scores);
}

template <typename Score>
absl::Status WindowSums::AddScores(const Triple& corner, const Score* scores) {
  const absl::Status taken = TakeUpTo(corner[0]);
  if (!taken.ok()) return taken;
  const auto [depth, height, width] = windows_.window;
  const auto count = static_cast<std::size_t>(width);
#pragma omp parallel for
  for (std::int64_t z = 0; z < depth; ++z) {
    float* const slot = sums_.data() + (corner[0] + z) % depth * slice_;
    for (std::int64_t label = 0; label < classes_; ++label) {
      const Score* from = scores + (label * depth + z) * height * width;
      float* to = slot + (label * windows_.padded[1] + corner[1]) * windows_.padded[2] + corner[2];
      for (std::int64_t y = 0; y < height; ++y, from += width, to += windows_.padded[2]) {
        const float weight = windows_.weights[0][static_cast<std::size_t>(z)] *
                             windows_.weights[1][static_cast<std::size_t>(y)];
        AddRow(to, from, windows_.weights[2].data(), weight, count);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status WindowSums::TakeUpTo(std::int64_t end) {
  const auto [before_z, before_y, before_x] = windows_.before;
  const std::int64_t height = windows_.volume[1];
  const std::int64_t width = windows_.volume[2];
  for (; taken_ < end; ++taken_) {
    float* const slot = sums_.data() + taken_ % windows_.window[0] * slice_;
    const std::int64_t z = taken_ - before_z;
    if (z >= 0 && z < windows_.volume[0]) {
      std::int64_t unusable = 0;
#pragma omp parallel for reduction(+ : unusable)
      for (std::int64_t line = 0; line < classes_ * height; ++line) {
        const std::int64_t y = before_y + line % height;
        const std::int64_t row = line / height * windows_.padded[1] + y;
        const float total = windows_.totals[0][static_cast<std::size_t>(taken_)] *
                            windows_.totals[1][static_cast<std::size_t>(y)];
        unusable += DivideRow(slot + row * windows_.padded[2] + before_x,
                              windows_.totals[2].data() + before_x, total,
                              mean_.data() + line * width, static_cast<std::size_t>(width));
      }
      if (unusable > 0) {
        return absl::DataLossError(fmt::format(
            "{} of the model's {} scores in slice {} are NaN or infinite: its weights are damaged, "
            "or were never trained on such images",
            unusable, mean_.size(), z));
      }
      take_(z, mean_);
    }
    std::fill(slot, slot + slice_, 0.0F);
  }
  return absl::OkStatus();
}

absl::Status WindowSums::Finish() { return TakeUpTo(windows_.padded[0]); }

}  // namespace isoscan
