#include "client/inference/predictor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "client/imaging/resampling.h"
#include "client/imaging/score_labels.h"
#include "client/network/compute_device.h"
#include "client/network/plain_conv_unet.h"
#include "client/network/weights_bridge.h"
#include "common/random/philox.h"
#include "common/study/initial_weights.h"
#include "tests/support/status_matchers.h"
#include <ATen/ATen.h>

namespace isoscan {
namespace {

using ::testing::HasSubstr;

Study SmallStudy() {
  Study study;
  study.channels = {"T1w", "FLAIR"};
  study.labels = {"bright", "dark"};
  study.network = {
      .features = {8, 16}, .strides = {{1, 1, 1}, {2, 2, 2}}, .kernels = {{3, 3, 3}, {3, 3, 3}}};
  study.training.patch_size = {12, 16, 16};
  study.training.mirror_axes = {0, 2};
  return study;
}

/// Noise, with blobs of several sizes, so that no label is everywhere.
PreparedCase Noise(const std::array<std::int64_t, 3>& size) {
  PreparedCase noise;
  noise.grid.size = size;
  noise.reference_grid = noise.grid;
  RandomStream random(2, "noise");
  std::vector<float> image;
  for (std::int64_t i = 0; i < 2 * noise.grid.voxels(); ++i) {
    image.push_back(static_cast<float>(random.Normal() + std::sin(static_cast<double>(i) / 37)));
  }
  noise.image = std::move(image);
  return noise;
}

ComputeDevice Cpu(int threads, torch::ScalarType type = torch::kFloat32) {
  ComputeDevice device;
  device.threads = threads;
  device.type = type;
  device.name = "CPU";
  return device;
}

TEST(Predictor, ScoresAVolumeOfOneWindowAsTheNetworkDoes) {
  const Study study = SmallStudy();
  const NamedTensors weights = InitialWeights(study);
  PreparedCase noise = Noise({16, 16, 12});
  ASSERT_OK_AND_ASSIGN(Predictor predictor, Predictor::Create(study, weights, Cpu(2)));

  ASSERT_OK_AND_ASSIGN(const std::vector<float> scores, predictor.Scores(noise));

  PlainConvUNet network(2, 3, study.network);
  ASSERT_OK(LoadWeights("these weights", weights, *network));
  network->eval();
  const torch::NoGradGuard no_gradient;
  const torch::Tensor expected =
      network(at::tensor(noise.image.Copy()).view({1, 2, 12, 16, 16})).front().flatten();
  ASSERT_EQ(static_cast<std::int64_t>(scores.size()), expected.numel());
  for (std::size_t i = 0; i < scores.size(); ++i) {
    ASSERT_NEAR(scores[i], expected[static_cast<std::int64_t>(i)].item<float>(), 1e-4);
  }
}

TEST(Predictor, LabelsAreTheArgMaxOfItsScoresOnTheCasesOwnGrid) {
  const Study study = SmallStudy();
  PreparedCase noise = Noise({29, 25, 31});
  noise.reference_grid = WithSpacing(noise.grid, {0.7, 1.3, 1.9});
  ASSERT_OK_AND_ASSIGN(Predictor predictor,
                       Predictor::Create(study, InitialWeights(study), Cpu(2)));

  ASSERT_OK_AND_ASSIGN(const std::vector<float> scores, predictor.Scores(noise));
  ASSERT_OK_AND_ASSIGN(const LabelMap labels, predictor.Predict(noise));

  const LabelMap expected = ArgMaxResampled(scores, 3, noise.grid, noise.reference_grid);
  EXPECT_EQ(labels.geometry, noise.reference_grid);
  EXPECT_EQ(labels.voxels, expected.voxels);
  EXPECT_EQ(std::set<int>(labels.voxels.begin(), labels.voxels.end()), (std::set<int>{0, 1, 2}));
}

TEST(Predictor, LabelsDependNeitherOnThreadsNorOnTheBatch) {
  const Study study = SmallStudy();
  const PreparedCase noise = Noise({29, 25, 31});
  const NamedTensors weights = InitialWeights(study);
  for (const torch::ScalarType type : {torch::kFloat32, torch::kBFloat16}) {
    if (type == torch::kBFloat16 && !CpuHasBfloat16()) continue;
    std::vector<std::uint8_t> first;
    for (const int threads : {1, 3}) {
      ASSERT_OK_AND_ASSIGN(Predictor predictor,
                           Predictor::Create(study, weights, Cpu(threads, type)));
      for (const std::int64_t batch : {1, 4}) {
        ASSERT_OK_AND_ASSIGN(const LabelMap labels,
                             predictor.Predict(noise, {.windows_at_once = batch}));
        if (first.empty()) first = labels.voxels;
        std::size_t different = 0;
        for (std::size_t i = 0; i < first.size(); ++i) different += labels.voxels[i] != first[i];
        EXPECT_EQ(different, 0U) << threads << " threads, batch " << batch;
      }
    }
  }
}

TEST(Predictor, InBfloat16ScoresAboutTheSame) {
  if (!CpuHasBfloat16()) GTEST_SKIP() << "this CPU has no bfloat16";
  const Study study = SmallStudy();
  const PreparedCase noise = Noise({20, 18, 14});
  const NamedTensors weights = InitialWeights(study);
  ASSERT_OK_AND_ASSIGN(Predictor exact, Predictor::Create(study, weights, Cpu(2)));
  ASSERT_OK_AND_ASSIGN(Predictor half, Predictor::Create(study, weights, Cpu(2, torch::kBFloat16)));

  ASSERT_OK_AND_ASSIGN(const std::vector<float> one, exact.Scores(noise));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> other, half.Scores(noise));

  double square = 0;
  double difference = 0;
  for (std::size_t i = 0; i < one.size(); ++i) {
    square += std::pow(static_cast<double>(one[i]), 2);
    difference += std::pow(static_cast<double>(one[i] - other[i]), 2);
  }
  EXPECT_LT(difference, 1e-3 * square);
  EXPECT_GT(difference, 0);
}

TEST(Predictor, MirrorsAlongTheAxesThatItIsTold) {
  const Study study = SmallStudy();
  PreparedCase noise = Noise({16, 16, 12});
  ASSERT_OK_AND_ASSIGN(Predictor predictor,
                       Predictor::Create(study, InitialWeights(study), Cpu(2)));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> plain, predictor.Scores(noise));
  const auto flipped_x = [](const std::vector<float>& values) {
    std::vector<float> flipped = values;
    for (auto row = flipped.begin(); row != flipped.end(); row += 16) std::reverse(row, row + 16);
    return flipped;
  };
  noise.image = flipped_x(noise.image.Copy());
  ASSERT_OK_AND_ASSIGN(const std::vector<float> of_mirrored, predictor.Scores(noise));
  const std::vector<float> back = flipped_x(of_mirrored);

  ASSERT_OK_AND_ASSIGN(const std::vector<float> both,
                       predictor.Scores(noise, {.mirror_axes = {2}}));

  const std::vector<float> both_back = flipped_x(both);
  for (std::size_t i = 0; i < plain.size(); ++i) {
    ASSERT_NEAR(both_back[i], (plain[i] + back[i]) / 2, 1e-4);
  }
}

TEST(Predictor, RefusesWeightsOfAnotherNetworkByTheTensorsName) {
  const Study study = SmallStudy();
  NamedTensors weights = InitialWeights(study);
  weights.erase("encoder.stages.1.0.convs.0.conv.weight");

  EXPECT_THAT(Predictor::Create(study, weights, Cpu(1)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("encoder.stages.1.0.convs.0.conv.weight")));
}

TEST(Predictor, SaysThatAModelsScoresAreNotFinite) {
  const Study study = SmallStudy();
  NamedTensors weights = InitialWeights(study);
  weights["decoder.seg_layers.0.bias"].values[1] = std::numeric_limits<float>::quiet_NaN();
  ASSERT_OK_AND_ASSIGN(Predictor predictor, Predictor::Create(study, weights, Cpu(1)));

  EXPECT_THAT(predictor.Predict(Noise({16, 16, 12})),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("NaN or infinite")));
}

TEST(Predictor, RefusesAnImageThatIsNotOfItsGrid) {
  const Study study = SmallStudy();
  PreparedCase noise = Noise({16, 16, 12});
  noise.image = std::vector<float>(noise.image.begin(), noise.image.end() - 1);
  ASSERT_OK_AND_ASSIGN(Predictor predictor,
                       Predictor::Create(study, InitialWeights(study), Cpu(1)));

  EXPECT_THAT(predictor.Predict(noise),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("6143 values")));
}

TEST(EstimateScoresMemory, GrowsWithASliceAndNotWithTheDepth) {
  const Study study = SmallStudy();
  Geometry grid;
  grid.size = {100, 100, 100};
  Geometry deep = grid;
  deep.size[2] = 1000;
  Geometry wide = grid;
  wide.size[0] = 1000;
  const auto without_labels = [&](const Geometry& geometry) {
    return EstimateScoresMemory(study, geometry, geometry) - geometry.voxels();
  };

  EXPECT_EQ(without_labels(deep), without_labels(grid));
  EXPECT_EQ(without_labels(wide), 10 * without_labels(grid));
}

}  // namespace
}  // namespace isoscan
