// A small version of tests/benchmarks/coverage_bench.cc, whose tables are in docs/fairness.md.

#include <gtest/gtest.h>

#include <vector>

#include "common/random/philox.h"
#include "common/statistics/bootstrap_means.h"
#include "common/statistics/non_inferiority.h"
#include "tests/support/dice_shapes.h"

namespace isoscan {
namespace {

// Per cent of the data sets with an interval that holds the true mean.
double CoverageOf(const DiceShape& shape, std::size_t cases, IntervalMethod method, int data_sets) {
  int held = 0;
#pragma omp parallel for reduction(+ : held)
  for (int data_set = 0; data_set < data_sets; ++data_set) {
    RandomStream random(1, shape.name, static_cast<std::uint64_t>(data_set));
    const std::vector<std::vector<double>> series = {shape.Sample(cases, random)};
    const auto bootstrap = BootstrapMeans::Draw(
        series, "site",
        {.seed = static_cast<std::uint64_t>(data_set), .replicates = 1000, .threads = 1});
    const auto interval = bootstrap.MeanInterval(0, method);
    held += interval && interval->Holds(shape.mean);
  }
  return 100.0 * held / data_sets;
}

TEST(Coverage, OfHundredCasesIsThatOfTheLevel) {
  // 1,000 data sets: a standard error of 0.7 per cent.
  for (const double misses : {0.0, 0.1, 0.3}) {
    const DiceShape shape = SkewedDice(misses);
    const double coverage = CoverageOf(shape, 100, RecommendedMethod(100), 1000);
    EXPECT_GE(coverage, 93 - 1.4) << shape.name;
    EXPECT_LE(coverage, 97 + 1.4) << shape.name;
  }
}

TEST(Coverage, OfFewSkewedCasesNeedsTheStudentisedBootstrap) {
  const DiceShape shape = SkewedDice(0);
  EXPECT_GE(CoverageOf(shape, 10, IntervalMethod::kStudentised, 1000), 93);
  EXPECT_LE(CoverageOf(shape, 10, IntervalMethod::kPercentile, 1000), 90);
  EXPECT_EQ(RecommendedMethod(10), IntervalMethod::kStudentised);
}

TEST(Coverage, OfFailuresThatTheCasesDoNotContainIsPoorWhateverTheMethod) {
  // Ten cases of a model that fails in one of twenty: six times in ten, none of them has failed.
  const DiceShape shape = DiceShapes().back();
  for (const IntervalMethod method : {IntervalMethod::kBca, IntervalMethod::kStudentised}) {
    EXPECT_LE(CoverageOf(shape, 10, method, 500), 60) << WordsFor(method);
  }
}

struct Mistakes {
  int not_worse = 0;
  int harmed = 0;
};

// Of differences that are -margin on average: neither "not worse" nor "harmed" is true.
Mistakes MistakesOf(const DiceShape& shape, std::size_t cases, int data_sets) {
  int not_worse = 0;
  int harmed = 0;
#pragma omp parallel for reduction(+ : not_worse, harmed)
  for (int data_set = 0; data_set < data_sets; ++data_set) {
    RandomStream random(1, shape.name, static_cast<std::uint64_t>(data_set));
    const std::vector<std::vector<double>> series = {shape.Sample(cases, random)};
    const auto bootstrap = BootstrapMeans::Draw(
        series, "site",
        {.seed = static_cast<std::uint64_t>(data_set), .replicates = 1000, .threads = 1});
    const Comparison comparison = CompareWithMargin(bootstrap, 0, -shape.mean);
    const Verdict verdict = Verdicts(std::vector{comparison}).front();
    not_worse += verdict == Verdict::kNotWorse || verdict == Verdict::kBetter;
    harmed += verdict == Verdict::kHarmed;
  }
  return {.not_worse = not_worse, .harmed = harmed};
}

// 2.5 % of 1,000 data sets, and three standard errors.
constexpr int kMostMistakes = 40;

TEST(Verdicts, AreWrongAsRarelyAsTheySayForFewSymmetricDifferences) {
  const DiceShape shape = ShapeOf("even", [](double p) { return 0.04 * p - 0.03; });
  const Mistakes mistakes = MistakesOf(shape, 10, 1000);
  EXPECT_LE(mistakes.not_worse, kMostMistakes);
  EXPECT_LE(mistakes.harmed, kMostMistakes);
}

TEST(Verdicts, AreWrongAsRarelyAsTheySayForMoreDifferencesThatAreSkewed) {
  const DiceShape shape = ShapeOf("skewed gains", [](double p) { return 0.05 * p * p - 0.02; });
  const Mistakes mistakes = MistakesOf(shape, 20, 1000);
  EXPECT_LE(mistakes.not_worse, kMostMistakes);
  EXPECT_LE(mistakes.harmed, kMostMistakes);
}

}  // namespace
}  // namespace isoscan
