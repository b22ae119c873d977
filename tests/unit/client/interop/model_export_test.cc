#include "client/interop/model_export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <torch/csrc/jit/serialization/pickle.h>

#include <csignal>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "client/interop/exported_plan.h"
#include "client/interop/state_dict.h"
#include "common/study/initial_weights.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include <ATen/ATen.h>
#include <sys/resource.h>

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

std::string TextOf(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

Study SmallStudy() {
  Study study;
  study.name = "small";
  study.channels = {"T1w", "FLAIR"};
  study.labels = {"anterior", "posterior"};
  study.network = {.features = {2, 3, 4},
                   .strides = {{1, 1, 1}, {2, 2, 2}, {2, 2, 2}},
                   .kernels = {{3, 3, 3}, {3, 3, 3}, {3, 3, 3}}};
  study.training.patch_size = {8, 8, 12};
  return study;
}

/// The networks of PyPI's packages (tests/interop/networks.py).
const json& Golden() {
  static const json golden = json::parse(TextOf(GOLDEN_FOLDER "/interop/networks.json"));
  return golden;
}

Study StudyOf(const json& plan) {
  Study study = SmallStudy();
  plan.at("features").get_to(study.network.features);
  plan.at("strides").get_to(study.network.strides);
  plan.at("kernels").get_to(study.network.kernels);
  if (plan.value("norm", "") == "batch") study.network.norm = NetworkPlan::Norm::kBatch;
  if (plan.value("norm", "") == "none") study.network.norm = NetworkPlan::Norm::kNone;
  if (plan.at("kind") == "residual") {
    study.network.kind = NetworkPlan::Kind::kResidual;
    study.network.convolutions_per_stage = 1;
    plan.at("blocks_per_stage").get_to(study.network.blocks_per_stage);
  }
  study.training.deep_supervision = plan.value("deep_supervision", false);
  return study;
}

/// Same keys, the same shape of each, and the same keys share a tensor.
void ExpectKeysOf(const json& golden, const StateDict& ours, const TensorShapes& shapes) {
  std::set<std::string> expected;
  for (const auto& [key, value] : golden.items()) expected.insert(key);
  std::set<std::string> given(ours.counters.begin(), ours.counters.end());
  for (const auto& [key, name] : ours.tensors) given.insert(key);
  ASSERT_EQ(given, expected);

  std::map<std::string, std::string> tensor_of_owner;
  std::set<std::string> owned;
  for (const auto& [key, name] : ours.tensors) {
    const json& known = golden.at(key);  // Its shape, or the key that it is an alias of.
    const std::string owner = known.is_string() ? known.get<std::string>() : key;
    EXPECT_EQ(tensor_of_owner.try_emplace(owner, name).first->second, name) << key;
    if (owner != key) continue;
    EXPECT_EQ(shapes.at(name), known.get<Shape>()) << key;
    EXPECT_TRUE(owned.insert(name).second) << key;
  }
}

TEST(StateDict, HasTheKeysShapesAndAliasesOfNnunetsNetworks) {
  int compared = 0;
  for (const auto& [name, network] : Golden().at("networks").items()) {
    if (name.starts_with("dynunet")) continue;
    SCOPED_TRACE(name);
    const Study study = StudyOf(network.at("plan"));
    ExpectKeysOf(network.at("keys"), NnunetStateDict(study), NetworkShapes(study));
    ++compared;
  }
  EXPECT_EQ(compared, 8);
}

TEST(StateDict, HasTheKeysShapesAndAliasesOfDynUnet) {
  int compared = 0;
  for (const auto& [name, network] : Golden().at("networks").items()) {
    if (!name.starts_with("dynunet")) continue;
    SCOPED_TRACE(name);
    const Study study = StudyOf(network.at("plan"));
    ASSERT_OK_AND_ASSIGN(const StateDict keys, DynUnetStateDict(study));
    ExpectKeysOf(network.at("keys"), keys, NetworkShapes(study));
    ++compared;
  }
  EXPECT_EQ(compared, 2);
}

TEST(StateDict, RefusesWhatDynUnetCannotBeAndSaysWhy) {
  const auto expect_refused = [](const Study& study, const std::string& why) {
    EXPECT_THAT(DynUnetStateDict(study),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(why)));
  };
  const Study good = SmallStudy();
  ASSERT_OK(DynUnetStateDict(good));

  Study study = good;
  study.network.kernels[1] = {1, 3, 3};
  expect_refused(study, "stage 1 has [1, 3, 3], stage 0 [3, 3, 3]");
  study = good;
  study.network.strides[2] = {1, 4, 4};
  expect_refused(study, "stage 2 has [1, 4, 4]");
  study = good;
  study.network.norm = NetworkPlan::Norm::kBatch;
  expect_refused(study, "norm");
  study = good;
  study.network.kind = NetworkPlan::Kind::kResidual;
  expect_refused(study, "residual");
  study = good;
  study.network.convolutions_per_stage = 3;
  expect_refused(study, "the study 3");
  study = good;
  study.network = {
      .features = {2, 3}, .strides = {{1, 1, 1}, {2, 2, 2}}, .kernels = {{3, 3, 3}, {3, 3, 3}}};
  expect_refused(study, "the study 2");
}

TEST(NnunetPlan, ResamplesAsTheStudyDoesOrNotAtAll) {
  Study study = SmallStudy();
  ASSERT_OK_AND_ASSIGN(const std::string kept, NnunetPlans(study));
  study.harmonization.spacing_mm = {2, 1, 0.5};
  ASSERT_OK_AND_ASSIGN(const std::string resampled, NnunetPlans(study));
  study.harmonization.spacing_mm = {0, 1, 1};

  const json without = json::parse(kept).at("configurations").at("3d_fullres");
  EXPECT_EQ(without.at("resampling_fn_data"), "no_resampling_hack");
  EXPECT_EQ(without.at("resampling_fn_probabilities_kwargs"), json::object());
  const json with = json::parse(resampled).at("configurations").at("3d_fullres");
  EXPECT_EQ(with.at("spacing"), json({2, 1, 0.5}));
  EXPECT_EQ(with.at("resampling_fn_data"), "resample_data_or_seg_to_shape");
  EXPECT_EQ(with.at("resampling_fn_data_kwargs").at("order"), 1);
  for (const json& plan : {without, with}) {
    EXPECT_EQ(plan.at("normalization_schemes"), json({"NoNormalization", "NoNormalization"}));
  }
  EXPECT_THAT(NnunetPlans(study),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("[0, 1, 1]")));
}

TEST(NnunetPlan, RefusesWhatNnunetWouldMisunderstand) {
  Study study = SmallStudy();
  study.network.norm = NetworkPlan::Norm::kGroup;
  study.labels = {"whole", "ignore"};

  EXPECT_THAT(NnunetPlans(study), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("group")));
  study.network.norm = NetworkPlan::Norm::kNone;
  EXPECT_OK(NnunetPlans(study));
  study.network.kind = NetworkPlan::Kind::kResidual;
  study.network.blocks_per_stage = {1, 1, 1};
  EXPECT_THAT(NnunetPlans(study),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("residual")));
  EXPECT_THAT(NnunetDataset(study, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("ignore")));
}

class ModelExportTest : public testing::Test {
 protected:
  ExportedModel Model() const {
    return {.study = study_, .weights = weights_, .metadata = metadata_};
  }

  c10::IValue Unpickled(const fs::path& file) const {
    const std::string bytes = TextOf(folder_.path() / file);
    return torch::jit::pickle_load({bytes.begin(), bytes.end()});
  }

  /// LibTorch's own reader: each key has the values of its tensor, and keys of one tensor one
  /// storage.
  void ExpectWeights(const c10::IValue& value, const StateDict& keys) const {
    const auto dict = value.toGenericDict();
    EXPECT_EQ(dict.size(), keys.tensors.size() + keys.counters.size());
    std::map<std::string, const void*> storage_of;
    for (const auto& [key, name] : keys.tensors) {
      const at::Tensor tensor = dict.at(key).toTensor();
      const Tensor& expected = weights_.at(name);
      ASSERT_EQ(tensor.sizes().vec(), expected.shape) << key;
      const auto* first = tensor.data_ptr<float>();
      EXPECT_EQ(std::vector<float>(first, first + tensor.numel()), expected.values) << key;
      EXPECT_EQ(storage_of.try_emplace(name, first).first->second, first) << key;
    }
    for (const std::string& key : keys.counters) {
      EXPECT_EQ(dict.at(key).toTensor().item<std::int64_t>(), 0) << key;
    }
  }

  const TemporaryDirectory folder_;
  Study study_ = SmallStudy();
  NamedTensors weights_ = InitialWeights(study_);
  const std::map<std::string, std::string> metadata_{{"study", "small"}, {"round", "3"}};
};

TEST_F(ModelExportTest, LeavesAModelFolderOfNnunet) {
  study_.network.norm = NetworkPlan::Norm::kBatch;
  study_.training.mirror_axes = {2, 0};
  weights_ = InitialWeights(study_);

  ASSERT_OK(ExportToNnunet(Model(), folder_.path()));

  const auto checkpoint = Unpickled("fold_all/checkpoint_final.pth").toGenericDict();
  ExpectWeights(checkpoint.at("network_weights"), NnunetStateDict(study_));
  EXPECT_EQ(checkpoint.at("trainer_name").toStringRef(), "nnUNetTrainer");
  EXPECT_EQ(checkpoint.at("init_args").toGenericDict().at("configuration").toStringRef(),
            "3d_fullres");
  const auto axes = checkpoint.at("inference_allowed_mirroring_axes").toTuple()->elements().vec();
  ASSERT_EQ(axes.size(), 2U);
  EXPECT_EQ(axes[0].toInt(), 2);
  EXPECT_EQ(axes[1].toInt(), 0);
  const json dataset = json::parse(TextOf(folder_.path() / "dataset.json"));
  EXPECT_EQ(dataset.at("labels"), json({{"background", 0}, {"anterior", 1}, {"posterior", 2}}));
  EXPECT_EQ(dataset.at("channel_names"), json({{"0", "T1w"}, {"1", "FLAIR"}}));
  EXPECT_EQ(dataset.at("isoscan").at("round"), "3");
  const json plans = json::parse(TextOf(folder_.path() / "plans.json"));
  EXPECT_EQ(plans.at("configurations").at("3d_fullres").at("patch_size"), json({8, 8, 12}));
}

TEST_F(ModelExportTest, AllowsNnunetNoMirroringThatWasNotTrained) {
  ASSERT_OK(ExportToNnunet(Model(), folder_.path()));

  EXPECT_TRUE(Unpickled("fold_all/checkpoint_final.pth")
                  .toGenericDict()
                  .at("inference_allowed_mirroring_axes")
                  .isNone());
}

TEST_F(ModelExportTest, LeavesAStateDictOfDynUnetAndItsArguments) {
  study_.training.deep_supervision = true;

  ASSERT_OK(ExportToDynUnet(Model(), folder_.path()));

  ASSERT_OK_AND_ASSIGN(const StateDict keys, DynUnetStateDict(study_));
  ExpectWeights(Unpickled("dynunet.pth"), keys);
  const json arguments = json::parse(TextOf(folder_.path() / "dynunet.json"));
  EXPECT_EQ(arguments.at("deep_supr_num"), 1);
  EXPECT_EQ(arguments.at("upsample_kernel_size"), json({{2, 2, 2}, {2, 2, 2}}));
  EXPECT_EQ(arguments.at("out_channels"), 3);
}

/// TorchScript's tags of types: torch.load(weights_only=True) refuses a file that has them.
TEST_F(ModelExportTest, PicklesNothingButPlainValuesAndTensors) {
  ASSERT_OK(ExportToNnunet(Model(), folder_.path()));

  const std::string bytes = TextOf(folder_.path() / "fold_all/checkpoint_final.pth");
  EXPECT_THAT(bytes, AllOf(HasSubstr("_rebuild_tensor_v2"), HasSubstr("FloatStorage")));
  EXPECT_THAT(bytes, testing::Not(HasSubstr("torch.jit")));
}

TEST_F(ModelExportTest, WritesNothingOfAStudyThatCannotBeExported) {
  study_.network.norm = NetworkPlan::Norm::kGroup;
  weights_ = InitialWeights(study_);
  const fs::path out = folder_.path() / "out";

  EXPECT_THAT(ExportToNnunet(Model(), out), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(ExportToDynUnet(Model(), out), StatusIs(absl::StatusCode::kInvalidArgument));

  EXPECT_FALSE(fs::exists(out));
}

TEST_F(ModelExportTest, LeavesNoPartOfAFileThatMayNotGrow) {
  ASSERT_NE(std::signal(SIGXFSZ, SIG_IGN), SIG_ERR);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{.rlim_cur = 4096, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);

  const absl::Status status = ExportToNnunet(Model(), folder_.path());

  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(status,
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("checkpoint_final.pth")));
  EXPECT_TRUE(fs::is_empty(folder_.path() / "fold_all"));
}

}  // namespace
}  // namespace isoscan
