#include "client/inference/window_sums.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "common/random/philox.h"
#include "tests/support/status_matchers.h"
#include <omp.h>

namespace isoscan {
namespace {

using ::testing::HasSubstr;

constexpr std::int64_t kClasses = 3;

/// Random scores of every window, [windows][classes, d, h, w].
std::vector<std::vector<float>> ScoresOf(const Windows& windows) {
  RandomStream random(3, "scores");
  std::vector<std::vector<float>> scores(static_cast<std::size_t>(windows.count()));
  for (std::vector<float>& of_window : scores) {
    of_window.resize(static_cast<std::size_t>(kClasses * windows.window[0] * windows.window[1] *
                                              windows.window[2]));
    for (float& score : of_window) score = static_cast<float>(random.Normal());
  }
  return scores;
}

/// The weighted mean as it is defined, voxel by voxel in double; [classes, D, H, W].
std::vector<double> PlainMean(const Windows& windows,
                              const std::vector<std::vector<float>>& scores) {
  const auto [depth, height, width] = windows.volume;
  const auto voxels = static_cast<std::size_t>(depth * height * width);
  std::vector<double> mean(kClasses * voxels, 0.0);
  std::vector<double> weights(voxels, 0.0);
  const auto [d, h, w] = windows.window;
  const std::vector<Triple> corners = windows.Corners();
  for (std::size_t i = 0; i < corners.size(); ++i) {
    for (std::int64_t z = 0; z < d; ++z) {
      for (std::int64_t y = 0; y < h; ++y) {
        for (std::int64_t x = 0; x < w; ++x) {
          const Triple at{corners[i][0] + z - windows.before[0],
                          corners[i][1] + y - windows.before[1],
                          corners[i][2] + x - windows.before[2]};
          if (at[0] < 0 || at[0] >= depth || at[1] < 0 || at[1] >= height || at[2] < 0 ||
              at[2] >= width) {
            continue;
          }
          const auto place = static_cast<std::size_t>((at[0] * height + at[1]) * width + at[2]);
          const double weight =
              static_cast<double>(windows.weights[0][static_cast<std::size_t>(z)]) *
              static_cast<double>(windows.weights[1][static_cast<std::size_t>(y)]) *
              static_cast<double>(windows.weights[2][static_cast<std::size_t>(x)]);
          weights[place] += weight;
          for (std::size_t label = 0; label < kClasses; ++label) {
            const auto from = ((static_cast<std::int64_t>(label) * d + z) * h + y) * w + x;
            mean[label * voxels + place] +=
                weight * static_cast<double>(scores[i][static_cast<std::size_t>(from)]);
          }
        }
      }
    }
  }
  for (std::size_t label = 0; label < kClasses; ++label) {
    for (std::size_t place = 0; place < voxels; ++place) {
      mean[label * voxels + place] /= weights[place];
    }
  }
  return mean;
}

/// What WindowSums hands out, as [classes, D, H, W].
class Collected {
 public:
  explicit Collected(const Windows& windows)
      : slice_(windows.volume[1] * windows.volume[2]),
        depth_(windows.volume[0]),
        scores_(static_cast<std::size_t>(kClasses * depth_ * slice_),
                std::numeric_limits<float>::quiet_NaN()) {}

  SliceTaker taker() {
    return [this](std::int64_t z, std::span<const float> scores) {
      EXPECT_EQ(z, next_++) << "slices come in turn";
      ASSERT_EQ(std::ssize(scores), kClasses * slice_);
      for (std::int64_t label = 0; label < kClasses; ++label) {
        std::copy_n(scores.begin() + label * slice_, slice_,
                    scores_.begin() + (label * depth_ + z) * slice_);
      }
    };
  }
  const std::vector<float>& scores() const { return scores_; }

 private:
  std::int64_t slice_;
  std::int64_t depth_;
  std::int64_t next_ = 0;
  std::vector<float> scores_;
};

std::vector<float> MeanOf(const Windows& windows, const std::vector<std::vector<float>>& scores) {
  Collected collected(windows);
  const SliceTaker take = collected.taker();
  WindowSums sums(windows, kClasses, take);
  const std::vector<Triple> corners = windows.Corners();
  for (std::size_t i = 0; i < corners.size(); ++i) {
    EXPECT_OK(sums.Add(corners[i], scores[i].data()));
  }
  EXPECT_OK(sums.Finish());
  return collected.scores();
}

/// Volumes larger than the window, equal to it, smaller along some axes; much and no overlap.
std::vector<Windows> Cases() {
  return {{{23, 19, 31}, {8, 12, 16}, 0.5}, {{23, 19, 31}, {8, 12, 16}, 0.0},
          {{9, 19, 31}, {8, 12, 16}, 0.75}, {{8, 12, 16}, {8, 12, 16}, 0.5},
          {{5, 30, 7}, {8, 12, 16}, 0.5},   {{40, 3, 17}, {8, 12, 16}, 0.5}};
}

TEST(WindowSums, AreTheWeightedMeanOverAllWindowsThatSeeAVoxel) {
  for (const Windows& windows : Cases()) {
    const auto scores = ScoresOf(windows);

    const std::vector<float> mean = MeanOf(windows, scores);

    const std::vector<double> expected = PlainMean(windows, scores);
    ASSERT_EQ(mean.size(), expected.size());
    for (std::size_t i = 0; i < mean.size(); ++i) {
      ASSERT_NEAR(static_cast<double>(mean[i]), expected[i], 3e-6) << "value " << i;
    }
  }
}

TEST(WindowSums, AreTheSameBitsForEveryNumberOfThreads) {
  const Windows windows({23, 19, 31}, {8, 12, 16}, 0.5);
  const auto scores = ScoresOf(windows);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const std::vector<float> one = MeanOf(windows, scores);
  omp_set_num_threads(3);
  const std::vector<float> three = MeanOf(windows, scores);
  omp_set_num_threads(threads);

  EXPECT_EQ(one, three);
}

TEST(WindowSums, TakeBfloat16ForTheNumberThatItIs) {
  const Windows windows({9, 13, 17}, {8, 12, 16}, 0.5);
  auto scores = ScoresOf(windows);
  Collected collected(windows);
  const SliceTaker take = collected.taker();
  WindowSums sums(windows, kClasses, take);
  const std::vector<Triple> corners = windows.Corners();
  for (std::size_t i = 0; i < corners.size(); ++i) {
    std::vector<std::uint16_t> halves;
    for (float& score : scores[i]) {
      halves.push_back(static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(score) >> 16U));
      score = std::bit_cast<float>(static_cast<std::uint32_t>(halves.back()) << 16U);
    }
    ASSERT_OK(sums.Add(corners[i], halves.data()));
  }
  ASSERT_OK(sums.Finish());

  EXPECT_EQ(collected.scores(), MeanOf(windows, scores));
}

TEST(WindowSums, RefuseScoresThatAreNotFiniteAndNameTheSlice) {
  const Windows windows({23, 12, 16}, {8, 12, 16}, 0.0);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    auto scores = ScoresOf(windows);
    scores[1][12 * 16] = bad;  // The second slice of the second window of four.
    const std::int64_t slice = windows.Corners()[1][0] + 1;
    std::int64_t taken = 0;
    const SliceTaker take = [&](std::int64_t, std::span<const float>) { ++taken; };
    WindowSums sums(windows, kClasses, take);

    absl::Status status;
    for (std::size_t i = 0; i < scores.size() && status.ok(); ++i) {
      status = sums.Add(windows.Corners()[i], scores[i].data());
    }

    EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss,
                                 HasSubstr(" in slice " + std::to_string(slice) + " ")));
    EXPECT_EQ(taken, slice);
  }
}

}  // namespace
}  // namespace isoscan
