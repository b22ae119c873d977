#include "server/aggregation/round_aggregate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "common/random/philox.h"
#include "common/study/exchanged_tensors.h"
#include "common/weights/sha256.h"
#include "server/aggregation/server_optimizer.h"
#include "tests/support/file_content.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using testing::ElementsAre;
using testing::FloatNear;
using testing::HasSubstr;
using testing::IsEmpty;
using Kind = StrategyPlan::Kind;

Tensor Row(std::vector<float> values) {
  const auto count = static_cast<std::int64_t>(values.size());
  return {{count}, std::move(values)};
}

class RoundAggregateTest : public testing::Test {
 protected:
  std::filesystem::path Write(const std::string& name, const NamedTensors& tensors) {
    // Files of weights are never written twice.
    auto path = folder_.path() / (name + std::to_string(++files_) + ".safetensors");
    EXPECT_OK(WriteSafetensors(path, tensors, {}));
    return path;
  }
  RoundContribution From(const std::string& site, double cases, const NamedTensors& tensors,
                         double loss = 0) {
    const auto path = Write(site, tensors);
    return {.update = {.site = site,
                       .weights = path,
                       .weight = cases,
                       .digest = Sha256OfFile(path).value_or("")},
            .loss_before = loss};
  }
  /// Shares by cases.
  static SiteShares SharesFrom(const std::vector<RoundContribution>& contributions) {
    double sum = 0;
    for (const RoundContribution& one : contributions) sum += one.update.weight;
    SiteShares shares;
    for (const RoundContribution& one : contributions) {
      shares[one.update.site] = one.update.weight / sum;
    }
    return shares;
  }
  RoundInput Input(const NamedTensors& model, std::vector<RoundContribution> contributions) {
    const auto path = Write("model", model);
    return {.contributions = contributions,
            .shares = SharesFrom(contributions),
            .model = path,
            .model_digest = Sha256OfFile(path).value_or("")};
  }
  absl::StatusOr<RoundParts> Aggregate(const StrategyPlan& plan, const RoundInput& input,
                                       const AveragingOptions& options = {}) {
    RoundsPlan rounds;
    rounds.strategy = plan;
    TrainingPlan training;
    training.learning_rate = 0.1;
    return AggregateRound(rounds, training, input, {.model = model_, .state = state_}, options);
  }
  static NamedTensors Tensors(const std::filesystem::path& path) {
    const auto file = SafetensorsFile::Open(path);
    EXPECT_OK(file);
    return file.ok() ? file->ReadAll() : NamedTensors();
  }

  const TemporaryDirectory folder_;
  int files_ = 0;
  const std::filesystem::path model_ = folder_.path() / "new.safetensors";
  const std::filesystem::path state_ = folder_.path() / "new.state";
};

// Flower's own vector: clients 0.2 and 1.0 of five cases each.
TEST_F(RoundAggregateTest, FedAdagradGivesFlowersNumberAndGoesOnFromItsState) {
  const StrategyPlan plan{
      .kind = Kind::kFedAdagrad, .server_learning_rate = 0.1, .beta1 = 0, .tau = 0.5};
  const std::vector<RoundContribution> sites = {From("a", 5, {{"w", Row({0.2F})}}),
                                                From("b", 5, {{"w", Row({1.0F})}})};
  ASSERT_OK_AND_ASSIGN(const RoundParts parts, Aggregate(plan, Input({{"w", Row({0.1F})}}, sites)));
  EXPECT_THAT(Tensors(model_).at("w").values, ElementsAre(FloatNear(0.15F, 1e-7F)));
  EXPECT_THAT(Tensors(state_).at("variance.w").values, ElementsAre(FloatNear(0.25F, 1e-7F)));
  EXPECT_EQ(parts.sites.at(0).weight, 0.5);

  const auto kept = folder_.path() / "kept.state";
  std::filesystem::rename(state_, kept);
  RoundInput next = Input({{"w", Row({0.15F})}}, sites);
  next.round = 2;
  next.state = kept;
  next.state_digest = Sha256OfFile(kept).value_or("");
  ASSERT_OK(Aggregate(plan, next));
  EXPECT_THAT(Tensors(model_).at("w").values, ElementsAre(FloatNear(0.188373600523F, 1e-7F)));
}

// (w0 + 2 w1) / 3 from a model of 0 with rate 1, whatever the momentum: Flower's vector.
TEST_F(RoundAggregateTest, FedAvgMIsTheMeanInTheFirstRound) {
  const std::vector<float> w0 = {1, 2, 3, 4, 5, 6};
  const std::vector<float> w1 = {29, 23, 19, 17, 13, 11};
  ASSERT_OK(Aggregate({.kind = Kind::kFedAvgM},
                      Input({{"w", Row(std::vector<float>(6))}},
                            {From("a", 1, {{"w", Row(w0)}}), From("b", 2, {{"w", Row(w1)}})})));
  const std::vector<float> mean = Tensors(model_).at("w").values;
  for (std::size_t i = 0; i < 6; ++i) EXPECT_FLOAT_EQ(mean[i], (w0[i] + 2 * w1[i]) / 3);
}

TEST_F(RoundAggregateTest, RunningStatisticsAreAveragedByEveryOptimiserAndFairMean) {
  for (const Kind kind :
       {Kind::kFedAvgM, Kind::kFedAdagrad, Kind::kFedAdam, Kind::kFedYogi, Kind::kQFedAvg}) {
    ASSERT_OK(
        Aggregate({.kind = kind, .server_learning_rate = 0.01},
                  Input({{"n.running_var", Row({9})}, {"w", Row({0})}},
                        {From("a", 1, {{"n.running_var", Row({1})}, {"w", Row({1})}}, 0.5),
                         From("b", 3, {{"n.running_var", Row({3})}, {"w", Row({1})}}, 0.1)})));
    EXPECT_THAT(Tensors(model_).at("n.running_var").values, ElementsAre(2.5F)) << ToString(kind);
    EXPECT_NE(Tensors(model_).at("w").values.at(0), 1) << ToString(kind);
  }
}

TEST_F(RoundAggregateTest, QFedAvgGivesPublishedNumbers) {
  // The study's least loss is -1, the paper's 0.
  ASSERT_OK_AND_ASSIGN(
      const RoundParts parts,
      Aggregate({.kind = Kind::kQFedAvg, .q = 1},
                Input({{"w", Row({1, 2})}}, {From("a", 7, {{"w", Row({0.5, 2.5})}}, 0.4 - 1),
                                             From("b", 7, {{"w", Row({0, 1})}}, 0.9 - 1)})));
  EXPECT_THAT(Tensors(model_).at("w").values,
              ElementsAre(FloatNear(0.958174904938F, 1e-7F), FloatNear(1.973384030417F, 2e-7F)));
  EXPECT_NEAR(parts.sites.at(0).weight, 4.0 / 13, 1e-12);
  EXPECT_NEAR(parts.sites.at(1).weight, 9.0 / 13, 1e-12);
}

TEST_F(RoundAggregateTest, AflWeighsByLambdaAndLeavesItForTheNextRound) {
  const StrategyPlan plan{.kind = Kind::kAfl, .server_learning_rate = 0.5};
  const std::vector<RoundContribution> sites = {From("a", 1, {{"w", Row({1})}}, 0.2),
                                                From("b", 1, {{"w", Row({3})}}, 0.8)};
  RoundInput input = Input({{"w", Row({0})}}, sites);
  ASSERT_OK_AND_ASSIGN(const RoundParts first, Aggregate(plan, input));
  EXPECT_THAT(Tensors(model_).at("w").values, ElementsAre(2.0F));
  EXPECT_NEAR(first.site_weights.at("b"), 0.65, 1e-12);

  input.site_weights = first.site_weights;
  ASSERT_OK_AND_ASSIGN(const RoundParts second, Aggregate(plan, input));
  EXPECT_THAT(Tensors(model_).at("w").values, ElementsAre(FloatNear(2.3F, 1e-6F)));
  EXPECT_NEAR(second.site_weights.at("b"), 0.8, 1e-12);

  input.site_weights = {{"a", 0}, {"b", 1}};
  ASSERT_OK_AND_ASSIGN(const RoundParts third, Aggregate(plan, input));
  EXPECT_THAT(Tensors(model_).at("w").values, ElementsAre(3.0F));
  EXPECT_THAT(third.sites.at(0).left_out, HasSubstr("below that of the other sites"));
  EXPECT_THAT(third.sites.at(1).left_out, IsEmpty());

  // Only the one that counts for nothing has sent something: it is all that there is.
  input.contributions.pop_back();
  ASSERT_OK_AND_ASSIGN(const RoundParts alone, Aggregate(plan, input));
  EXPECT_THAT(Tensors(model_).at("w").values, ElementsAre(1.0F));
  EXPECT_EQ(alone.sites.at(0).weight, 1);
}

/// One site of six sends nonsense.
TEST_F(RoundAggregateTest, RobustAggregationsStandASiteThatSendsAnything) {
  std::vector<RoundContribution> sites;
  RandomStream random(3, "updates");
  for (const std::string site : {"a", "b", "c", "d", "e", "f", "z"}) {
    std::vector<float> values;
    for (int i = 0; i < 40; ++i) {
      values.push_back(site == "z" ? 1e6F : static_cast<float>(1 + 0.1 * random.Uniform()));
    }
    sites.push_back(From(site, 5, {{"w", Row(values)}}));
  }
  for (const Kind kind : {Kind::kMedian, Kind::kTrimmedMean, Kind::kKrum, Kind::kMultiKrum,
                          Kind::kBulyan, Kind::kGeometricMedian}) {
    ASSERT_OK_AND_ASSIGN(
        const RoundParts parts,
        Aggregate({.kind = kind}, Input({{"w", Row(std::vector<float>(40))}}, sites)));
    const NamedTensors model = Tensors(model_);
    for (const float value : model.at("w").values) {
      EXPECT_TRUE(value > 0.99F && value < 1.2F) << ToString(kind) << " " << value;
    }
    ASSERT_EQ(parts.sites.size(), 7U);
    const bool chooses = kind == Kind::kKrum || kind == Kind::kMultiKrum || kind == Kind::kBulyan;
    EXPECT_EQ(parts.sites.back().left_out.empty(), !chooses) << ToString(kind);
  }
}

TEST_F(RoundAggregateTest, StudiesAskForAsManyUpdatesAsTheRulesDo) {
  for (const Kind kind : StrategyKinds()) {
    for (const std::int64_t faulty : {0, 1, 3}) {
      StrategyPlan plan{.kind = kind, .trim = 0.3, .byzantine_sites = faulty, .chosen_sites = 6};
      std::vector<RoundContribution> sites;
      for (char name = 'a'; static_cast<std::int64_t>(sites.size()) < FewestUpdates(plan); ++name) {
        sites.push_back(From(std::string(1, name), 5, {{"w", Row({1, 2})}}));
        sites.back().effective_steps = 1;
      }
      NamedTensors model = {{"w", Row({0, 0})}};
      EXPECT_OK(Aggregate(plan, Input(model, sites))) << ToString(kind) << " " << faulty;
      if (sites.size() < 2) continue;
      sites.pop_back();
      EXPECT_THAT(Aggregate(plan, Input(model, sites)),
                  StatusIs(absl::StatusCode::kFailedPrecondition))
          << ToString(kind) << " " << faulty;
    }
  }
}

/// The property of every strategy: the bytes of model and state show neither the order of the
/// updates, nor threads, nor how the work is cut.
class AnyStrategy : public RoundAggregateTest, public testing::WithParamInterface<Kind> {};

INSTANTIATE_TEST_SUITE_P(All, AnyStrategy, testing::ValuesIn(StrategyKinds()),
                         [](const auto& kind) { return std::string(ToString(kind.param)); });

TEST_P(AnyStrategy, GivesTheSameBytesWhateverTheOrderThreadsAndBlocks) {
  const StrategyPlan plan{.kind = GetParam(), .server_learning_rate = 0.3};
  RandomStream random(7, "tensors");
  const auto tensors = [&](float about) {
    NamedTensors drawn;
    for (const auto& [name, count] :
         {std::pair<std::string, int>{"a", 3000}, {"control.a", 3000}, {"z.running_mean", 7}}) {
      std::vector<float> values;
      for (int i = 0; i < count; ++i) {
        values.push_back(about + static_cast<float>(random.Uniform()));
      }
      drawn[name] = Row(values);
    }
    return drawn;
  };
  std::vector<RoundContribution> sites;
  for (int i = 0; i < 7; ++i) {
    sites.push_back(From(std::string(1, static_cast<char>('a' + i)), 3 + i,
                         tensors(0.1F * static_cast<float>(i)), 0.3 * i));
    sites.back().effective_steps = 5 + i;
  }
  RoundInput input = Input(tensors(0), sites);
  input.round = 4;
  NamedTensors state;
  for (const std::string& set : StateSets(plan)) {
    NamedTensors drawn = tensors(0.5F);
    for (auto& [name, tensor] : drawn) state[set + "." + name] = std::move(tensor);
  }
  if (HasState(plan)) {
    input.state = Write("state", state);
    input.state_digest = Sha256OfFile(input.state).value_or("");
  }
  const auto bytes = [&](const AveragingOptions& options) {
    EXPECT_OK(Aggregate(plan, input, options));
    return TextOf(model_) + (HasState(plan) ? TextOf(state_) : "");
  };
  const std::string expected = bytes({.threads = 1});
  for (int turn = 0; turn < 4; ++turn) {
    std::rotate(input.contributions.begin(), input.contributions.begin() + 2,
                input.contributions.end());
    EXPECT_TRUE(bytes({.threads = turn + 1, .block_values = 100 + 1000 * turn}) == expected)
        << turn;
  }
}

TEST_F(RoundAggregateTest, NamesAStateThatIsNotWhatItWas) {
  RoundInput input = Input({{"w", Row({0})}}, {From("a", 1, {{"w", Row({1})}})});
  input.round = 2;
  input.state = Write("state", {{"momentum.w", Row({1})}});
  input.state_digest = std::string(64, 'a');
  EXPECT_THAT(Aggregate({.kind = Kind::kFedAvgM}, input),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("state")));
  EXPECT_FALSE(std::filesystem::exists(model_));
}

}  // namespace
}  // namespace isoscan
