#include "client/inference/sliding_window.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <new>
#include <span>
#include <stop_token>
#include <vector>

#include "tests/support/status_matchers.h"
#include <ATen/ATen.h>

namespace isoscan {
namespace {

/// Scores of a volume [channels, D, H, W] as a whole.
torch::Tensor Scores(const torch::Tensor& image, std::int64_t classes, const Triple& window,
                     double overlap, const WindowWork& work, const WindowScorer& score) {
  const Triple size{image.size(1), image.size(2), image.size(3)};
  const Windows windows(size, window, overlap);
  torch::Tensor scores = at::zeros({classes, size[0], size[1], size[2]});
  const SliceTaker take = [&](std::int64_t z, std::span<const float> values) {
    scores.select(1, z).copy_(at::tensor(std::vector<float>(values.begin(), values.end()))
                                  .view({classes, size[1], size[2]}));
  };
  EXPECT_OK(SlideWindow({image.data_ptr<float>(), static_cast<std::size_t>(image.numel())},
                        image.size(0), classes, windows, work, score, take));
  return scores;
}

double GreatestDifference(const torch::Tensor& left, const torch::Tensor& right) {
  return (left - right).abs().max().item<double>();
}

/// Two "classes" that depend on the voxel alone, so that every window agrees.
torch::Tensor Pointwise(const torch::Tensor& windows) {
  return at::cat({windows * 2 + 1, -windows}, 1);
}

/// Two that depend on the whole window, and on which side is which.
torch::Tensor Lopsided(const torch::Tensor& windows) {
  return at::cat({windows.cumsum(4), windows.cumsum(2)}, 1);
}

TEST(SlidingWindow, WithOneWindowIsAPlainForward) {
  const torch::Tensor image = at::randn({1, 8, 6, 10});

  const torch::Tensor scores =
      Scores(image, 2, {8, 6, 10}, 0.5, {}, [](const torch::Tensor& windows) {
        EXPECT_EQ(windows.size(0), 1);
        return Lopsided(windows);
      });

  EXPECT_LT(GreatestDifference(scores, Lopsided(image.unsqueeze(0))[0]), 1e-5);
}

TEST(SlidingWindow, OfAPointwiseFunctionIsThatFunction) {
  for (const double overlap : {0.0, 0.25, 0.5, 0.75}) {
    for (const std::int64_t batch : {1, 3}) {
      const torch::Tensor image = at::randn({1, 23, 9, 31});

      const torch::Tensor scores =
          Scores(image, 2, {8, 12, 16}, overlap, {.batch = batch}, Pointwise);

      EXPECT_LT(GreatestDifference(scores, Pointwise(image.unsqueeze(0))[0]), 1e-5);
    }
  }
}

TEST(SlidingWindow, GivesEveryChannelOfAVolumeThatIsSmallerThanTheWindow) {
  const torch::Tensor image = at::randn({2, 5, 30, 7});

  const torch::Tensor scores =
      Scores(image, 2, {8, 12, 16}, 0.5, {.batch = 2}, [](const torch::Tensor& windows) {
        EXPECT_EQ(windows.sizes().vec(),
                  (std::vector<std::int64_t>{windows.size(0), 2, 8, 12, 16}));
        EXPECT_EQ(windows.slice(2, 0, 1).abs().sum().item<double>(), 0) << "padding";
        return windows;
      });

  EXPECT_LT(GreatestDifference(scores, image), 1e-5);
}

TEST(SlidingWindow, TrustsTheMiddleOfAWindowMoreThanItsBorder) {
  const torch::Tensor image = at::arange(12).to(torch::kFloat32).view({1, 1, 1, 12});
  int window = 0;

  // Windows [0, 8) and [4, 12) answer 0 and 1.
  const torch::Tensor scores =
      Scores(image, 1, {1, 1, 8}, 0.5, {}, [&](const torch::Tensor& windows) {
        return at::full_like(windows, window++);
      }).flatten();

  EXPECT_EQ(scores[0].item<float>(), 0);
  EXPECT_LT(scores[4].item<float>(), 0.5);
  EXPECT_GT(scores[7].item<float>(), 0.5);
  EXPECT_EQ(scores[11].item<float>(), 1);
}

TEST(SlidingWindow, IsTheSameForEveryBatch) {
  const torch::Tensor image = at::randn({1, 23, 19, 31});
  const torch::Tensor one = Scores(image, 2, {8, 12, 16}, 0.5, {.batch = 1}, Lopsided);

  for (const std::int64_t batch : {2, 5, 1000}) {
    const torch::Tensor scores = Scores(image, 2, {8, 12, 16}, 0.5, {.batch = batch}, Lopsided);
    EXPECT_EQ(GreatestDifference(scores, one), 0) << batch;
  }
}

TEST(SlidingWindow, IsTheSameForEveryNumberOfWorkers) {
  const torch::Tensor image = at::randn({1, 23, 19, 31});
  const torch::Tensor one = Scores(image, 2, {8, 12, 16}, 0.5, {}, Lopsided);

  for (const int workers : {2, 5}) {
    for (const std::int64_t batch : {1, 3}) {
      std::atomic<std::int64_t> seen{0};
      const torch::Tensor scores =
          Scores(image, 2, {8, 12, 16}, 0.5, {.batch = batch, .workers = workers},
                 [&](const torch::Tensor& windows) {
                   EXPECT_LE(windows.size(0), batch);
                   seen += windows.size(0);
                   return Lopsided(windows);
                 });
      EXPECT_EQ(GreatestDifference(scores, one), 0) << workers << " workers, batch " << batch;
      EXPECT_EQ(seen, Windows({23, 19, 31}, {8, 12, 16}, 0.5).count());
    }
  }
}

TEST(SlidingWindow, ThrowsWhatAWorkersScorerThrows) {
  std::vector<float> noise(23 * 19 * 31);
  for (std::size_t i = 0; i < noise.size(); ++i) noise[i] = static_cast<float>(i % 7);
  std::atomic<int> calls{0};
  const WindowScorer fails_later = [&](const torch::Tensor& windows) {
    if (++calls == 6) throw std::bad_alloc();
    return Lopsided(windows);
  };
  const SliceTaker forget = [](std::int64_t, std::span<const float>) {};
  const Windows windows({23, 19, 31}, {8, 12, 16}, 0.5);

  EXPECT_THROW((void)SlideWindow(noise, 1, 2, windows, {.workers = 2}, fails_later, forget),
               std::bad_alloc);
}

TEST(SlidingWindow, AveragesOverTheMirrorImagesOfEachWindow) {
  const torch::Tensor image = at::randn({1, 13, 12, 31});
  const auto mirrored = [](const torch::Tensor& windows) {
    torch::Tensor sum = Lopsided(windows);
    for (const std::vector<std::int64_t>& axes :
         {std::vector<std::int64_t>{2}, std::vector<std::int64_t>{4}, {2, 4}}) {
      sum = sum + Lopsided(windows.flip(axes)).flip(axes);
    }
    return sum / 4;
  };

  const torch::Tensor scores =
      Scores(image, 2, {8, 12, 16}, 0.5, {.batch = 2, .mirror_axes = {0, 2}}, Lopsided);

  const torch::Tensor expected = Scores(image, 2, {8, 12, 16}, 0.5, {}, mirrored);
  EXPECT_LT(GreatestDifference(scores, expected), 1e-5);
  EXPECT_GT(GreatestDifference(scores, Scores(image, 2, {8, 12, 16}, 0.5, {}, Lopsided)), 0.1);
}

TEST(SlidingWindow, LooksOnceAtWindowsThatHoldOneValue) {
  torch::Tensor image = at::zeros({1, 40, 12, 40});
  image.narrow(1, 16, 8).narrow(3, 16, 8).normal_();
  image.narrow(1, 24, 16).fill_(5);  // Another value; its windows share it.
  for (const std::int64_t batch : {1, 2, 3, 100}) {
    std::atomic<std::int64_t> seen{0};
    const WindowWork work{.batch = batch, .workers = batch == 2 ? 3 : 1};
    const torch::Tensor scores =
        Scores(image, 2, {8, 12, 8}, 0.0, work, [&](const torch::Tensor& windows) {
          seen += windows.size(0);
          return Lopsided(windows);
        });

    for (std::int64_t z = 0; z < 40; z += 8) {
      for (std::int64_t x = 0; x < 40; x += 8) {
        const auto window = [&](const torch::Tensor& whole) {
          return whole.narrow(1, z, 8).narrow(3, x, 8);
        };
        EXPECT_LT(GreatestDifference(window(scores), Lopsided(window(image).unsqueeze(0))[0]),
                  1e-4);
      }
    }
    EXPECT_EQ(seen, 3) << "of 25 windows one is noise, and two values fill the others";
  }
}

TEST(SlidingWindow, StopsBetweenBatchesWhenAsked) {
  const torch::Tensor image = at::randn({1, 23, 19, 31});
  const Windows windows({23, 19, 31}, {8, 12, 16}, 0.5);
  std::stop_source stop;
  std::int64_t last = 0;
  const WindowWork work{
      .batch = 2, .stop = stop.get_token(), .observe = [&](std::int64_t done, std::int64_t total) {
        EXPECT_EQ(total, windows.count());
        last = done;
        if (done >= 5) stop.request_stop();
      }};

  const absl::Status status =
      SlideWindow({image.data_ptr<float>(), static_cast<std::size_t>(image.numel())}, 1, 2, windows,
                  work, Pointwise, [](std::int64_t, std::span<const float>) {});

  EXPECT_THAT(status, StatusIs(absl::StatusCode::kCancelled, "interrupted"));
  EXPECT_EQ(last, 6);
}

}  // namespace
}  // namespace isoscan
