/// Our networks beside those of PyPI's package, with the same weights (tests/interop/networks.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <torch/utils.h>

#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "client/network/residual_encoder_unet.h"
#include "client/network/weights_bridge.h"
#include "common/study/initial_weights.h"
#include "tests/support/status_matchers.h"
#include <ATen/ATen.h>

namespace isoscan {
namespace {

using nlohmann::json;

/// CRC-32 of IEEE 802.3, as Python's zlib has it.
std::uint32_t Crc32(std::string_view text) {
  std::uint32_t crc = 0xFFFFFFFFU;
  for (const char character : text) {
    crc ^= static_cast<unsigned char>(character);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1U) ^ (0xEDB88320U & (0U - (crc & 1U)));
  }
  return ~crc;
}

/// numbers() of the script: from -0.5 to 0.5, by the tensor's name.
std::vector<float> Numbers(std::string_view name, std::int64_t count) {
  const std::uint32_t start = Crc32(name);
  std::vector<float> numbers(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    std::uint32_t mixed = (static_cast<std::uint32_t>(i) * 2654435761U) ^ start;
    mixed ^= mixed >> 16U;
    mixed *= 2246822519U;
    mixed ^= mixed >> 13U;
    numbers[i] = static_cast<float>(static_cast<double>(mixed) / 4294967296.0 - 0.5);
  }
  return numbers;
}

/// weights() of the script.
NamedTensors WeightsOf(const TensorShapes& shapes) {
  NamedTensors weights;
  for (const auto& [name, shape] : shapes) {
    Tensor& tensor = weights[name];
    tensor = {shape, Numbers(name, ElementCount(shape))};
    const bool around_one = name.ends_with("norm.weight") || name.ends_with("running_var");
    for (float& value : tensor.values) {
      value = around_one ? value + 1 : shape.size() > 1 ? value / 4 : value;
    }
  }
  return weights;
}

Study StudyOf(const json& golden, const json& plan) {
  Study study;
  study.channels.assign(golden.at("channels").get<std::size_t>(), "channel");
  study.labels.assign(golden.at("classes").get<std::size_t>() - 1, "label");
  study.network.features = plan.at("features").get<std::vector<std::int64_t>>();
  study.network.strides = plan.at("strides").get<std::vector<Triple>>();
  study.network.kernels = plan.at("kernels").get<std::vector<Triple>>();
  if (plan.at("kind") == "residual") {
    study.network.kind = NetworkPlan::Kind::kResidual;
    study.network.convolutions_per_stage = 1;
    study.network.blocks_per_stage = plan.at("blocks_per_stage").get<std::vector<std::int64_t>>();
  }
  study.network.norm = plan.at("norm") == "batch"  ? NetworkPlan::Norm::kBatch
                       : plan.at("norm") == "none" ? NetworkPlan::Norm::kNone
                                                   : NetworkPlan::Norm::kInstance;
  return study;
}

TEST(NnunetNetworks, ScoreWhatPyPisPackageScoresWithTheSameWeights) {
  std::ifstream file(GOLDEN_FOLDER "/interop/networks.json");
  const json golden = json::parse(file);
  const Shape patch = golden.at("patch").get<Shape>();
  const auto channels = golden.at("channels").get<std::int64_t>();
  std::vector<float> numbers = Numbers("image", channels * ElementCount(patch));
  const at::Tensor image =
      at::from_blob(numbers.data(), {1, channels, patch[0], patch[1], patch[2]}) * 4;
  int compared = 0;
  for (const auto& [name, network] : golden.at("networks").items()) {
    if (!network.contains("scores")) continue;
    SCOPED_TRACE(name);
    const Study study = StudyOf(golden, network.at("plan"));
    const auto ours = MakeNetwork(study);
    ASSERT_OK(LoadWeights("the script", WeightsOf(NetworkShapes(study)), *ours));
    ours->eval();
    const torch::NoGradGuard no_gradient;

    const std::vector<at::Tensor> scores =
        ours->forward(image, static_cast<std::int64_t>(study.network.stages()) - 1);

    ASSERT_EQ(scores.size(), network.at("scores").size());
    for (std::size_t head = 0; head < scores.size(); ++head) {
      const auto theirs = network.at("scores")[head].get<std::vector<float>>();
      const at::Tensor expected = at::tensor(theirs);
      const at::Tensor given = scores[head].flatten().slice(0, 0, {}, golden.at("every"));
      ASSERT_EQ(given.sizes(), expected.sizes());
      EXPECT_LT((given - expected).abs().max().item<double>(),
                1e-5 * expected.abs().max().item<double>())
          << "head " << head;
    }
    ++compared;
  }
  EXPECT_EQ(compared, 8);
}

TEST(ResidualEncoderUNet, TrainsInBfloat16AsInFloat32) {
  Study study;
  study.channels = {"T1w"};
  study.labels = {"lesion"};
  study.network = {.kind = NetworkPlan::Kind::kResidual,
                   .features = {4, 8, 8},
                   .strides = {{1, 1, 1}, {1, 2, 2}, {2, 2, 2}},
                   .kernels = {{1, 3, 3}, {3, 3, 3}, {3, 3, 3}},
                   .convolutions_per_stage = 1,
                   .blocks_per_stage = {1, 2, 2}};
  const auto network = MakeNetwork(study);
  ASSERT_OK(LoadWeights("the script", WeightsOf(NetworkShapes(study)), *network));
  const at::Tensor image = at::randn({2, 1, 8, 16, 16}, at::detail::createCPUGenerator(3));

  const at::Tensor exact = network->forward(image)[0];
  const std::vector<at::Tensor> rounded = network->forward(image.to(at::kBFloat16), 2);
  (rounded[0].sum() + rounded[1].sum()).backward();

  EXPECT_LT((exact - rounded[0].to(at::kFloat)).std().item<double>(),
            0.05 * exact.std().item<double>());
  for (const auto& parameter : network->named_parameters()) {
    // A bias before an instance normalisation cancels: it is not computed.
    EXPECT_NE(parameter.value().grad().defined(), parameter.key().ends_with(".conv.bias"))
        << parameter.key();
  }
}

}  // namespace
}  // namespace isoscan
