#include "client/interop/state_dict.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <utility>

#include "common/status/status_macros.h"
#include "common/study/initial_weights.h"

namespace isoscan {
namespace {

/// "a.all_modules.0.weight" of "a.conv.weight", "a.all_modules.1.bias" of "a.norm.bias"; the name
/// itself of others.
std::string AliasOf(const std::string& name) {
  const std::size_t last = name.rfind('.');
  const std::size_t before = name.rfind('.', last - 1);
  const std::string module = name.substr(before + 1, last - before - 1);
  if (module != "conv" && module != "norm") return name;
  return name.substr(0, before) + (module == "conv" ? ".all_modules.0" : ".all_modules.1") +
         name.substr(last);
}

/// Every name under which nnU-Net knows the tensor.
std::vector<std::string> NnunetKeys(const std::string& name) {
  std::vector<std::string> keys{name};
  if (const std::string alias = AliasOf(name); alias != name) keys.push_back(alias);
  if (name.starts_with("encoder.")) {
    for (std::size_t i = 0, count = keys.size(); i < count; ++i) {
      keys.push_back("decoder." + keys[i]);
    }
  }
  return keys;
}

/// DynUNet registers each of its modules twice: by its own name, and in the recursive
/// `skip_layers`.
class DynUnetKeys {
 public:
  explicit DynUnetKeys(const NetworkPlan& network) : stages_(network.stages()) {}

  void AddEncoderStage(std::size_t stage) {
    const std::string module = stage == 0             ? "input_block"
                               : stage + 1 == stages_ ? "bottleneck"
                                                      : fmt::format("downsamples.{}", stage - 1);
    const std::string skip = SkipLayer(stage) + (stage + 1 == stages_ ? "" : ".downsample");
    AddBlock(fmt::format("encoder.stages.{}.0", stage), {module, skip});
  }

  /// `level`: the stage whose skip it joins.
  void AddDecoderStage(std::size_t level) {
    const std::size_t d = stages_ - 2 - level;
    const std::string module = fmt::format("upsamples.{}", d);
    const std::string skip = SkipLayer(level) + ".upsample";
    for (const char* part : {"weight", "bias"}) {
      for (const std::string& scope : {module, skip}) {
        keys_.tensors[fmt::format("{}.transp_conv.conv.{}", scope, part)] =
            fmt::format("decoder.transpconvs.{}.{}", d, part);
      }
    }
    AddBlock(fmt::format("decoder.stages.{}", d), {module + ".conv_block", skip + ".conv_block"});
  }

  void AddHead(std::size_t level) {
    const std::string ours = fmt::format("decoder.seg_layers.{}", stages_ - 2 - level);
    std::vector<std::string> scopes{"output_block"};
    if (level > 0) {
      scopes = {fmt::format("deep_supervision_heads.{}", level - 1),
                SkipLayer(level) + ".super_head"};
    }
    for (const char* part : {"weight", "bias"}) {
      for (const std::string& scope : scopes) {
        keys_.tensors[fmt::format("{}.conv.conv.{}", scope, part)] =
            fmt::format("{}.{}", ours, part);
      }
    }
  }

  StateDict Take() && { return std::move(keys_); }

 private:
  static std::string SkipLayer(std::size_t depth) {
    std::string layer = "skip_layers";
    for (std::size_t i = 0; i < depth; ++i) layer += ".next_layer";
    return layer;
  }

  void AddBlock(const std::string& ours, const std::vector<std::string>& scopes) {
    for (int j = 0; j < 2; ++j) {
      for (const std::string& scope : scopes) {
        keys_.tensors[fmt::format("{}.conv{}.conv.weight", scope, j + 1)] =
            fmt::format("{}.convs.{}.conv.weight", ours, j);
        for (const char* part : {"weight", "bias"}) {
          keys_.tensors[fmt::format("{}.norm{}.{}", scope, j + 1, part)] =
              fmt::format("{}.convs.{}.norm.{}", ours, j, part);
        }
      }
    }
  }

  std::size_t stages_;
  StateDict keys_;
};

absl::Status CheckIsDynUnet(const NetworkPlan& network) {
  const auto no = [](const std::string& why) {
    return absl::InvalidArgumentError("MONAI's DynUNet cannot be this network: " + why +
                                      "; export it to nnU-Net");
  };
  if (network.kind != NetworkPlan::Kind::kPlain) {
    return no("its residual blocks are others than nnU-Net's");
  }
  if (network.norm != NetworkPlan::Norm::kInstance) {
    return no(
        "it has no bias before a normalisation, which cancels under norm = \"instance\" only");
  }
  if (network.convolutions_per_stage != 2) {
    return no(fmt::format("it has 2 convolutions per stage, the study {}",
                          network.convolutions_per_stage));
  }
  if (network.stages() < 3) {
    return no(fmt::format("it has at least 3 stages, the study {}", network.stages()));
  }
  for (std::size_t stage = 1; stage < network.stages(); ++stage) {
    const Triple& kernel = network.kernels[stage];
    const Triple& first = network.kernels.front();
    if (kernel != first) {
      return no(fmt::format(
          "its decoder takes each stage's kernel from the stage below, so all must be equal, and "
          "stage {} has [{}, {}, {}], stage 0 [{}, {}, {}]",
          stage, kernel[0], kernel[1], kernel[2], first[0], first[1], first[2]));
    }
    const Triple& stride = network.strides[stage];
    if (*std::max_element(stride.begin(), stride.end()) > 2) {
      return no(
          fmt::format("it pads otherwise under strides above 2, and stage {} has [{}, {}, {}]",
                      stage, stride[0], stride[1], stride[2]));
    }
  }
  return absl::OkStatus();
}

}  // namespace

StateDict NnunetStateDict(const Study& study) {
  constexpr std::string_view kVariance = ".running_var";
  StateDict keys;
  for (const auto& [name, shape] : NetworkShapes(study)) {
    for (const std::string& key : NnunetKeys(name)) {
      keys.tensors[key] = name;
      if (key.ends_with(kVariance)) {
        keys.counters.push_back(key.substr(0, key.size() - kVariance.size()) +
                                ".num_batches_tracked");
      }
    }
  }
  return keys;
}

absl::StatusOr<StateDict> DynUnetStateDict(const Study& study) {
  const NetworkPlan& network = study.network;
  RETURN_IF_ERROR(CheckIsDynUnet(network));
  DynUnetKeys keys(network);
  for (std::size_t stage = 0; stage < network.stages(); ++stage) keys.AddEncoderStage(stage);
  for (std::size_t level = 0; level + 1 < network.stages(); ++level) {
    keys.AddDecoderStage(level);
    if (level == 0 || study.training.deep_supervision) keys.AddHead(level);
  }
  return std::move(keys).Take();
}

}  // namespace isoscan
