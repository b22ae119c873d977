#include "common/study/exchanged_tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/study/initial_weights.h"
#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Key;
using testing::Not;
using testing::SizeIs;

Study StudyThatKeeps(std::vector<std::string> local_layers,
                     NetworkPlan::Norm norm = NetworkPlan::Norm::kBatch) {
  Study study;
  study.channels = {"T1w"};
  study.labels = {"tumour"};
  study.network.kind = NetworkPlan::Kind::kResidual;
  study.network.features = {8, 16};
  study.network.strides = {{1, 1, 1}, {2, 2, 2}};
  study.network.kernels = {{3, 3, 3}, {3, 3, 3}};
  study.network.convolutions_per_stage = 1;
  study.network.blocks_per_stage = {1, 1};
  study.network.norm = norm;
  study.network.local_layers = std::move(local_layers);
  return study;
}

TEST(ExchangedShapes, AreTheWholeNetworkWhereNothingStays) {
  const Study study = StudyThatKeeps({});

  EXPECT_EQ(ExchangedShapes(study), NetworkShapes(study));
}

// FedBN: scale, shift and running statistics, also in a residual block and its shortcut.
TEST(ExchangedShapes, LackEveryNormalisationLayer) {
  const Study study = StudyThatKeeps({"norm"});

  const TensorShapes shapes = ExchangedShapes(study);

  EXPECT_THAT(shapes, Each(Key(Not(HasSubstr("norm")))));
  EXPECT_THAT(NetworkShapes(study),
              AllOf(Contains(Key("encoder.stages.1.blocks.0.skip.1.norm.bias")),
                    Contains(Key("encoder.stem.convs.0.norm.running_var"))));
  for (const auto& [name, shape] : NetworkShapes(study)) {
    EXPECT_EQ(shapes.contains(name), name.find("conv.") != name.npos ||
                                         name.find("decoder.transp") == 0 ||
                                         name.find("decoder.seg") == 0)
        << name;
  }
}

TEST(ExchangedShapes, LackWhatIsBelowAName) {
  const TensorShapes heads = ExchangedShapes(StudyThatKeeps({"decoder.seg_layers"}));
  EXPECT_THAT(heads, Each(Key(Not(HasSubstr("seg_layers")))));
  EXPECT_THAT(heads, Contains(Key(HasSubstr("norm"))));

  // Not everything that begins with the same letters.
  EXPECT_FALSE(
      StaysAtSite(StudyThatKeeps({"encoder.st"}).network, "encoder.stem.convs.0.conv.bias"));
  EXPECT_TRUE(
      StaysAtSite(StudyThatKeeps({"encoder.stem"}).network, "encoder.stem.convs.0.conv.bias"));
}

TEST(TakeLocal, PartsTheWeightsInTwo) {
  const Study study = StudyThatKeeps({"norm", "decoder.seg_layers.0.bias"});
  NamedTensors shared = InitialWeights(study);

  NamedTensors local = TakeLocal(study.network, shared);

  EXPECT_EQ(ShapesOf(shared), ExchangedShapes(study));
  EXPECT_THAT(local, Contains(Key("decoder.seg_layers.0.bias")));
  local.merge(shared);
  EXPECT_EQ(local, InitialWeights(study));
  EXPECT_THAT(shared, IsEmpty());
}

TEST(ParseStudy, RefusesLocalLayersThatKeepNothingOrAll) {
  const std::string head =
      "name = \"s\"\nchannels = [\"a\"]\nlabels = [\"b\"]\n[training]\npatch_size = [16, 16, 16]\n"
      "[network]\nfeatures = [8, 16]\nstrides = [[1,1,1],[2,2,2]]\n";
  const auto refused = [&](const std::string& more, const std::string& why) {
    EXPECT_THAT(ParseStudy(head + more, "study.toml"),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(why)))
        << more;
  };
  ASSERT_OK_AND_ASSIGN(const Study study,
                       ParseStudy(head + "local_layers = [\"norm\"]\n", "study.toml"));
  EXPECT_THAT(study.network.local_layers, SizeIs(1));
  EXPECT_OK(ParseStudy(head + "local_layers = []\n", "study.toml").status());

  refused("local_layers = [\"norms\"]\n", "has 'norms', and no tensor");
  refused("norm = \"none\"\nlocal_layers = [\"norm\"]\n", "has 'norm', and no tensor");
  refused("local_layers = [\"encoder\", \"decoder\"]\n", "nothing is left to share");
  refused("local_layers = [\"norm\", \"norm\"]\n", "twice");
  refused("local_layers = \"norm\"\n", "local_layers");
  refused("local_layers = [\"norm\"]\ninitial_weights = \"" + std::string(64, 'a') + "\"\n",
          "local_layers = [] only");
}

}  // namespace
}  // namespace isoscan
