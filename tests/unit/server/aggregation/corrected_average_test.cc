#include "server/aggregation/corrected_average.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "common/random/philox.h"
#include "common/weights/safetensors.h"
#include "server/aggregation/federated_average.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::ElementsAre;
using testing::FloatNear;
using testing::HasSubstr;
using testing::Pointwise;

Tensor Row(std::vector<float> values) {
  const auto count = static_cast<std::int64_t>(values.size());
  return {{count}, std::move(values)};
}

class CorrectedAverageTest : public testing::Test {
 protected:
  std::filesystem::path Write(const std::string& name, const NamedTensors& tensors) {
    auto path = folder_.path() / (name + ".safetensors");
    EXPECT_OK(WriteSafetensors(path, tensors, {}));
    return path;
  }
  StagedUpdate Staged(const std::string& site, double weight, const NamedTensors& tensors) {
    return {.site = site, .weights = Write(site, tensors), .weight = weight};
  }
  NamedTensors Output() {
    const auto file = SafetensorsFile::Open(output_);
    EXPECT_OK(file);
    return file.ok() ? file->ReadAll() : NamedTensors();
  }

  const TemporaryDirectory folder_;
  const std::filesystem::path output_ = folder_.path() / "mean.safetensors";
};

// x = 0, locals (1, 4), steps (2, 8), cases (100, 300): 6.5 (0.25 * 1 / 2 + 0.75 * 4 / 8) = 3.25.
TEST_F(CorrectedAverageTest, FedNovaAveragesWhatSitesChangePerStep) {
  const auto model = Write("model", {{"w", Row({0})}});
  ASSERT_OK(NormalizedAverage(
      model, {{Staged("a", 100, {{"w", Row({1})}}), 2}, {Staged("b", 300, {{"w", Row({4})}}), 8}},
      output_, {}));

  EXPECT_THAT(Output().at("w").values, ElementsAre(FloatNear(3.25F, 1e-6F)));

  // From another model the same changes lead as far.
  const auto shifted = Write("shifted", {{"w", Row({10})}});
  ASSERT_OK(NormalizedAverage(
      shifted,
      {{Staged("a", 100, {{"w", Row({11})}}), 2}, {Staged("b", 300, {{"w", Row({14})}}), 8}},
      output_, {}));
  EXPECT_THAT(Output().at("w").values, ElementsAre(FloatNear(13.25F, 1e-5F)));
}

TEST_F(CorrectedAverageTest, FedNovaIsTheMeanWhereAllTakeAsManySteps) {
  RandomStream random(3, "values");
  const auto draw = [&] {
    std::vector<float> values(1000);
    random.FillNormal(values, 1);
    return NamedTensors{{"w", Row(values)}};
  };
  const auto model = Write("model", draw());
  const StagedUpdate a = Staged("a", 10, draw());
  const StagedUpdate b = Staged("b", 30, draw());
  ASSERT_OK(FederatedAverage({a, b}, output_, {}));
  const NamedTensors mean = Output();

  ASSERT_OK(NormalizedAverage(model, {{b, 7.5}, {a, 7.5}}, output_, {}));

  EXPECT_THAT(Output().at("w").values, Pointwise(FloatNear(1e-6F), mean.at("w").values));
}

TEST_F(CorrectedAverageTest, FedNovaLeavesRunningStatisticsToThePlainMean) {
  const NamedTensors zero = {{"norm.running_var", Row({0})}, {"w", Row({0})}};
  const auto with = [](float value) {
    return NamedTensors{{"norm.running_var", Row({value})}, {"w", Row({value})}};
  };

  ASSERT_OK(NormalizedAverage(Write("model", zero),
                              {{Staged("a", 100, with(1)), 2}, {Staged("b", 300, with(4)), 8}},
                              output_, {}));

  EXPECT_FLOAT_EQ(Output().at("norm.running_var").values[0], 3.25F);
  ASSERT_OK(NormalizedAverage(Write("model", zero),
                              {{Staged("a", 100, with(1)), 8}, {Staged("b", 300, with(4)), 2}},
                              output_, {}));
  EXPECT_FLOAT_EQ(Output().at("norm.running_var").values[0], 3.25F);
  EXPECT_NE(Output().at("w").values[0], 3.25F);
}

// FL4Health's vectors: clients 1, 2 and 3 times a model give 2 times; changes of 20 from half of
// the sites move c by 10.
TEST_F(CorrectedAverageTest, ScaffoldMovesTheControlVariatesByTheSharesThatCameIn) {
  const auto model = Write("model", {{"control.w", Row({0, 1})}, {"w", Row({5, 5})}});
  const auto update = [&](const std::string& site, float times) {
    return ControlledUpdate{
        .update = Staged(site, 1, {{"control.w", Row({20, 20})}, {"w", Row({times, 2 * times})}}),
        .share = 1.0 / 6};
  };

  ASSERT_OK(ScaffoldAverage(model, {update("c", 3), update("a", 1), update("b", 2)}, output_, {}));

  EXPECT_THAT(Output().at("w").values, ElementsAre(2, 4));
  EXPECT_THAT(Output().at("control.w").values,
              ElementsAre(FloatNear(10, 1e-5F), FloatNear(11, 1e-5F)));
}

TEST_F(CorrectedAverageTest, AreTheSameBytesInAnyOrderAndWithAnyThreads) {
  RandomStream random(4, "values");
  const auto draw = [&] {
    std::vector<float> values(5000);
    random.FillNormal(values, 3);
    return NamedTensors{{"control.w", Row(values)}, {"w", Row(values)}};
  };
  const auto model = Write("model", draw());
  std::vector<StagedUpdate> updates;
  for (const char* const site : {"a", "b", "c", "d"}) updates.push_back(Staged(site, 3, draw()));
  std::string nova;
  std::string scaffold;
  for (int turn = 0; turn < 4; ++turn) {
    std::rotate(updates.begin(), updates.begin() + 1, updates.end());
    std::vector<SteppedUpdate> stepped;
    std::vector<ControlledUpdate> controlled;
    for (const StagedUpdate& update : updates) {
      const double number = update.site[0] - 'a' + 1;
      stepped.push_back({update, 10 * number});
      controlled.push_back({update, number / 10});
    }
    const AveragingOptions options{.threads = 1 + turn, .block_values = 700 + 100 * turn};
    const auto bytes = [&] {
      std::ifstream file(output_, std::ios::binary);
      return std::string(std::istreambuf_iterator<char>(file), {});
    };
    ASSERT_OK(NormalizedAverage(model, stepped, output_, {}, options));
    if (turn == 0) nova = bytes();
    EXPECT_TRUE(bytes() == nova);
    ASSERT_OK(ScaffoldAverage(model, controlled, output_, {}, options));
    if (turn == 0) scaffold = bytes();
    EXPECT_TRUE(bytes() == scaffold);
  }
}

TEST_F(CorrectedAverageTest, RefuseWhatIsNoMean) {
  const auto model = Write("model", {{"w", Row({0})}});
  const StagedUpdate a = Staged("a", 1, {{"w", Row({1})}});
  for (const double steps : {0.0, -1.0, std::nan(""), HUGE_VAL}) {
    EXPECT_THAT(NormalizedAverage(model, {{a, steps}}, output_, {}),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("a took")));
  }
  for (const double share : {0.0, 1.5, std::nan("")}) {
    EXPECT_THAT(ScaffoldAverage(model, {{a, share}}, output_, {}),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("a has a share of")));
  }
  EXPECT_THAT(NormalizedAverage(model, {}, output_, {}), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(NormalizedAverage(folder_.path() / "none", {{a, 1}}, output_, {}),
              StatusIs(StatusCode::kNotFound, HasSubstr("the global model")));
  const StagedUpdate other = Staged("b", 1, {{"v", Row({1})}});
  EXPECT_THAT(ScaffoldAverage(model, {{other, 1}}, output_, {}),
              StatusIs(StatusCode::kInvalidArgument, AllOf(HasSubstr("b sent"), HasSubstr("w"))));
  const StagedUpdate broken =
      Staged("c", 1, {{"w", Row({std::numeric_limits<float>::quiet_NaN()})}});
  EXPECT_THAT(NormalizedAverage(model, {{broken, 1}}, output_, {}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("c sent w with value nan")));
  EXPECT_FALSE(std::filesystem::exists(output_));
}

}  // namespace
}  // namespace isoscan
