// What must hold for every way to make one model of many updates.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <ostream>
#include <string>
#include <vector>

#include "common/random/philox.h"
#include "common/study/strategy_plan.h"
#include "server/aggregation/corrected_average.h"
#include "server/aggregation/federated_average.h"
#include "server/aggregation/robust_average.h"
#include "tests/support/file_content.h"
#include "tests/unit/server/aggregation/staged_files.h"

namespace isoscan {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::HasSubstr;

using Column = std::vector<double>;  // One number, of every site.

constexpr float kDenormal = std::numeric_limits<float>::denorm_min();
constexpr float kLargest = std::numeric_limits<float>::max();

// What a reference may look at: whole updates, in site-name order, and their shares.
struct Given {
  std::vector<std::vector<double>> updates;
  std::vector<double> model;
  std::vector<double> shares;
};

using Reference = std::function<std::vector<double>(const Given&)>;

struct Way {
  std::string name;
  std::size_t fewest;  // Updates that it works from.
  std::function<absl::Status(const std::filesystem::path& model, const std::vector<StagedUpdate>&,
                             const std::filesystem::path& output, const AveragingOptions&)>
      run;
  Reference reference;
};

void PrintTo(const Way& way, std::ostream* stream) { *stream << way.name; }

// ---- The references: as plainly as the formulas can be written, over whole vectors of double.
// ----

std::vector<double> ByColumn(const Given& given, const std::function<double(Column)>& combine) {
  std::vector<double> result;
  for (std::size_t i = 0; i < given.model.size(); ++i) {
    Column column;
    for (const auto& update : given.updates) column.push_back(update[i]);
    result.push_back(combine(column));
  }
  return result;
}

double Mean(const Column& column) {
  return std::accumulate(column.begin(), column.end(), 0.0) / static_cast<double>(column.size());
}

double Median(Column column) {
  std::sort(column.begin(), column.end());
  return (column[(column.size() - 1) / 2] + column[column.size() / 2]) / 2;
}

double Trimmed(Column column, std::size_t trimmed) {
  std::sort(column.begin(), column.end());
  const auto skip = static_cast<std::ptrdiff_t>(trimmed);
  return Mean({column.begin() + skip, column.end() - skip});
}

std::vector<double> WeightedMean(const Given& given, const std::vector<double>& weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  return ByColumn(given, [&](const Column& column) {
    return std::inner_product(column.begin(), column.end(), weights.begin(), 0.0) / sum;
  });
}

double Length(const std::vector<double>& a, const std::vector<double>& b) {
  double square = 0;
  for (std::size_t i = 0; i < a.size(); ++i) square += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(square);
}

// Places in `rest`, best first.
std::vector<std::size_t> KrumOrder(const std::vector<std::vector<double>>& rest,
                                   std::size_t neighbours) {
  std::vector<double> scores;
  for (std::size_t i = 0; i < rest.size(); ++i) {
    std::vector<double> squares;
    for (std::size_t j = 0; j < rest.size(); ++j) {
      if (j != i) squares.push_back(std::pow(Length(rest[i], rest[j]), 2));
    }
    std::sort(squares.begin(), squares.end());
    scores.push_back(std::accumulate(
        squares.begin(), squares.begin() + static_cast<std::ptrdiff_t>(neighbours), 0.0));
  }
  std::vector<std::size_t> order(rest.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t i, std::size_t j) { return scores[i] < scores[j]; });
  return order;
}

std::vector<double> MultiKrum(Given given, std::size_t faulty, std::size_t kept) {
  auto order = KrumOrder(given.updates, given.updates.size() - faulty - 2);
  order.resize(kept);
  std::vector<double> weights(given.updates.size(), 0.0);
  for (const std::size_t i : order) weights[i] = 1;
  return WeightedMean(given, weights);
}

std::vector<double> Bulyan(Given given, std::size_t faulty) {
  const std::size_t chosen = given.updates.size() - 2 * faulty;
  std::vector<std::vector<double>> selected;
  while (selected.size() < chosen) {
    const auto least = static_cast<int>(given.updates.size()) - static_cast<int>(faulty) - 2;
    const std::size_t best =
        KrumOrder(given.updates, static_cast<std::size_t>(std::max(least, 1))).front();
    selected.push_back(given.updates[best]);
    given.updates.erase(given.updates.begin() + static_cast<std::ptrdiff_t>(best));
  }
  given.updates = selected;
  return ByColumn(given, [&](Column column) {
    const double median = Median(column);
    std::sort(column.begin(), column.end());
    std::stable_sort(column.begin(), column.end(), [&](double a, double b) {
      return std::abs(a - median) < std::abs(b - median);
    });
    column.resize(chosen - 2 * faulty);
    return Mean(column);
  });
}

// Weiszfeld on the vectors themselves.
std::vector<double> GeometricMedian(const Given& given) {
  std::vector<double> point = WeightedMean(given, given.shares);
  for (int turn = 0; turn < 300; ++turn) {
    std::vector<double> weights;
    for (std::size_t k = 0; k < given.updates.size(); ++k) {
      weights.push_back(given.shares[k] / std::max(Length(point, given.updates[k]), 1e-9));
    }
    point = WeightedMean(given, weights);
  }
  return point;
}

Way Robust(const std::string& name, const RobustRule& rule, Reference reference) {
  return {.name = name,
          .fewest = static_cast<std::size_t>(MinimumUpdates(rule)),
          .run =
              [rule](const std::filesystem::path&, const std::vector<StagedUpdate>& updates,
                     const std::filesystem::path& output, const AveragingOptions& options) {
                return RobustAverage(rule, updates, output, {{"round", "3"}}, options).status();
              },
          .reference = std::move(reference)};
}

// Steps and shares that do not depend on the order.
double NumberOf(const StagedUpdate& update) { return 1 + (update.site.back() - 'a') % 5; }

std::vector<Way> Ways() {
  using Kind = RobustRule::Kind;
  return {
      {.name = "FedAvg",
       .fewest = 1,
       .run = [](const auto&, const auto& updates, const auto& output,
                 const auto& options) -> absl::Status {
         return FederatedAverage(updates, output, {{"round", "3"}}, options);
       },
       .reference = [](const Given& given) { return WeightedMean(given, given.shares); }},
      {.name = "FedNova",
       .fewest = 1,
       .run = [](const auto& model, const auto& updates, const auto& output,
                 const auto& options) -> absl::Status {
         std::vector<SteppedUpdate> stepped;
         for (const StagedUpdate& update : updates) stepped.push_back({update, NumberOf(update)});
         return NormalizedAverage(model, stepped, output, {{"round", "3"}}, options);
       },
       .reference =
           [](const Given& given) {
             double steps = 0;
             for (std::size_t k = 0; k < given.shares.size(); ++k) {
               steps += given.shares[k] * static_cast<double>(1 + k % 5);
             }
             std::vector<double> result = given.model;
             for (std::size_t i = 0; i < result.size(); ++i) {
               for (std::size_t k = 0; k < given.shares.size(); ++k) {
                 result[i] += steps * given.shares[k] / static_cast<double>(1 + k % 5) *
                              (given.updates[k][i] - given.model[i]);
               }
             }
             return result;
           }},
      {.name = "Scaffold",
       .fewest = 1,
       .run = [](const auto& model, const auto& updates, const auto& output,
                 const auto& options) -> absl::Status {
         std::vector<ControlledUpdate> controlled;
         for (const StagedUpdate& update : updates) {
           controlled.push_back({update, NumberOf(update) / 100});
         }
         return ScaffoldAverage(model, controlled, output, {{"round", "3"}}, options);
       },
       .reference = [](const Given& given) { return WeightedMean(given, given.shares); }},
      Robust("Median", {.kind = Kind::kMedian},
             [](const Given& given) { return ByColumn(given, Median); }),
      Robust("TrimmedMean", {.kind = Kind::kTrimmedMean, .trimmed_fraction = 0.2},
             [](const Given& given) {
               return ByColumn(
                   given, [](const Column& column) { return Trimmed(column, column.size() / 5); });
             }),
      Robust("Krum", {.kind = Kind::kKrum, .faulty_sites = 2},
             [](const Given& given) { return MultiKrum(given, 2, 1); }),
      Robust("MultiKrum", {.kind = Kind::kMultiKrum, .faulty_sites = 2},
             [](const Given& given) { return MultiKrum(given, 2, given.updates.size() - 4); }),
      Robust("MultiKrumOfThree", {.kind = Kind::kMultiKrum, .faulty_sites = 1, .kept_updates = 3},
             [](const Given& given) { return MultiKrum(given, 1, 3); }),
      Robust("Bulyan", {.kind = Kind::kBulyan, .faulty_sites = 2},
             [](const Given& given) { return Bulyan(given, 2); }),
      Robust("GeometricMedian", {.kind = Kind::kGeometricMedian}, GeometricMedian),
  };
}

class EveryReducerTest : public testing::TestWithParam<Way> {
 protected:
  static constexpr std::size_t kSites = 11;

  // Some values beyond a block of any size, and tensors that are smaller than one.
  NamedTensors Random(const std::string& name, std::int64_t values, float scale) const {
    RandomStream random(14, name);
    NamedTensors tensors;
    for (const Shape& shape : {Shape{}, Shape{values}, Shape{3, 7}}) {
      Tensor& tensor = tensors["tensor" + ToString(shape)];
      tensor.shape = shape;
      tensor.values.resize(static_cast<std::size_t>(ElementCount(shape)));
      random.FillNormal(tensor.values, scale);
    }
    return tensors;
  }

  std::filesystem::path Model(std::int64_t values = 500) const {
    return files_.Write("model", Random("model", values, 1));
  }

  StagedUpdate Update(std::size_t k, const NamedTensors& tensors, double weight) const {
    return files_.Staged(std::string("site-") + static_cast<char>('a' + k), tensors, weight);
  }

  std::vector<StagedUpdate> Updates(std::int64_t values = 500, std::size_t sites = kSites) const {
    std::vector<StagedUpdate> updates;
    for (std::size_t k = 0; k < sites; ++k) {
      updates.push_back(
          Update(k, Random("site" + std::to_string(k), values, 1), 1 + static_cast<double>(k % 4)));
    }
    return updates;
  }

  absl::Status Run(const std::filesystem::path& model, const std::vector<StagedUpdate>& updates,
                   const AveragingOptions& options = {}) const {
    return GetParam().run(model, updates, files_.output(), options);
  }

  void ExpectTheReference(const std::filesystem::path& model,
                          const std::vector<StagedUpdate>& updates, double tolerance) const {
    ASSERT_OK(Run(model, updates));
    const auto flat = [](const NamedTensors& tensors) {
      std::vector<double> values;
      for (const auto& [name, tensor] : tensors) {
        values.insert(values.end(), tensor.values.begin(), tensor.values.end());
      }
      return values;
    };
    Given given{.updates = {}, .model = flat(files_.Read(model)), .shares = SharesOf(updates)};
    for (const StagedUpdate& update : updates)
      given.updates.push_back(flat(files_.Read(update.weights)));
    const std::vector<double> expected = GetParam().reference(given);
    const std::vector<double> output = flat(files_.Output());
    ASSERT_EQ(output.size(), expected.size());
    for (std::size_t i = 0; i < output.size(); ++i) {
      ASSERT_NEAR(output[i], expected[i], tolerance * std::max(1.0, std::abs(expected[i]))) << i;
    }
  }

  const StagedFiles files_;
};

TEST_P(EveryReducerTest, GivesTheSameBytesForAnyOrderThreadsAndBlocks) {
  constexpr std::int64_t kValues = 70'001;
  const auto model = Model(kValues);
  std::vector<StagedUpdate> updates = Updates(kValues);
  ASSERT_OK(Run(model, updates));
  const std::string expected = TextOf(files_.output());

  RandomStream random(15, "order");
  int threads = 0;
  for (const std::int64_t block_values : {1024, 1500, 4096, 64 * 1024}) {
    for (int turn = 0; turn < 2; ++turn) {
      threads = threads % 8 + 1;
      for (std::size_t i = updates.size() - 1; i > 0; --i) {
        std::swap(
            updates[i],
            updates[static_cast<std::size_t>(random.Below(static_cast<std::int64_t>(i) + 1))]);
      }
      ASSERT_OK(Run(model, updates, {.threads = threads, .block_values = block_values}));
      EXPECT_TRUE(TextOf(files_.output()) == expected)
          << threads << " threads, blocks of " << block_values;
    }
  }
  ASSERT_OK(Run(model, updates, {.threads = 8, .memory_bytes = 1}));
  EXPECT_TRUE(TextOf(files_.output()) == expected);
}

TEST_P(EveryReducerTest, EqualsItsFormulaInPlainDoubles) {
  const auto model = Model();
  const std::vector<StagedUpdate> updates = Updates(500, kSites + 1);
  for (std::size_t sites = GetParam().fewest; sites <= updates.size(); sites += 1 + sites / 4) {
    SCOPED_TRACE(sites);
    ExpectTheReference(
        model, {updates.begin(), updates.begin() + static_cast<std::ptrdiff_t>(sites)}, 1e-6);
  }
}

TEST_P(EveryReducerTest, StandsTies) {
  // Three groups of sites that sent the same.
  std::vector<StagedUpdate> updates;
  for (std::size_t k = 0; k < kSites; ++k) {
    updates.push_back(Update(k, Random("group" + std::to_string(k % 3), 500, 1), 1));
  }
  ExpectTheReference(Model(), updates, 1e-5);

  for (StagedUpdate& update : updates)
    update = Update(update.site.back() - 'a', Random("all", 500, 1), 1);
  ASSERT_OK(Run(files_.Write("model", Random("all", 500, 1)), updates));
  const NamedTensors all = Random("all", 500, 1);
  const NamedTensors output = files_.Output();
  for (const auto& [name, tensor] : all) {
    EXPECT_THAT(output.at(name).values,
                testing::Pointwise(testing::FloatNear(1e-6F), tensor.values));
  }
}

TEST_P(EveryReducerTest, KeepsDenormalsAndTheLargestFloats) {
  for (const float value : {kDenormal, 3 * kDenormal, -kDenormal, kLargest, -kLargest}) {
    const NamedTensors tensors = {{"w", Row({value, 0, value})}};
    std::vector<StagedUpdate> updates;
    for (std::size_t k = 0; k < kSites; ++k) updates.push_back(Update(k, tensors, 1));
    ASSERT_OK(Run(files_.Write("model", tensors), updates));
    EXPECT_EQ(files_.Output(), tensors) << value;
  }
}

TEST_P(EveryReducerTest, StandsWeightsOfAnySize) {
  std::vector<StagedUpdate> updates = Updates();
  for (std::size_t k = 0; k < updates.size(); ++k) {
    updates[k].weight = std::pow(10.0, 4 * static_cast<double>(k % 3));
  }
  ExpectTheReference(Model(), updates, 2e-5);
}

TEST_P(EveryReducerTest, OfOneUpdateIsThatUpdateOrRefused) {
  const NamedTensors tensors = {{"w", Row({0.1F, kDenormal, kLargest, -kLargest, 1 / 3.0F})}};
  const absl::Status status =
      Run(files_.Write("model", {{"w", Row({0, 0, 0, 0, 0})}}), {Update(0, tensors, 7)});
  if (GetParam().fewest > 1) {
    EXPECT_THAT(status, StatusIs(StatusCode::kFailedPrecondition, HasSubstr("there are 1")));
    return;
  }
  ASSERT_OK(status);
  EXPECT_EQ(files_.Output(), tensors);
}

TEST_P(EveryReducerTest, NamesTheSiteAndTensorThatIsNoNumberAndLeavesNothing) {
  for (const float value :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    std::vector<StagedUpdate> updates = Updates(70'001);
    NamedTensors broken = Random("site4", 70'001, 1);
    broken["tensor[70001]"].values[66'000] = value;
    updates[4] = Update(4, broken, 1);
    EXPECT_THAT(Run(Model(70'001), updates),
                StatusIs(StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("site-e sent tensor[70001]"), HasSubstr("index 66000"))));
    files_.ExpectNoOutput();
  }
}

TEST_P(EveryReducerTest, RefusesTooFewUpdatesWithBothNumbers) {
  if (GetParam().fewest == 1) {
    EXPECT_THAT(Run(Model(), {}), StatusIs(StatusCode::kInvalidArgument, HasSubstr("no update")));
  } else {
    const std::size_t there = GetParam().fewest - 1;
    EXPECT_THAT(Run(Model(), Updates(500, there)),
                StatusIs(StatusCode::kFailedPrecondition,
                         HasSubstr("needs " + std::to_string(GetParam().fewest) +
                                   " updates, there are " + std::to_string(there))));
  }
  files_.ExpectNoOutput();
}

TEST_P(EveryReducerTest, RefusesUpdatesOfOtherTensorsAndTheSameSiteTwice) {
  std::vector<StagedUpdate> updates = Updates();
  updates[2] = Update(2, Random("site2", 501, 1), 1);
  EXPECT_THAT(Run(Model(), updates),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("site-c sent 3 tensors")));
  updates = Updates();
  updates.push_back(updates.front());
  EXPECT_THAT(Run(Model(), updates),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("site-a has two updates")));
  files_.ExpectNoOutput();
}

INSTANTIATE_TEST_SUITE_P(Aggregation, EveryReducerTest, testing::ValuesIn(Ways()),
                         [](const auto& way) { return way.param.name; });

// Two of eleven sites send anything; no value of the model leaves what the others sent.
class RobustRuleTest : public testing::TestWithParam<RobustRule::Kind> {};

TEST_P(RobustRuleTest, StaysWithTheHonestSites) {
  const StagedFiles files;
  RandomStream random(16, "values");
  for (const float far : {10.0F, 1e6F, 1e20F, kLargest}) {
    for (const bool agreed : {false, true}) {
      std::vector<StagedUpdate> updates;
      for (int k = 0; k < 11; ++k) {
        std::vector<float> values(200);
        random.FillNormal(values, 1);
        for (float& value : values) {
          if (k == 3 || k == 7) value = agreed ? far : std::copysign(far, value);
        }
        updates.push_back(files.Staged(std::string(1, static_cast<char>('a' + k)),
                                       {{"w", Row(values)}}, k == 3 ? 5 : 1));
      }
      ASSERT_OK_AND_ASSIGN(
          const std::vector<SitePart> parts,
          RobustAverage({.kind = GetParam(), .trimmed_fraction = 0.2, .faulty_sites = 2}, updates,
                        files.output(), {}));
      double weights = 0;
      for (const SitePart& part : parts) {
        weights += part.weight;
        EXPECT_EQ(part.weight == 0, !part.left_out.empty()) << part.site;
      }
      EXPECT_NEAR(weights, 1, 1e-12);
      // Of eleven standard normal numbers none is beyond 6; the geometric median is drawn a little.
      const NamedTensors output = files.Output();
      for (const float value : output.at("w").values) {
        ASSERT_LT(std::abs(value), 6) << far << " " << agreed;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Aggregation, RobustRuleTest,
                         testing::Values(RobustRule::Kind::kMedian, RobustRule::Kind::kTrimmedMean,
                                         RobustRule::Kind::kKrum, RobustRule::Kind::kMultiKrum,
                                         RobustRule::Kind::kBulyan,
                                         RobustRule::Kind::kGeometricMedian));

// A study asks for as many sites as its rule needs, neither more nor fewer.
TEST(MinimumUpdates, AreThoseThatAStudyAsksFor) {
  using Kind = RobustRule::Kind;
  for (int n = 3; n <= 100; ++n) {
    const double trim = 1.0 / n;
    const RobustRule rule{.kind = Kind::kTrimmedMean, .trimmed_fraction = trim};
    EXPECT_EQ(MinimumUpdates(rule), n);
    EXPECT_EQ(FewestUpdates({.kind = StrategyPlan::Kind::kTrimmedMean, .trim = trim}), n);
  }
  for (std::int64_t f = 1; f <= 5; ++f) {
    EXPECT_EQ(MinimumUpdates({.kind = Kind::kKrum, .faulty_sites = f}),
              FewestUpdates({.kind = StrategyPlan::Kind::kKrum, .byzantine_sites = f}));
    EXPECT_EQ(MinimumUpdates({.kind = Kind::kBulyan, .faulty_sites = f}),
              FewestUpdates({.kind = StrategyPlan::Kind::kBulyan, .byzantine_sites = f}));
    EXPECT_EQ(
        MinimumUpdates({.kind = Kind::kMultiKrum, .faulty_sites = f, .kept_updates = 9}),
        FewestUpdates(
            {.kind = StrategyPlan::Kind::kMultiKrum, .byzantine_sites = f, .chosen_sites = 9}));
  }
}

TEST(MinimumUpdates, AreThoseOfThePapers) {
  using Kind = RobustRule::Kind;
  EXPECT_EQ(MinimumUpdates({.kind = Kind::kMedian}), 1);
  EXPECT_EQ(MinimumUpdates({.kind = Kind::kGeometricMedian}), 1);
  EXPECT_EQ(MinimumUpdates({.kind = Kind::kTrimmedMean, .trimmed_fraction = 0}), 1);
  EXPECT_EQ(MinimumUpdates({.kind = Kind::kTrimmedMean, .trimmed_fraction = 0.2}), 5);
  EXPECT_EQ(MinimumUpdates({.kind = Kind::kTrimmedMean, .trimmed_fraction = 0.1}), 10);
  EXPECT_EQ(MinimumUpdates({.kind = Kind::kTrimmedMean, .trimmed_fraction = 0.3}), 4);
  EXPECT_EQ(MinimumUpdates({.kind = Kind::kTrimmedMean, .trimmed_fraction = 0.49}), 3);
  EXPECT_EQ(MinimumUpdates({.kind = Kind::kKrum, .faulty_sites = 2}), 7);
  EXPECT_EQ(MinimumUpdates({.kind = Kind::kMultiKrum, .faulty_sites = 2}), 7);
  EXPECT_EQ(MinimumUpdates({.kind = Kind::kMultiKrum, .faulty_sites = 2, .kept_updates = 6}), 8);
  EXPECT_EQ(MinimumUpdates({.kind = Kind::kBulyan, .faulty_sites = 2}), 11);
}

// Flower's vectors, from files to file.
TEST(RobustAverage, GivesFlowersValues) {
  using Kind = RobustRule::Kind;
  const StagedFiles files;
  const auto value = [&](const RobustRule& rule, const std::vector<float>& updates) {
    EXPECT_OK(RobustAverage(rule, files.Scalars(updates), files.output(), {}));
    return files.Output().at("w");
  };
  EXPECT_EQ(value({.kind = Kind::kMedian}, {0.2F, 1.0F, 0.5F}), (Tensor{{}, {0.5F}}));
  EXPECT_EQ(value({.kind = Kind::kTrimmedMean, .trimmed_fraction = 0.25}, {0.5F, 1, 2, 100}),
            (Tensor{{}, {1.5F}}));
  EXPECT_EQ(value({.kind = Kind::kKrum, .faulty_sites = 0}, {0.2F, 0.7F, 1.0F}),
            (Tensor{{}, {0.7F}}));
  EXPECT_EQ(
      value({.kind = Kind::kMultiKrum, .faulty_sites = 0, .kept_updates = 2}, {0.2F, 0.5F, 1.0F}),
      (Tensor{{}, {0.35F}}));
}

TEST(RobustAverage, TellsWhoWasLeftOutAndWhy) {
  const StagedFiles files;
  ASSERT_OK_AND_ASSIGN(const std::vector<SitePart> parts,
                       RobustAverage({.kind = RobustRule::Kind::kKrum},
                                     files.Scalars({0, 1, 3, 10, 11}), files.output(), {}));
  ASSERT_EQ(parts.size(), 5U);
  EXPECT_EQ(parts[1].site, "b");
  EXPECT_EQ(parts[1].weight, 1);
  EXPECT_EQ(parts[4].site, "e");
  EXPECT_EQ(parts[4].weight, 0);
  EXPECT_EQ(parts[4].left_out, "distance 5.7 to its 2 nearest, chosen were up to 1.58");
}

}  // namespace
}  // namespace isoscan
