#include "server/aggregation/federated_average.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "common/random/philox.h"
#include "common/weights/block_sums.h"
#include "common/weights/safetensors.h"
#include "common/weights/sha256.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::DoubleEq;
using testing::DoubleNear;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kDenormal = std::numeric_limits<float>::denorm_min();
constexpr float kLargest = std::numeric_limits<float>::max();

std::string ContentOf(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

NamedTensors Head(std::vector<float> values) {
  const auto count = static_cast<std::int64_t>(values.size());
  return {{"head.weight", {{count}, std::move(values)}}};
}

class FederatedAverageTest : public testing::Test {
 protected:
  StagedUpdate Staged(const std::string& site, double weight, const NamedTensors& tensors) {
    const auto path = folder_.path() / (site + ".safetensors");
    EXPECT_OK(WriteSafetensors(path, tensors, {{"site", site}}));
    return {.site = site, .weights = path, .weight = weight};
  }

  // The mean's tensors; the test fails when there is none.
  NamedTensors Mean(const std::vector<StagedUpdate>& updates,
                    const AveragingOptions& options = {}) {
    EXPECT_OK(FederatedAverage(updates, output_, {}, options));
    const auto file = SafetensorsFile::Open(output_);
    EXPECT_OK(file);
    return file.ok() ? file->ReadAll() : NamedTensors();
  }

  std::vector<float> MeanOfHeads(const std::vector<StagedUpdate>& updates) {
    return Mean(updates)["head.weight"].values;
  }

  // Updates of several tensors with random values of all magnitudes.
  std::vector<StagedUpdate> RandomUpdates(int sites) {
    std::vector<StagedUpdate> updates;
    for (int i = 0; i < sites; ++i) {
      const std::string site = "site-" + std::to_string(i);
      RandomStream random(11, site);
      NamedTensors tensors;
      for (const Shape& shape :
           {Shape{}, Shape{3}, Shape{7, 11, 13}, Shape{100, 83}, Shape{0, 5}}) {
        Tensor& tensor = tensors["tensor" + ToString(shape)];
        tensor.shape = shape;
        tensor.values.resize(static_cast<std::size_t>(ElementCount(shape)));
        for (float& value : tensor.values) {
          value = static_cast<float>(
              std::ldexp(random.Normal(), static_cast<int>(random.Below(60)) - 30));
        }
      }
      updates.push_back(Staged(site, random.Uniform(1, 1000), tensors));
    }
    return updates;
  }

  const TemporaryDirectory folder_;
  const std::filesystem::path output_ = folder_.path() / "mean.safetensors";
};

// NVFlare's test of its weighted helper, 1 [2, 4, 6] + 2 [3, 6, 9] -> [8/3, 16/3, 8].
TEST_F(FederatedAverageTest, WeighsSitesByTheirTrainingCases) {
  EXPECT_THAT(MeanOfHeads({Staged("a", 1, Head({2, 4, 6})), Staged("b", 2, Head({3, 6, 9}))}),
              ElementsAre(8.0F / 3, 16.0F / 3, 8));
  EXPECT_THAT(MeanOfHeads({Staged("a", 2, Head({10, 20, 30})), Staged("b", 3, Head({5, 10, 15}))}),
              ElementsAre(7, 14, 21));
}

// Flower's fedavgm_test.py, first round: (w0 + 2 w1) / 3.
TEST_F(FederatedAverageTest, GivesFlowersReferenceValues) {
  const NamedTensors first = {{"kernel", {{2, 3}, {1, 2, 3, 4, 5, 6}}},
                              {"bias", {{4}, {7, 8, 9, 10}}}};
  const NamedTensors second = {{"kernel", {{2, 3}, {29, 23, 19, 17, 13, 11}}},
                               {"bias", {{4}, {7, 5, 3, 2}}}};

  NamedTensors mean = Mean({Staged("a", 1, first), Staged("b", 2, second)});

  EXPECT_THAT(mean["kernel"].values,
              ElementsAre(59.0F / 3, 16, 41.0F / 3, 38.0F / 3, 31.0F / 3, 28.0F / 3));
  EXPECT_THAT(mean["bias"].values, ElementsAre(7, 6, 5, 14.0F / 3));
  EXPECT_EQ(mean["kernel"].shape, (Shape{2, 3}));
}

// Flower's scalar: 1 of one case and 3 of two give 7/3.
TEST_F(FederatedAverageTest, KeepsAScalarAScalar) {
  const NamedTensors mean =
      Mean({Staged("a", 1, {{"scale", {{}, {1}}}}), Staged("b", 2, {{"scale", {{}, {3}}}})});
  EXPECT_EQ(mean.at("scale"), (Tensor{{}, {7.0F / 3}}));
}

TEST_F(FederatedAverageTest, GivesTheSameBytesWhateverTheOrderThreadsAndBlocks) {
  std::vector<StagedUpdate> updates = RandomUpdates(5);
  ASSERT_OK(FederatedAverage(updates, output_, {{"round", "1"}}));
  const std::string expected = ContentOf(output_);

  RandomStream random(1, "order");
  for (const int threads : {1, 2, 4}) {
    for (const std::int64_t block : {1, 7, 1000, 1 << 20}) {
      for (std::size_t i = updates.size() - 1; i > 0; --i) {
        std::swap(
            updates[i],
            updates[static_cast<std::size_t>(random.Below(static_cast<std::int64_t>(i) + 1))]);
      }
      ASSERT_OK(FederatedAverage(updates, output_, {{"round", "1"}},
                                 {.threads = threads, .block_values = block}));
      EXPECT_EQ(ContentOf(output_), expected) << threads << " threads, blocks of " << block;
    }
  }
}

TEST_F(FederatedAverageTest, DoesNotShowTheOrderEvenWhereSumsCancel) {
  // In double, (1e30 + 1) - 1e30 is 0 and (1e30 - 1e30) + 1 is 1: only a fixed order gives one
  // mean.
  const std::vector<StagedUpdate> updates = {
      Staged("a", 1, Head({1e30F})), Staged("b", 1, Head({1})), Staged("c", 1, Head({-1e30F})),
      Staged("d", 1, Head({3}))};
  const std::vector<float> expected = MeanOfHeads(updates);

  std::vector<std::size_t> order = {0, 1, 2, 3};
  do {
    EXPECT_EQ(
        MeanOfHeads({updates[order[0]], updates[order[1]], updates[order[2]], updates[order[3]]}),
        expected);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_F(FederatedAverageTest, IsWithinHalfAUnitOfTheExactMean) {
  const std::vector<StagedUpdate> updates = RandomUpdates(4);
  const NamedTensors mean = Mean(updates);

  std::vector<NamedTensors> inputs;
  long double total = 0;
  for (const StagedUpdate& update : updates) {
    inputs.push_back(SafetensorsFile::Open(update.weights)->ReadAll());
    total += update.weight;
  }
  for (const auto& [name, tensor] : mean) {
    for (std::size_t i = 0; i < tensor.values.size(); ++i) {
      long double sum = 0;
      long double magnitude = 0;
      for (std::size_t site = 0; site < inputs.size(); ++site) {
        const long double term = updates[site].weight * inputs[site].at(name).values[i];
        sum += term;
        magnitude += std::fabs(term);
      }
      const float exact = static_cast<float>(sum / total);
      // Half a float's unit, and what cancellation leaves of double's 53 bits.
      const long double allowed =
          0.501L * (std::nextafter(std::fabs(exact), kInfinity) - std::fabs(exact)) +
          1e-15L * magnitude / total;
      ASSERT_LE(std::fabs(sum / total - tensor.values[i]), allowed) << name << " " << i;
    }
  }
}

TEST_F(FederatedAverageTest, OfOneSiteIsThatSite) {
  const std::vector<float> values = {0.1F,
                                     -0.0F,
                                     kDenormal,
                                     3 * kDenormal,
                                     kLargest,
                                     -kLargest,
                                     std::numeric_limits<float>::min(),
                                     1 / 3.0F};
  for (const double weight : {1.0, 3.0, 1e9, 1e-9, 1 / 3.0}) {
    EXPECT_EQ(MeanOfHeads({Staged("a", weight, Head(values))}), values) << weight;
  }
}

TEST_F(FederatedAverageTest, OfIdenticalSitesIsOneOfThem) {
  const std::vector<float> values = {0.1F, kDenormal, 3 * kDenormal, kLargest, -kLargest, 1 / 3.0F};
  std::vector<StagedUpdate> updates;
  for (const double weight : {1.0, 7.0, 1e9, 0.3, 123'456'789.0}) {
    updates.push_back(Staged("site-" + std::to_string(updates.size()), weight, Head(values)));
  }
  EXPECT_EQ(MeanOfHeads(updates), values);
}

TEST_F(FederatedAverageTest, HearsASmallSiteBesideABillionCases) {
  // In float, 1e9 + 1 is 1e9 and the small site would be lost.
  const std::vector<float> mean =
      MeanOfHeads({Staged("large", 1e9, Head({0, 1})), Staged("small", 1, Head({1e9, 1}))});
  EXPECT_THAT(mean, ElementsAre(static_cast<float>(1e9 / (1e9 + 1)), 1));
}

TEST_F(FederatedAverageTest, WritesItsMetadata) {
  ASSERT_OK(FederatedAverage({Staged("a", 1, Head({1}))}, output_,
                             {{"study", "hippocampus"}, {"round", "2"}}));
  const auto file = SafetensorsFile::Open(output_);
  ASSERT_OK(file);
  EXPECT_THAT(file->metadata(),
              ElementsAre(testing::Pair("round", "2"), testing::Pair("study", "hippocampus")));
}

TEST_F(FederatedAverageTest, NeverMakesAModelOfNothing) {
  EXPECT_THAT(FederatedAverage({}, output_, {}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("no update")));
  EXPECT_FALSE(std::filesystem::exists(output_));
}

TEST_F(FederatedAverageTest, RefusesWeightsThatMakeNoMean) {
  for (const double weight : {0.0, -1.0, double{kNan}, double{kInfinity}}) {
    EXPECT_THAT(
        FederatedAverage({Staged("north", 1, Head({1})), Staged("south", weight, Head({1}))},
                         output_, {}),
        StatusIs(StatusCode::kInvalidArgument, HasSubstr("south has weight")));
  }
  EXPECT_THAT(
      FederatedAverage({Staged("north", 1, Head({1})), Staged("north", 1, Head({1}))}, output_, {}),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("north has two updates")));
  EXPECT_FALSE(std::filesystem::exists(output_));
}

TEST_F(FederatedAverageTest, NeverBroadcasts) {
  const NamedTensors expected = {{"w", {{2, 2}, {1, 2, 3, 4}}}};
  for (const NamedTensors& other :
       {NamedTensors{{"w", {{1}, {1}}}}, NamedTensors{{"w", {{4}, {1, 2, 3, 4}}}},
        NamedTensors{{"w", {{2, 1}, {1, 2}}}}}) {
    EXPECT_THAT(
        FederatedAverage({Staged("north", 1, expected), Staged("south", 1, other)}, output_, {}),
        StatusIs(StatusCode::kInvalidArgument,
                 AllOf(HasSubstr("south sent w of shape"), HasSubstr("[2, 2]"))));
  }
  EXPECT_THAT(FederatedAverage({Staged("north", 1, expected), Staged("south", 1, {})}, output_, {}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("w is missing")));
}

TEST_F(FederatedAverageTest, NamesTheSiteWhoseValueIsNotFinite) {
  const NamedTensors good = Head({1, 2, 3});
  for (const float value : {kNan, kInfinity, -kInfinity}) {
    EXPECT_THAT(
        FederatedAverage({Staged("north", 1, good), Staged("south", 1, Head({1, value, 3}))},
                         output_, {}),
        StatusIs(StatusCode::kInvalidArgument,
                 AllOf(HasSubstr("south sent head.weight"), HasSubstr("at index 1"))));
  }
  EXPECT_FALSE(std::filesystem::exists(output_));
}

TEST_F(FederatedAverageTest, NamesTheSiteWhoseFileIsDamagedOrGone) {
  const StagedUpdate north = Staged("north", 1, Head({1, 2}));
  const StagedUpdate south = Staged("south", 1, Head({1, 2}));
  std::filesystem::resize_file(south.weights, std::filesystem::file_size(south.weights) - 1);
  EXPECT_THAT(FederatedAverage({north, south}, output_, {}),
              StatusIs(StatusCode::kDataLoss, HasSubstr("the update of south")));

  std::filesystem::remove(south.weights);
  EXPECT_THAT(FederatedAverage({north, south}, output_, {}),
              StatusIs(StatusCode::kNotFound, HasSubstr("the update of south")));
}

TEST_F(FederatedAverageTest, NamesTheSiteWhoseBytesHaveChangedOnTheDiskAndStayNumbers) {
  std::vector<float> values(20'000);
  std::iota(values.begin(), values.end(), 1.0F);
  StagedUpdate north = Staged("north", 1, Head(values));
  StagedUpdate south = Staged("south", 1, Head(values));
  ASSERT_OK_AND_ASSIGN(north.digest, Sha256OfFile(north.weights));
  ASSERT_OK_AND_ASSIGN(south.digest, Sha256OfFile(south.weights));
  const NamedTensors expected = Mean({north, south});
  EXPECT_TRUE(std::filesystem::exists(BlockSums::PathFor(south.weights)));

  const auto bytes = static_cast<std::int64_t>(std::filesystem::file_size(south.weights));
  for (const std::int64_t place : {std::int64_t{10}, std::int64_t{16'384}, bytes - 4}) {
    const auto flip_a_bit = [&] {
      std::fstream file(south.weights, std::ios::in | std::ios::out | std::ios::binary);
      file.seekg(place);
      const int byte = file.get();
      file.seekp(place);
      file.put(static_cast<char>(byte ^ 1));
    };
    flip_a_bit();
    for (const std::int64_t block_values : {1, 7, 4096, 65'536}) {
      EXPECT_THAT(FederatedAverage({north, south}, output_, {}, {.block_values = block_values}),
                  StatusIs(StatusCode::kDataLoss, AllOf(HasSubstr("south"), HasSubstr("damaged"))))
          << place;
    }
    flip_a_bit();
    EXPECT_EQ(Mean({north, south}), expected);
  }
  // Sums that are damaged themselves accuse nobody.
  std::filesystem::resize_file(BlockSums::PathFor(south.weights), 30);
  EXPECT_EQ(Mean({north, south}), expected);
}

TEST_F(FederatedAverageTest, KeepsTheLastModelAndLeavesNoTraceOfAFailure) {
  ASSERT_OK(FederatedAverage({Staged("north", 1, Head({1}))}, output_, {}));
  const std::string before = ContentOf(output_);

  EXPECT_THAT(FederatedAverage({Staged("north", 1, Head({kNan}))}, output_, {}),
              StatusIs(StatusCode::kInvalidArgument));

  EXPECT_EQ(ContentOf(output_), before);
  for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
    EXPECT_EQ(entry.path().extension(), ".safetensors");
  }
}

TEST(SiteWeights, AreInProportionToTheCasesWithoutACap) {
  EXPECT_THAT(SiteWeights({1, 2, 5}, 1), ElementsAre(0.125, 0.25, 0.625));
  EXPECT_THAT(SiteWeights({3}, 1), ElementsAre(1));
  EXPECT_THAT(SiteWeights({}, 1), IsEmpty());
}

TEST(SiteWeights, GiveWhatACappedSiteLosesToTheOthersInProportion) {
  EXPECT_THAT(SiteWeights({90, 5, 5}, 0.5), ElementsAre(DoubleEq(0.5), 0.25, 0.25));
  EXPECT_THAT(SiteWeights({80, 15, 5}, 0.4),
              ElementsAre(DoubleEq(0.4), DoubleNear(0.4, 1e-15), DoubleNear(0.2, 1e-15)));
}

TEST(SiteWeights, AreEqualWhenTheCapLeavesNoOtherWay) {
  EXPECT_THAT(SiteWeights({90, 5, 5}, 0.1), Each(DoubleNear(1.0 / 3, 1e-15)));
  EXPECT_THAT(SiteWeights({90, 10}, 0.5), ElementsAre(0.5, 0.5));
  EXPECT_THAT(SiteWeights({90}, 0.5), ElementsAre(1));
}

TEST(SiteWeights, KeepTheirPropertiesForAnyCasesAndCap) {
  RandomStream random(1, "site weights");
  for (int trial = 0; trial < 1000; ++trial) {
    std::vector<std::int64_t> cases;
    const std::int64_t sites = 1 + random.Below(12);
    for (std::int64_t i = 0; i < sites; ++i) {
      cases.push_back(1 + random.Below(random.Chance(0.2) ? 1'000'000'000 : 50));
    }
    const double maximum = random.Uniform(0.01, 1);

    const std::vector<double> weights = SiteWeights(cases, maximum);

    const double largest = std::max(maximum, 1 / static_cast<double>(sites));
    EXPECT_NEAR(std::accumulate(weights.begin(), weights.end(), 0.0), 1, 1e-12);
    EXPECT_THAT(weights, Each(testing::Le(largest + 1e-12)));
    for (std::size_t i = 0; i < cases.size(); ++i) {
      for (std::size_t j = 0; j < cases.size(); ++j) {
        // More cases never weigh less, and below the cap proportions stay.
        if (cases[i] >= cases[j]) {
          EXPECT_GE(weights[i], weights[j]);
        }
        if (weights[i] < largest - 1e-9 && weights[j] < largest - 1e-9) {
          EXPECT_NEAR(weights[i] * static_cast<double>(cases[j]),
                      weights[j] * static_cast<double>(cases[i]),
                      1e-9 * weights[i] * static_cast<double>(cases[j]));
        }
      }
    }
  }
}

TEST(SiteWeights, GiveNothingToASiteWithoutCases) {
  EXPECT_THAT(SiteWeights({4, 0, -3}, 1), ElementsAre(1, 0, 0));
  EXPECT_THAT(SiteWeights({0, 0}, 1), ElementsAre(0, 0));
}

class ScreenUpdateTest : public FederatedAverageTest {
 protected:
  absl::Status Screen(const NamedTensors& tensors) {
    return ScreenUpdate("st-marys", Staged("st-marys", 1, tensors).weights, expected_);
  }

  const TensorShapes expected_ = {{"head.weight", {2, 3}}, {"head.bias", {2}}};
  NamedTensors good_ = {{"head.weight", {{2, 3}, {1, 2, 3, 4, 5, kDenormal}}},
                        {"head.bias", {{2}, {kLargest, -0.0F}}}};
};

TEST_F(ScreenUpdateTest, AcceptsWhatTheNetworkHas) { EXPECT_OK(Screen(good_)); }

TEST_F(ScreenUpdateTest, NamesTheTensorAndTheValueThatIsNotFinite) {
  good_["head.weight"].values[4] = kNan;
  EXPECT_THAT(Screen(good_), StatusIs(StatusCode::kInvalidArgument,
                                      "st-marys sent head.weight with value nan at index 4"));
  good_["head.weight"].values[4] = -kInfinity;
  EXPECT_THAT(Screen(good_), StatusIs(StatusCode::kInvalidArgument,
                                      "st-marys sent head.weight with value -inf at index 4"));
}

TEST_F(ScreenUpdateTest, FindsASingleBadValueAnywhereInALargeTensor) {
  const TensorShapes expected = {{"w", {200'001}}};
  for (const std::size_t index : {0U, 65'535U, 65'536U, 131'072U, 200'000U}) {
    NamedTensors tensors = {{"w", {{200'001}, std::vector<float>(200'001, 1.0F)}}};
    tensors["w"].values[index] = kInfinity;
    EXPECT_THAT(
        ScreenUpdate("st-marys", Staged("st-marys", 1, tensors).weights, expected),
        StatusIs(StatusCode::kInvalidArgument, HasSubstr("at index " + std::to_string(index))));
  }
}

TEST_F(ScreenUpdateTest, NamesTheTensorThatIsMissingForeignOrOfAnotherShape) {
  NamedTensors missing = good_;
  missing.erase("head.bias");
  EXPECT_THAT(Screen(missing),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("head.bias is missing")));

  NamedTensors foreign = good_;
  foreign["tail"] = {{1}, {1}};
  EXPECT_THAT(Screen(foreign), StatusIs(StatusCode::kInvalidArgument, HasSubstr("tail is not")));

  NamedTensors turned = good_;
  turned["head.weight"].shape = {3, 2};
  EXPECT_THAT(Screen(turned),
              StatusIs(StatusCode::kInvalidArgument,
                       "st-marys sent head.weight of shape [3, 2], expected [2, 3]"));
}

TEST_F(ScreenUpdateTest, CallsADamagedFileTheSitesFault) {
  const StagedUpdate update = Staged("st-marys", 1, good_);
  std::filesystem::resize_file(update.weights, 20);
  EXPECT_THAT(ScreenUpdate("st-marys", update.weights, expected_),
              StatusIs(StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("the update of st-marys"), HasSubstr("truncated"))));
}

TEST_F(ScreenUpdateTest, SaysWhenTheUpdateIsNotThere) {
  EXPECT_THAT(ScreenUpdate("st-marys", folder_.path() / "none", expected_),
              StatusIs(StatusCode::kNotFound, HasSubstr("the update of st-marys")));
}

}  // namespace
}  // namespace isoscan
