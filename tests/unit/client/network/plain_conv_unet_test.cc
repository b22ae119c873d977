#include "client/network/plain_conv_unet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/cuda.h>
#include <torch/utils.h>

#include <cstddef>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "client/network/weights_bridge.h"
#include "common/study/initial_weights.h"
#include "tests/support/status_matchers.h"
#include <ATen/ATen.h>

namespace isoscan {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kNoGpu[] = "no GPU that this build can use";

Study IsotropicStudy(NetworkPlan::Norm norm = NetworkPlan::Norm::kInstance) {
  Study study;
  study.seed = 7;
  study.channels = {"T1w"};
  study.labels = {"anterior", "posterior"};
  study.network = {.features = {4, 8, 16},
                   .strides = {{1, 1, 1}, {2, 2, 2}, {2, 2, 2}},
                   .kernels = {{3, 3, 3}, {3, 3, 3}, {3, 3, 3}},
                   .norm = norm};
  study.training.patch_size = {16, 16, 16};
  return study;
}

/// Thick slices, as of a clinical FLAIR.
Study AnisotropicStudy() {
  Study study = IsotropicStudy();
  study.channels = {"FLAIR", "T1w"};
  study.labels = {"lesion"};
  study.network.strides = {{1, 1, 1}, {1, 2, 2}, {2, 2, 2}};
  study.network.kernels = {{1, 3, 3}, {3, 3, 3}, {3, 5, 3}};
  study.training.patch_size = {4, 16, 24};
  return study;
}

PlainConvUNet NetworkOf(const Study& study) {
  return PlainConvUNet(static_cast<std::int64_t>(study.channels.size()), study.classes(),
                       study.network);
}

PlainConvUNet StartedNetwork(const Study& study) {
  PlainConvUNet network = NetworkOf(study);
  EXPECT_OK(LoadWeights("the plan", InitialWeights(study), *network));
  return network;
}

torch::Tensor RandomImage(const Study& study, std::int64_t samples) {
  const Triple& patch = study.training.patch_size;
  return at::randn(
      {samples, static_cast<std::int64_t>(study.channels.size()), patch[0], patch[1], patch[2]},
      at::detail::createCPUGenerator(3));
}

double LargestDifference(const torch::Tensor& left, const torch::Tensor& right) {
  return (left - right).abs().max().item<double>();
}

TEST(PlainConvUNet, HasThePlansParameterNamesAndShapes) {
  Study six_stages = IsotropicStudy();
  six_stages.network.features = {2, 3, 4, 5, 6, 6};
  six_stages.network.strides.assign(6, {2, 2, 2});
  six_stages.network.strides.front() = {1, 1, 1};
  six_stages.network.kernels.assign(6, {3, 3, 3});
  Study three_convolutions = AnisotropicStudy();
  three_convolutions.network.convolutions_per_stage = 3;

  for (const Study& study : {IsotropicStudy(), IsotropicStudy(NetworkPlan::Norm::kBatch),
                             IsotropicStudy(NetworkPlan::Norm::kGroup), AnisotropicStudy(),
                             six_stages, three_convolutions}) {
    EXPECT_EQ(ShapesOf(*NetworkOf(study)), NetworkShapes(study));
  }
}

TEST(PlainConvUNet, ScoresEveryClassAtEachResolution) {
  const Study study = AnisotropicStudy();
  PlainConvUNet network = StartedNetwork(study);
  const torch::Tensor image = RandomImage(study, 2);

  const std::vector<torch::Tensor> scores = network(image, 2);

  ASSERT_EQ(scores.size(), 2U);
  EXPECT_EQ(scores[0].sizes().vec(), Shape({2, 2, 4, 16, 24}));
  EXPECT_EQ(scores[1].sizes().vec(), Shape({2, 2, 4, 8, 12}));
  EXPECT_EQ(network(image).size(), 1U);
  EXPECT_TRUE(at::equal(network(image)[0], scores[0]));
}

TEST(PlainConvUNet, ScoresASampleTheSameWhateverItsBatchHolds) {
  const Study study = IsotropicStudy();
  PlainConvUNet network = StartedNetwork(study);
  const torch::NoGradGuard no_gradient;
  const torch::Tensor image = RandomImage(study, 3);

  const torch::Tensor together = network(image)[0];
  const torch::Tensor alone = network(image.narrow(0, 1, 1))[0];

  EXPECT_LT(LargestDifference(together.narrow(0, 1, 1), alone), 1e-5);
}

TEST(UpConvolution, IsATransposedConvolutionWhoseKernelIsItsStride) {
  for (const Triple& stride : {Triple{2, 2, 2}, Triple{1, 2, 2}, Triple{1, 1, 3}}) {
    UpConvolution up(5, 3, stride);
    {
      const torch::NoGradGuard no_gradient;
      for (torch::Tensor& parameter : up->parameters()) parameter.normal_();
    }
    const torch::Tensor input = at::randn({2, 5, 3, 4, 5});
    const auto parameters = up->named_parameters();

    const torch::Tensor expected =
        at::conv_transpose3d(input, parameters["weight"], parameters["bias"], stride);

    ASSERT_EQ(up(input).sizes(), expected.sizes());
    EXPECT_LT(LargestDifference(up(input), expected), 1e-5);
  }
}

/// Fills memory that is then freed with NaN, so that whoever reads what nobody wrote is seen.
void SpoilFreeMemory() {
  std::vector<torch::Tensor> spoilt;
  for (std::int64_t size = 16; size < (1 << 20); size *= 2) {
    spoilt.push_back(at::full({size}, std::numeric_limits<float>::quiet_NaN()));
  }
}

TEST(Convolution, HasTheSameGradientInBfloat16WhereAnAxisIsShorterThanTheKernel) {
  for (const Triple& size : {Triple{2, 6, 6}, Triple{2, 2, 2}, Triple{1, 1, 4}, Triple{4, 6, 6}}) {
    Convolution convolution(16, 16, Triple{3, 3, 3}, Triple{1, 1, 1});
    {
      const torch::NoGradGuard no_gradient;
      for (torch::Tensor& parameter : convolution->parameters()) parameter.normal_();
    }
    torch::Tensor weight = convolution->named_parameters()["weight"];
    const torch::Tensor input = at::randn({2, 16, size[0], size[1], size[2]});
    const auto gradient = [&](torch::ScalarType type) {
      weight.mutable_grad().reset();
      SpoilFreeMemory();
      const torch::Tensor output = convolution(input.to(type)).to(torch::kFloat32);
      SpoilFreeMemory();
      output.square().sum().backward();
      return weight.grad().clone();
    };

    const torch::Tensor exact = gradient(torch::kFloat32);
    const torch::Tensor rounded = gradient(torch::kBFloat16);

    EXPECT_LT(LargestDifference(exact, rounded), 0.03 * exact.abs().max().item<double>());
  }
}

TEST(FeatureNorm, IsInstanceNormInEitherType) {
  FeatureNorm norm(6, NetworkPlan::Norm::kInstance);
  const torch::NoGradGuard no_gradient;
  auto parameters = norm->named_parameters();
  parameters["weight"].uniform_(0.5, 1.5);
  parameters["bias"].normal_();
  const torch::Tensor input = at::randn({2, 6, 7, 8, 9}) * 3 + 1;
  const torch::Tensor expected = at::instance_norm(input, parameters["weight"], parameters["bias"],
                                                   {}, {}, true, 0.1, 1e-5, false);

  EXPECT_LT(LargestDifference(norm(input), expected), 1e-6 * expected.abs().max().item<double>());
  EXPECT_LT(LargestDifference(norm(input.to(torch::kBFloat16)).to(torch::kFloat32), expected),
            0.02 * expected.abs().max().item<double>());
}

TEST(FeatureNorm, IsTheSameOnAGpuWithItsGradients_CUDA) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << kNoGpu;
  // Two samples of one piece and a bit each (instance_normalization_lanes.h).
  const torch::Tensor input = at::randn({2, 6, 33, 32, 32}) * 3 + 1;
  const torch::Tensor outer = at::randn_like(input);
  for (const torch::ScalarType type : {torch::kFloat32, torch::kBFloat16}) {
    std::vector<std::vector<torch::Tensor>> results;
    for (const torch::Device device : {torch::Device(torch::kCPU), torch::Device(torch::kCUDA)}) {
      FeatureNorm norm(6, NetworkPlan::Norm::kInstance);
      auto parameters = norm->named_parameters();
      {
        const torch::NoGradGuard no_gradient;
        parameters["weight"].copy_(at::linspace(-1, 1.5, 6));
        parameters["bias"].copy_(at::linspace(0.5, -0.5, 6));
      }
      norm->to(device);
      torch::Tensor own = input.to(device, type).requires_grad_();
      const torch::Tensor output = norm(own, kLeakySlope);
      output.backward(outer.to(device, type));
      results.push_back(
          {output, own.grad(), parameters["weight"].grad(), parameters["bias"].grad()});
      for (torch::Tensor& result : results.back()) {
        result = result.detach().to(torch::kCPU, torch::kFloat32);
      }
    }
    for (std::size_t i = 0; i < results[0].size(); ++i) {
      const double tolerance = type == torch::kFloat32 ? 1e-4 : 0.02;
      EXPECT_LT(LargestDifference(results[0][i], results[1][i]),
                tolerance * results[0][i].abs().max().item<double>())
          << i;
    }
  }
}

TEST(FeatureNorm, KeepsItsStatisticsInFloat32) {
  FeatureNorm norm(1, NetworkPlan::Norm::kInstance);
  const torch::NoGradGuard no_gradient;
  // float16 sums would overflow here, bfloat16 sums stop growing.
  const torch::Tensor input = (at::randn({1, 1, 32, 32, 32}) * 300).to(torch::kBFloat16);

  const torch::Tensor result = norm(input).to(torch::kFloat64);

  EXPECT_NEAR(result.mean().item<double>(), 0, 1e-3);
  EXPECT_NEAR(result.std().item<double>(), 1, 1e-3);
}

TEST(FeatureNorm, UsesRunningStatisticsForBatchNormInPrediction) {
  FeatureNorm norm(2, NetworkPlan::Norm::kBatch);
  const torch::NoGradGuard no_gradient;
  const torch::Tensor input = at::randn({2, 2, 4, 4, 4}) * 2 + 5;
  for (int i = 0; i < 200; ++i) norm(input);

  norm->eval();
  const torch::Tensor predicted = norm(input);

  EXPECT_NEAR(predicted.mean().item<double>(), 0, 1e-2);
  EXPECT_NEAR(predicted.std().item<double>(), 1, 2e-2);
}

/// Its definition, in double: each group of one sample has mean 0 and variance 1 before the scale.
TEST(FeatureNorm, NormalisesEightGroupsOfChannelsOfOneSampleInEitherType) {
  FeatureNorm norm(16, NetworkPlan::Norm::kGroup);
  const torch::NoGradGuard no_gradient;
  const torch::Tensor input = at::randn({2, 16, 3, 4, 5}) * 3 + 1;
  const torch::Tensor groups = input.to(torch::kFloat64).view({2, 8, -1});
  const torch::Tensor expected =
      ((groups - groups.mean(2, true)) / (groups.var(2, /*unbiased=*/false, true) + 1e-5).sqrt())
          .view_as(input)
          .to(torch::kFloat32);

  EXPECT_LT(LargestDifference(norm(input), expected), 1e-5);
  EXPECT_LT(LargestDifference(norm(input.to(torch::kBFloat16)).to(torch::kFloat32), expected),
            0.05);
  EXPECT_EQ(norm(input.to(torch::kBFloat16)).scalar_type(), torch::kBFloat16);
}

TEST(FeatureNorm, TakesAsManyGroupsAsDivideTheChannels) {
  const torch::NoGradGuard no_gradient;
  const torch::Tensor input = at::randn({1, 6, 3, 4, 5});

  EXPECT_LT(
      LargestDifference(FeatureNorm(6, NetworkPlan::Norm::kGroup)(input), at::group_norm(input, 2)),
      1e-5);
}

TEST(ConvolutionBlock, NeedsNoBiasBeforeAnInstanceNorm) {
  const Study study = IsotropicStudy();
  PlainConvUNet network = StartedNetwork(study);
  const torch::Tensor image = RandomImage(study, 1);
  const torch::Tensor before = network(image)[0];
  NamedTensors shifted = InitialWeights(study);
  for (auto& [name, tensor] : shifted) {
    if (name.ends_with("conv.bias")) tensor.values.assign(tensor.values.size(), 3.0F);
  }

  ASSERT_OK(LoadWeights("the plan", shifted, *network));
  const torch::Tensor after = network(image)[0];
  after.sum().backward();

  EXPECT_TRUE(at::equal(before, after));
  for (const auto& parameter : network->named_parameters()) {
    if (parameter.key().ends_with("conv.bias")) {
      EXPECT_FALSE(parameter.value().grad().defined()) << parameter.key();
    }
  }
}

TEST(PlainConvUNet, ScoresNearlyTheSameInBfloat16) {
  const Study study = IsotropicStudy();
  PlainConvUNet network = StartedNetwork(study);
  const torch::NoGradGuard no_gradient;
  const torch::Tensor image = RandomImage(study, 2);

  const torch::Tensor exact = network(image)[0];
  const torch::Tensor rounded = network(image.to(torch::kBFloat16))[0].to(torch::kFloat32);

  EXPECT_LT((exact - rounded).std().item<double>(), 0.03 * exact.std().item<double>());
}

TEST(PlainConvUNet, ScoresTheSameOncePreparedForInference) {
  Study sixteens = IsotropicStudy();  // PackedWeights takes no other features.
  sixteens.network.features = {16, 32, 48};
  for (const Study& study : {IsotropicStudy(), AnisotropicStudy(),
                             IsotropicStudy(NetworkPlan::Norm::kBatch), sixteens}) {
    const torch::NoGradGuard no_gradient;
    const torch::Tensor image = RandomImage(study, 2);
    for (const torch::ScalarType type : {torch::kFloat32, torch::kBFloat16}) {
      PlainConvUNet network = StartedNetwork(study);
      network->eval();
      const torch::Tensor before = network(image.to(type)).front().to(torch::kFloat32);

      network->PrepareInference(torch::kCPU, type);

      const torch::Tensor after = network(image.to(type)).front().to(torch::kFloat32);
      EXPECT_LT((after - before).abs().max().item<double>(),
                (type == torch::kFloat32 ? 1e-5 : 3e-2) * before.abs().max().item<double>());
    }
  }
}

TEST(WeightsBridge, GivesBackWhatItLoaded) {
  for (const Study& study : {AnisotropicStudy(), IsotropicStudy(NetworkPlan::Norm::kBatch)}) {
    const NamedTensors weights = InitialWeights(study);
    PlainConvUNet network = NetworkOf(study);

    ASSERT_OK(LoadWeights("the plan", weights, *network));

    EXPECT_EQ(WeightsOf(*network), weights);
  }
}

TEST(WeightsBridge, RefusesWeightsOfAnotherNetworkByTheTensorsName) {
  const Study study = IsotropicStudy();
  PlainConvUNet network = StartedNetwork(study);
  const NamedTensors good = InitialWeights(study);
  const std::string head = "decoder.seg_layers.1.bias";

  NamedTensors missing = good;
  missing.erase(head);
  NamedTensors reshaped = good;
  reshaped[head] = {{2}, {1, 2}};
  NamedTensors superfluous = good;
  superfluous["encoder.stem.weight"] = {{1}, {1}};

  EXPECT_THAT(LoadWeights("the global model", missing, *network),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("the global model"), HasSubstr(head))));
  EXPECT_THAT(LoadWeights("the global model", reshaped, *network),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr(head), HasSubstr("[2]"), HasSubstr("[3]"))));
  EXPECT_THAT(LoadWeights("the global model", superfluous, *network),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("encoder.stem.weight")));
  EXPECT_EQ(WeightsOf(*network), good);
}

}  // namespace
}  // namespace isoscan
