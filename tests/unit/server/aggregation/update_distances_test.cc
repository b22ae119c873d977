#include "server/aggregation/update_distances.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/random/philox.h"
#include "tests/unit/server/aggregation/staged_files.h"

namespace isoscan {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr float kDenormal = std::numeric_limits<float>::denorm_min();
constexpr float kLargest = std::numeric_limits<float>::max();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

NamedTensors Random(const std::string& name) {
  RandomStream random(7, name);
  NamedTensors tensors;
  for (const Shape& shape :
       {Shape{}, Shape{33}, Shape{0}, Shape{1023}, Shape{1025}, Shape{9, 999}}) {
    Tensor& tensor = tensors["tensor" + ToString(shape)];
    tensor.shape = shape;
    tensor.values.resize(static_cast<std::size_t>(ElementCount(shape)));
    random.FillNormal(tensor.values, 0.1F);
  }
  return tensors;
}

long double SquareOf(const NamedTensors& a, const NamedTensors& b) {
  long double sum = 0;
  for (const auto& [name, tensor] : a) {
    for (std::size_t i = 0; i < tensor.values.size(); ++i) {
      const long double difference =
          static_cast<long double>(tensor.values[i]) - b.at(name).values[i];
      sum += difference * difference;
    }
  }
  return sum;
}

class DistancesTest : public testing::Test {
 protected:
  const StagedFiles files_;
};

TEST_F(DistancesTest, AreThoseBetweenTheUpdatesAndFromTheModel) {
  const NamedTensors model = Random("model");
  std::vector<NamedTensors> tensors;
  std::vector<StagedUpdate> updates;
  for (const std::string site : {"a", "b", "c", "d"}) {
    tensors.push_back(Random(site));
    updates.push_back(files_.Staged(site, tensors.back()));
  }
  const auto path = files_.Write("model", model);

  ASSERT_OK_AND_ASSIGN(const Distances distances, MeasureDistances(path, updates));
  ASSERT_OK_AND_ASSIGN(const std::vector<double> changes, MeasureChanges(path, updates));

  ASSERT_EQ(distances.size(), 4U);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(distances.Between(i, i), 0);
    EXPECT_EQ(distances.FromModel(i), changes[i]);
    const auto from_model = static_cast<double>(SquareOf(tensors[i], model));
    EXPECT_NEAR(changes[i], from_model, 1e-14 * from_model);
    for (std::size_t j = 0; j < 4; ++j) {
      const auto expected = static_cast<double>(SquareOf(tensors[i], tensors[j]));
      EXPECT_NEAR(distances.Between(i, j), expected, 1e-14 * expected);
      EXPECT_EQ(distances.Between(i, j), distances.Between(j, i));
      EXPECT_NEAR(distances.InnerProduct(i, j), (changes[i] + changes[j] - expected) / 2,
                  1e-13 * changes[i]);
    }
  }
}

TEST_F(DistancesTest, HaveTheSameBitsForAnyOrderThreadsAndBlocks) {
  const auto model = files_.Write("model", Random("model"));
  std::vector<StagedUpdate> updates;
  for (const std::string site : {"a", "b", "c", "d", "e"}) {
    updates.push_back(files_.Staged(site, Random(site)));
  }
  ASSERT_OK_AND_ASSIGN(const Distances expected, MeasureDistances(model, updates));

  std::vector<std::size_t> order = {0, 1, 2, 3, 4};
  for (int threads = 1; threads <= 8; ++threads) {
    for (const std::int64_t block_values : {1, 1024, 3000, 64 * 1024}) {
      std::next_permutation(order.begin(), order.end());
      std::vector<StagedUpdate> shuffled;
      for (const std::size_t i : order) shuffled.push_back(updates[i]);
      ASSERT_OK_AND_ASSIGN(
          const Distances distances,
          MeasureDistances(model, shuffled, {.threads = threads, .block_values = block_values}));
      for (std::size_t i = 0; i < order.size(); ++i) {
        EXPECT_EQ(distances.FromModel(i), expected.FromModel(order[i]));
        for (std::size_t j = 0; j < order.size(); ++j) {
          EXPECT_EQ(distances.Between(i, j), expected.Between(order[i], order[j]));
        }
      }
    }
  }
}

TEST_F(DistancesTest, AreExactAtBothEndsOfAFloat) {
  const auto updates = files_.Scalars({0, kDenormal, kLargest, -kLargest});
  ASSERT_OK_AND_ASSIGN(const Distances distances, MeasureDistances({}, updates));
  EXPECT_EQ(distances.Between(0, 1), std::ldexp(1, -298));
  EXPECT_EQ(distances.Between(2, 3), 4 * double{kLargest} * double{kLargest});
}

TEST_F(DistancesTest, DoNotCancelBetweenUpdatesThatAreNearlyEqual) {
  // Inner products would lose 1e-12 beside 1e12.
  ASSERT_OK_AND_ASSIGN(
      const Distances distances,
      MeasureDistances({}, {files_.Staged("a", {{"v", Row({1e6F})}, {"w", Row({1})}}),
                            files_.Staged("b", {{"v", Row({1e6F})}, {"w", Row({1.000001F})}})}));
  EXPECT_EQ(distances.Between(0, 1), std::pow(double{1.000001F} - 1, 2));
}

TEST_F(DistancesTest, NameTheSiteAndTensorThatIsNoNumber) {
  NamedTensors broken = Random("c");
  broken["tensor[9, 999]"].values[8000] = kNan;
  EXPECT_THAT(MeasureDistances({}, {files_.Staged("a", Random("a")), files_.Staged("c", broken)}),
              StatusIs(StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("c sent tensor[9, 999]"), HasSubstr("index 8000"))));
  EXPECT_THAT(MeasureDistances({}, {}), StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(DistancesTest, BoundHowFarAnUpdateMovesTheModel) {
  const auto model = files_.Write("model", {{"control.w", Row({0})}, {"w", Row({1, 2})}});
  const auto update = files_.Write("update", {{"control.w", Row({1000})}, {"w", Row({4, 6})}});

  EXPECT_OK(CheckUpdateNorm("st-marys", update, model, 5));  // 3, 4, 5; the control variates apart.
  EXPECT_THAT(CheckUpdateNorm("st-marys", update, model, 4.99),
              StatusIs(StatusCode::kInvalidArgument,
                       "st-marys moves the model by 5, this study takes at most 4.99"));
}

TEST_F(DistancesTest, BlameTheSiteForItsNumbersAndTheServerForItsFiles) {
  const auto model = files_.Write("model", {{"w", Row({1, 2})}});
  EXPECT_THAT(CheckUpdateNorm("a", files_.Write("a", {{"w", Row({1, kNan})}}), model, 5),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("a sent w with value nan")));
  EXPECT_THAT(CheckUpdateNorm("a", files_.Write("a", {{"w", Row({1})}}), model, 5),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("a sent w of shape")));
  EXPECT_THAT(CheckUpdateNorm("a", model, files_.PathOf("none"), 5),
              StatusIs(StatusCode::kUnavailable, HasSubstr("the global model")));
}

}  // namespace
}  // namespace isoscan
