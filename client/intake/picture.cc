#include "client/intake/picture.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace isoscan {
namespace {

constexpr std::size_t kBlocks = kPictureEdge * kPictureEdge * kPictureEdge;
constexpr float kNone = std::numeric_limits<float>::quiet_NaN();

}  // namespace

PictureMaker::PictureMaker(const std::array<std::int64_t, 3>& size)
    : size_(size), sums_(kBlocks), counts_(kBlocks) {
  constexpr auto kEdge = static_cast<std::int64_t>(kPictureEdge);
  std::size_t stride = 1;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    axis_blocks_[axis].resize(static_cast<std::size_t>(size[axis]));
    for (std::int64_t i = 0; i < size[axis]; ++i) {
      axis_blocks_[axis][static_cast<std::size_t>(i)] =
          static_cast<std::size_t>(i * kEdge / size[axis]) * stride;
    }
    stride *= kPictureEdge;
  }
}

Picture PictureMaker::Finish(double least_share) const {
  const double voxels = static_cast<double>(size_[0]) * static_cast<double>(size_[1]) *
                        static_cast<double>(size_[2]) / static_cast<double>(kBlocks);
  Picture picture(kBlocks, kNone);
  double sum = 0;
  double squares = 0;
  double taken = 0;
  for (std::size_t block = 0; block < kBlocks; ++block) {
    if (counts_[block] == 0 || static_cast<double>(counts_[block]) < least_share * voxels) continue;
    const double mean = sums_[block] / static_cast<double>(counts_[block]);
    picture[block] = static_cast<float>(mean);
    sum += mean;
    squares += mean * mean;
    ++taken;
  }
  if (taken == 0) return picture;
  const double mean = sum / taken;
  const double deviation = std::sqrt(std::max(0.0, squares / taken - mean * mean));
  for (float& block : picture) {
    block = deviation > 1e-9 * std::abs(mean)
                ? static_cast<float>((static_cast<double>(block) - mean) / deviation)
                : kNone;
  }
  return picture;
}

double Correlation(const Picture& left, const Picture& right) {
  constexpr double kFewest = 27;
  double count = 0;
  double sum_left = 0;
  double sum_right = 0;
  double left_left = 0;
  double right_right = 0;
  double left_right = 0;
  for (std::size_t block = 0; block < std::min(left.size(), right.size()); ++block) {
    const auto a = static_cast<double>(left[block]);
    const auto b = static_cast<double>(right[block]);
    if (std::isnan(a) || std::isnan(b)) continue;
    ++count;
    sum_left += a;
    sum_right += b;
    left_left += a * a;
    right_right += b * b;
    left_right += a * b;
  }
  if (count < kFewest) return 0;
  const double variances =
      (left_left - sum_left * sum_left / count) * (right_right - sum_right * sum_right / count);
  if (!(variances > 0)) return 0;
  return std::clamp((left_right - sum_left * sum_right / count) / std::sqrt(variances), -1.0, 1.0);
}

Picture MedianPicture(const std::vector<const Picture*>& pictures) {
  Picture median(kBlocks, kNone);
  std::vector<float> values;
  for (std::size_t block = 0; block < kBlocks; ++block) {
    values.clear();
    for (const Picture* picture : pictures) {
      if (block < picture->size() && !std::isnan((*picture)[block])) {
        values.push_back((*picture)[block]);
      }
    }
    if (values.empty() || 2 * values.size() < pictures.size()) continue;
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    median[block] = *middle;
  }
  return median;
}

}  // namespace isoscan
