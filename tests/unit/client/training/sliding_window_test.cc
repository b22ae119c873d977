#include "client/training/sliding_window.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ATen.h>

namespace isoscan {
namespace {

using ::testing::ElementsAre;

/// Two "classes" that depend on the voxel alone, so that every window agrees.
torch::Tensor Pointwise(const torch::Tensor& windows) {
  return at::cat({windows * 2 + 1, -windows}, 1);
}

TEST(WindowStarts, CoverTheAxisEvenly) {
  EXPECT_THAT(WindowStarts(10, 10, 0.5), ElementsAre(0));
  EXPECT_THAT(WindowStarts(7, 10, 0.5), ElementsAre(0));
  EXPECT_THAT(WindowStarts(20, 10, 0.5), ElementsAre(0, 5, 10));
  EXPECT_THAT(WindowStarts(21, 10, 0.5), ElementsAre(0, 4, 7, 11));
  EXPECT_THAT(WindowStarts(20, 10, 0), ElementsAre(0, 10));
}

TEST(SlidingWindow, WithOneWindowIsAPlainForward) {
  const torch::Tensor image = at::randn({1, 8, 6, 10});

  const torch::Tensor scores =
      SlidingWindowScores(image, 2, {8, 6, 10}, 0.5, 1, [](const torch::Tensor& windows) {
        EXPECT_EQ(windows.size(0), 1);
        return at::cat({windows.cumsum(4), windows.cumsum(2)}, 1);
      });

  const torch::Tensor whole = image.unsqueeze(0);
  const torch::Tensor expected = at::cat({whole.cumsum(4), whole.cumsum(2)}, 1)[0];
  EXPECT_LT((scores - expected).abs().max().item<double>(), 1e-5);
}

TEST(SlidingWindow, OfAPointwiseFunctionIsThatFunction) {
  for (const double overlap : {0.0, 0.25, 0.5, 0.75}) {
    for (const std::int64_t batch : {1, 3}) {
      const torch::Tensor image = at::randn({1, 23, 9, 31});

      const torch::Tensor scores =
          SlidingWindowScores(image, 2, {8, 12, 16}, overlap, batch, Pointwise);

      ASSERT_EQ(scores.sizes().vec(), (std::vector<std::int64_t>{2, 23, 9, 31}));
      EXPECT_LT((scores - Pointwise(image.unsqueeze(0))[0]).abs().max().item<double>(), 1e-5);
    }
  }
}

TEST(SlidingWindow, TrustsTheMiddleOfAWindowMoreThanItsBorder) {
  const torch::Tensor image = at::zeros({1, 1, 1, 12});
  int window = 0;

  // Windows [0, 8) and [4, 12) answer 0 and 1.
  const torch::Tensor scores =
      SlidingWindowScores(image, 1, {1, 1, 8}, 0.5, 1, [&](const torch::Tensor& windows) {
        return at::full_like(windows, window++);
      }).flatten();

  EXPECT_EQ(scores[0].item<float>(), 0);
  EXPECT_LT(scores[4].item<float>(), 0.5);
  EXPECT_GT(scores[7].item<float>(), 0.5);
  EXPECT_EQ(scores[11].item<float>(), 1);
}

}  // namespace
}  // namespace isoscan
