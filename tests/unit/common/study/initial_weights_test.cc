#include "common/study/initial_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "common/weights/safetensors.h"
#include "common/weights/sha256.h"
#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Key;
using testing::Not;

Study StudyWith(std::vector<std::int64_t> features) {
  Study study;
  study.channels = {"T1w"};
  study.labels = {"anterior", "posterior"};
  study.network.features = std::move(features);
  study.network.strides.assign(study.network.stages(), {2, 2, 2});
  study.network.strides[0] = {1, 1, 1};
  study.network.kernels.assign(study.network.stages(), {3, 3, 3});
  return study;
}

std::int64_t Parameters(const TensorShapes& shapes) {
  return std::accumulate(
      shapes.begin(), shapes.end(), std::int64_t{0},
      [](std::int64_t sum, const auto& tensor) { return sum + ElementCount(tensor.second); });
}

// nnU-Net's default 3d_fullres network, as dynamic-network-architectures 0.3 prints its state_dict.
TEST(NetworkShapes, AreThoseOfNnunetsPlainConvUnet) {
  const TensorShapes shapes = NetworkShapes(StudyWith({32, 64, 128, 256, 320, 320}));

  EXPECT_EQ(shapes.size(), 108U);
  EXPECT_EQ(Parameters(shapes), 31'196'399);
  EXPECT_EQ(shapes.at("encoder.stages.0.0.convs.0.conv.weight"), (Shape{32, 1, 3, 3, 3}));
  EXPECT_EQ(shapes.at("encoder.stages.0.0.convs.1.conv.weight"), (Shape{32, 32, 3, 3, 3}));
  EXPECT_EQ(shapes.at("encoder.stages.4.0.convs.0.conv.weight"), (Shape{320, 256, 3, 3, 3}));
  EXPECT_EQ(shapes.at("encoder.stages.5.0.convs.1.conv.bias"), (Shape{320}));
  EXPECT_EQ(shapes.at("encoder.stages.5.0.convs.1.norm.weight"), (Shape{320}));
  EXPECT_EQ(shapes.at("decoder.stages.0.convs.0.conv.weight"), (Shape{320, 640, 3, 3, 3}));
  EXPECT_EQ(shapes.at("decoder.stages.4.convs.1.norm.bias"), (Shape{32}));
  EXPECT_EQ(shapes.at("decoder.transpconvs.0.weight"), (Shape{320, 320, 2, 2, 2}));
  EXPECT_EQ(shapes.at("decoder.transpconvs.1.weight"), (Shape{320, 256, 2, 2, 2}));
  EXPECT_EQ(shapes.at("decoder.transpconvs.4.bias"), (Shape{32}));
  EXPECT_EQ(shapes.at("decoder.seg_layers.0.weight"), (Shape{3, 320, 1, 1, 1}));
  EXPECT_EQ(shapes.at("decoder.seg_layers.4.weight"), (Shape{3, 32, 1, 1, 1}));
  EXPECT_THAT(shapes, Not(Contains(Key("decoder.stages.5.convs.0.conv.weight"))));
}

TEST(NetworkShapes, FollowAnisotropicKernelsAndStrides) {
  Study study = StudyWith({8, 16, 32});
  study.channels = {"T1w", "FLAIR"};
  study.network.kernels = {{1, 3, 3}, {3, 3, 3}, {3, 5, 3}};
  study.network.strides = {{1, 1, 1}, {1, 2, 2}, {2, 2, 2}};

  const TensorShapes shapes = NetworkShapes(study);

  EXPECT_EQ(shapes.at("encoder.stages.0.0.convs.0.conv.weight"), (Shape{8, 2, 1, 3, 3}));
  EXPECT_EQ(shapes.at("encoder.stages.2.0.convs.0.conv.weight"), (Shape{32, 16, 3, 5, 3}));
  // Up from stage 2 by its stride; then with the kernel of the stage that it arrives at.
  EXPECT_EQ(shapes.at("decoder.transpconvs.0.weight"), (Shape{32, 16, 2, 2, 2}));
  EXPECT_EQ(shapes.at("decoder.stages.0.convs.0.conv.weight"), (Shape{16, 32, 3, 3, 3}));
  EXPECT_EQ(shapes.at("decoder.transpconvs.1.weight"), (Shape{16, 8, 1, 2, 2}));
  EXPECT_EQ(shapes.at("decoder.stages.1.convs.0.conv.weight"), (Shape{8, 16, 1, 3, 3}));
}

TEST(NetworkShapes, HaveRunningStatisticsOnlyWithBatchNorm) {
  Study study = StudyWith({8, 16});
  EXPECT_THAT(NetworkShapes(study),
              Not(Contains(Key("encoder.stages.0.0.convs.0.norm.running_mean"))));

  study.network.norm = NetworkPlan::Norm::kBatch;

  EXPECT_EQ(NetworkShapes(study).at("encoder.stages.0.0.convs.0.norm.running_mean"), Shape{8});
  EXPECT_EQ(NetworkShapes(study).at("decoder.stages.0.convs.1.norm.running_var"), Shape{8});
}

// nnU-Net's residual encoder M, as the same package prints it.
TEST(NetworkShapes, AreThoseOfNnunetsResidualEncoderUnet) {
  Study study = StudyWith({32, 64, 128, 256, 320, 320});
  study.network.kind = NetworkPlan::Kind::kResidual;
  study.network.blocks_per_stage = {1, 3, 4, 6, 6, 6};
  study.network.convolutions_per_stage = 1;

  const TensorShapes shapes = NetworkShapes(study);

  EXPECT_EQ(shapes.size(), 264U);
  EXPECT_EQ(Parameters(shapes), 102'350'575);
  EXPECT_EQ(shapes.at("encoder.stem.convs.0.conv.weight"), (Shape{32, 1, 3, 3, 3}));
  EXPECT_EQ(shapes.at("encoder.stages.1.blocks.0.conv1.conv.weight"), (Shape{64, 32, 3, 3, 3}));
  EXPECT_EQ(shapes.at("encoder.stages.1.blocks.0.skip.1.conv.weight"), (Shape{64, 32, 1, 1, 1}));
  EXPECT_THAT(shapes, Not(Contains(Key("encoder.stages.1.blocks.0.skip.1.conv.bias"))));
  EXPECT_EQ(shapes.at("encoder.stages.5.blocks.5.conv2.norm.bias"), (Shape{320}));
  // The features stay: what is added only averages over the stride.
  EXPECT_THAT(shapes, Not(Contains(Key("encoder.stages.5.blocks.0.skip.1.conv.weight"))));
  EXPECT_EQ(shapes.at("decoder.stages.0.convs.0.conv.weight"), (Shape{320, 640, 3, 3, 3}));
  EXPECT_THAT(shapes, Not(Contains(Key("decoder.stages.0.convs.1.conv.weight"))));
}

TEST(NetworkShapes, HaveNoNormsWithoutNormalisation) {
  Study study = StudyWith({8, 16});
  study.network.norm = NetworkPlan::Norm::kNone;

  for (const auto& [name, shape] : NetworkShapes(study)) {
    EXPECT_EQ(name.find("norm"), std::string::npos) << name;
  }
}

TEST(InitialWeights, LetResidualBlocksBeginAsTheIdentity) {
  Study study = StudyWith({8, 16});
  study.network.kind = NetworkPlan::Kind::kResidual;
  study.network.blocks_per_stage = {1, 2};

  const NamedTensors weights = InitialWeights(study);

  EXPECT_THAT(weights.at("encoder.stages.1.blocks.1.conv1.norm.weight").values, Each(1));
  EXPECT_THAT(weights.at("encoder.stages.1.blocks.1.conv2.norm.weight").values, Each(0));
  EXPECT_THAT(weights.at("encoder.stages.1.blocks.0.skip.1.norm.weight").values, Each(1));
}

TEST(InitialWeights, HaveTheShapesOfTheNetwork) {
  Study study = StudyWith({8, 16, 32});
  study.network.norm = NetworkPlan::Norm::kBatch;
  const NamedTensors weights = InitialWeights(study);

  EXPECT_EQ(ShapesOf(weights), NetworkShapes(study));
  for (const auto& [name, tensor] : weights) {
    EXPECT_EQ(static_cast<std::int64_t>(tensor.values.size()), ElementCount(tensor.shape)) << name;
  }
}

TEST(InitialWeights, AreHeNormalWithZeroBiasesAndUnitNorms) {
  Study study = StudyWith({32, 64, 64});
  study.network.norm = NetworkPlan::Norm::kBatch;
  const NamedTensors weights = InitialWeights(study);

  for (const auto& [name, fan_in] :
       {std::pair("encoder.stages.1.0.convs.1.conv.weight", 64 * 27.0),
        std::pair("decoder.stages.1.convs.0.conv.weight", 64 * 27.0),
        // PyTorch counts a transposed convolution's second axis, which are its outputs.
        std::pair("decoder.transpconvs.1.weight", 32 * 8.0)}) {
    const std::vector<float>& values = weights.at(name).values;
    const auto count = static_cast<double>(values.size());
    double sum = 0;
    double squares = 0;
    for (const float value : values) {
      sum += value;
      squares += double{value} * value;
    }
    const double sd = std::sqrt(2 / (1.0001 * fan_in));
    EXPECT_NEAR(sum / count, 0, 5 * sd / std::sqrt(count)) << name;
    EXPECT_NEAR(std::sqrt(squares / count) / sd, 1, 5 / std::sqrt(2 * count)) << name;
  }
  EXPECT_THAT(weights.at("encoder.stages.1.0.convs.1.conv.bias").values, Each(0));
  EXPECT_THAT(weights.at("encoder.stages.1.0.convs.1.norm.weight").values, Each(1));
  EXPECT_THAT(weights.at("encoder.stages.1.0.convs.1.norm.bias").values, Each(0));
  EXPECT_THAT(weights.at("encoder.stages.1.0.convs.1.norm.running_mean").values, Each(0));
  EXPECT_THAT(weights.at("encoder.stages.1.0.convs.1.norm.running_var").values, Each(1));
}

TEST(StartingWeights, AreThoseThatTheStudyNames) {
  Study study = StudyWith({4, 8});
  const NamedTensors weights = InitialWeights(study);
  EXPECT_OK(CheckStartingWeights(study, "weights.safetensors", weights));
  study.network.initial_weights = WeightsDigest(weights);
  EXPECT_OK(CheckStartingWeights(study, "weights.safetensors", weights));

  NamedTensors others = weights;
  others["decoder.seg_layers.0.bias"].values[1] = 2;
  NamedTensors broken = weights;
  broken["decoder.seg_layers.0.bias"].values[1] = std::numeric_limits<float>::infinity();
  NamedTensors missing = weights;
  missing.erase("decoder.seg_layers.0.bias");

  EXPECT_THAT(CheckStartingWeights(study, "weights.safetensors", others),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr(WeightsDigest(others)), HasSubstr(WeightsDigest(weights)))));
  EXPECT_THAT(CheckStartingWeights(study, "weights.safetensors", broken),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("decoder.seg_layers.0.bias has the value inf at index 1")));
  EXPECT_THAT(CheckStartingWeights(study, "weights.safetensors", missing),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is missing")));
}

TEST(InitialWeights, DependOnTheSeedAlone) {
  Study study = StudyWith({8, 16});
  const NamedTensors weights = InitialWeights(study);
  study.name = "another-name";
  study.toml = "another text";
  EXPECT_EQ(InitialWeights(study), weights);

  study.seed = 2;

  EXPECT_NE(InitialWeights(study), weights);
}

TEST(InitialWeights, DrawEachTensorFromAStreamOfItsOwn) {
  // A network with one stage more begins with the same encoder.
  const NamedTensors shallow = InitialWeights(StudyWith({8, 16}));
  const NamedTensors deep = InitialWeights(StudyWith({8, 16, 32}));
  EXPECT_EQ(shallow.at("encoder.stages.1.0.convs.0.conv.weight"),
            deep.at("encoder.stages.1.0.convs.0.conv.weight"));
  EXPECT_NE(shallow.at("encoder.stages.0.0.convs.1.conv.weight").values,
            deep.at("decoder.stages.1.convs.1.conv.weight").values);
}

// Every site makes these weights itself: another digest here is another starting point for every
// study that runs, on some platform, with some compiler.
TEST(InitialWeights, HaveTheSameBitsEverywhere) {
  EXPECT_EQ(Sha256Of(EncodeSafetensors(InitialWeights(StudyWith({8, 16, 32})), {})),
            "82b0e964aa926805fb911c5c15c7e2ddb79e3d2a74974d857a284b85909893eb");
}

}  // namespace
}  // namespace isoscan
