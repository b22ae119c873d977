#include "server/aggregation/block_reduction.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <limits>

#include "common/random/philox.h"
#include "common/weights/sha256.h"
#include "server/aggregation/weighted_sum.h"
#include "tests/support/file_content.h"
#include "tests/unit/server/aggregation/staged_files.h"

namespace isoscan {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Key;
using testing::Pair;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// A server with momentum: m = m / 2 + mean - w, n counts rounds; w + m.
class Momentum final : public BlockReducer {
 public:
  explicit Momentum(std::size_t updates)
      : mean_({.updates = std::vector<double>(updates, 1.0),
               .divisor = static_cast<double>(updates)}) {}

  void Reduce(const BlockInput& input, const BlockOutput& output) const override {
    mean_.Reduce(input, output);
    for (std::size_t i = 0; i < output.model.size(); ++i) {
      output.state[0][i] = input.state[0][i] + 1;
      output.state[1][i] = double{input.state[1][i]} / 2 + output.model[i] - double{input.model[i]};
      output.model[i] = double{input.model[i]} + output.state[1][i];
    }
    std::size_t greatest = greatest_block;
    while (greatest < output.model.size() &&
           !greatest_block.compare_exchange_weak(greatest, output.model.size())) {
    }
  }

  mutable std::atomic<std::size_t> greatest_block = 0;

 private:
  WeightedSum mean_;
};

class BlockReductionTest : public testing::Test {
 protected:
  ReductionInput Input(const std::filesystem::path& model, std::vector<StagedUpdate> updates,
                       const std::filesystem::path& state = {}) const {
    return {.updates = std::move(updates),
            .model = model,
            .state_sets = {"count", "momentum"},
            .state = state};
  }
  ReductionOutput Output() const {
    return {.model = files_.output(),
            .metadata = {{"round", "1"}},
            .state = files_.PathOf("new-state"),
            .state_metadata = {{"t", "2"}}};
  }

  const StagedFiles files_;
};

TEST_F(BlockReductionTest, CarriesAStateFromRoundToRound) {
  const auto model = files_.Write("model", {{"a", Row({1})}, {"b", Row({10, 20})}});
  const std::vector<StagedUpdate> updates = {
      files_.Staged("x", {{"a", Row({2})}, {"b", Row({12, 20})}}),
      files_.Staged("y", {{"a", Row({4})}, {"b", Row({12, 22})}})};
  const Momentum reducer(2);

  ASSERT_OK(ReduceBlocks(reducer, Input(model, updates), Output()));

  EXPECT_THAT(files_.Output(), ElementsAre(Pair("a", Row({3})), Pair("b", Row({12, 21}))));
  const auto file = SafetensorsFile::Open(files_.PathOf("new-state"));
  ASSERT_OK(file);
  EXPECT_THAT(file->metadata(), ElementsAre(Pair("t", "2")));
  EXPECT_THAT(file->ReadAll(),
              ElementsAre(Pair("count.a", Row({1})), Pair("count.b", Row({1, 1})),
                          Pair("momentum.a", Row({2})), Pair("momentum.b", Row({2, 1}))));

  const auto state = files_.PathOf("state");
  std::filesystem::rename(files_.PathOf("new-state"), state);
  ASSERT_OK(ReduceBlocks(reducer, Input(model, updates, state), Output()));
  EXPECT_THAT(files_.Output(), ElementsAre(Pair("a", Row({4})), Pair("b", Row({13, 21.5F}))));
  EXPECT_EQ(files_.Read(files_.PathOf("new-state")).at("count.b"), Row({2, 2}));
}

TEST_F(BlockReductionTest, WritesTheSameBytesForAnyThreadsAndBlocks) {
  RandomStream random(13, "values");
  const auto draw = [&] {
    std::vector<float> values(40'000);
    random.FillNormal(values, 1);
    return NamedTensors{{"a", Row({1})}, {"b", Row(values)}};
  };
  const auto model = files_.Write("model", draw());
  const std::vector<StagedUpdate> updates = {files_.Staged("x", draw()),
                                             files_.Staged("y", draw())};
  const Momentum reducer(2);
  ASSERT_OK(ReduceBlocks(reducer, Input(model, updates), Output()));
  const auto state = files_.PathOf("state");
  std::filesystem::rename(files_.PathOf("new-state"), state);
  std::string expected_model;
  std::string expected_state;
  for (int threads = 1; threads <= 8; ++threads) {
    for (const std::int64_t block_values : {999, 1024, 64 * 1024}) {
      ASSERT_OK(ReduceBlocks(reducer, Input(model, updates, state), Output(),
                             {.threads = threads, .block_values = block_values}));
      if (expected_model.empty()) {
        expected_model = TextOf(files_.output());
        expected_state = TextOf(files_.PathOf("new-state"));
      }
      EXPECT_TRUE(TextOf(files_.output()) == expected_model) << threads << " " << block_values;
      EXPECT_TRUE(TextOf(files_.PathOf("new-state")) == expected_state);
    }
  }
}

TEST_F(BlockReductionTest, CutsTheBlockSoThatAllThreadsStayWithinTheMemory) {
  const NamedTensors tensors = {{"w", Row(std::vector<float>(100'000, 1.0F))}};
  const auto model = files_.Write("model", tensors);
  std::vector<StagedUpdate> updates;
  for (const char* const site : {"a", "b", "c", "d", "e"}) {
    updates.push_back(files_.Staged(site, tensors));
  }
  const Momentum reducer(5);
  // Five updates, the model, two sets and the rounded value: 9 floats; 3 doubles.
  constexpr std::int64_t kBytes = 9 * 4 + 3 * 8;
  ASSERT_OK(ReduceBlocks(reducer, Input(model, updates), Output(),
                         {.threads = 4, .memory_bytes = 4 * kBytes * 5000}));
  EXPECT_EQ(reducer.greatest_block, 5000U);

  const Momentum frugal(5);
  ASSERT_OK(
      ReduceBlocks(frugal, Input(model, updates), Output(), {.threads = 4, .memory_bytes = 1}));
  EXPECT_EQ(frugal.greatest_block, 1024U);
}

TEST_F(BlockReductionTest, NamesWhatIsWrongWithTheStateAndTheModel) {
  const NamedTensors tensors = {{"w", Row({1, 2})}};
  const auto model = files_.Write("model", tensors);
  const std::vector<StagedUpdate> updates = {files_.Staged("x", tensors)};
  const Momentum reducer(1);
  EXPECT_THAT(ReduceBlocks(reducer, Input(model, updates, files_.PathOf("none")), Output()),
              StatusIs(StatusCode::kNotFound, HasSubstr("the server's state")));
  EXPECT_THAT(
      ReduceBlocks(reducer, Input(model, updates, files_.Write("s", {{"count.w", Row({1, 2})}})),
                   Output()),
      StatusIs(StatusCode::kInvalidArgument,
               AllOf(HasSubstr("the server's state"), HasSubstr("momentum.w is missing"))));
  const auto broken = files_.Write("s", {{"count.w", Row({1, 2})}, {"momentum.w", Row({1, kNan})}});
  EXPECT_THAT(ReduceBlocks(reducer, Input(model, updates, broken), Output()),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("the server's state sent momentum.w with value nan")));
  ReductionInput decayed = Input(model, updates);
  ASSERT_OK_AND_ASSIGN(decayed.model_digest, Sha256OfFile(updates.front().weights));
  files_.Write("model", {{"w", Row({1, 3})}});
  EXPECT_THAT(ReduceBlocks(reducer, decayed, Output()),
              StatusIs(StatusCode::kDataLoss, HasSubstr("the global model")));
  files_.ExpectNoOutput();
  EXPECT_FALSE(std::filesystem::exists(files_.PathOf("new-state")));
}

TEST_F(BlockReductionTest, MakesNoModelOfNumbersThatAreNone) {
  // Updates are finite, and twice the largest of them is not.
  const NamedTensors large = {{"w", Row({1, 3e38F})}};
  const WeightedSum doubled({.updates = {2}});
  EXPECT_THAT(ReduceBlocks(doubled, {.updates = {files_.Staged("x", large)}, .model = {}},
                           {.model = files_.output()}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("w with value inf at index 1")));
  files_.ExpectNoOutput();
}

TEST_F(BlockReductionTest, TellsTheFirstFailureHoweverManyThreads) {
  std::vector<float> values(200'000, 1.0F);
  values[50'000] = kNan;
  values[150'000] = kNan;
  const std::vector<StagedUpdate> updates = {files_.Staged("x", {{"w", Row(values)}})};
  const WeightedSum sum({.updates = {1}});
  for (int threads = 1; threads <= 8; ++threads) {
    EXPECT_THAT(ReduceBlocks(sum, {.updates = updates, .model = {}}, {.model = files_.output()},
                             {.threads = threads, .block_values = 1024}),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("at index 50000")));
  }
  files_.ExpectNoOutput();
}

}  // namespace
}  // namespace isoscan
