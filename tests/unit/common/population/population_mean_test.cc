#include "common/population/population_mean.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "common/random/philox.h"
#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using testing::DoubleEq;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<double> RandomVector(RandomStream& random) {
  std::vector<double> values;
  for (int i = 0; i < 11; ++i) values.push_back(random.Uniform(-20, 120));
  return values;
}

class RandomSplits : public testing::TestWithParam<std::uint32_t> {};
INSTANTIATE_TEST_SUITE_P(Population, RandomSplits, testing::Range(0u, 50u));

TEST_P(RandomSplits, HaveTheMeanOfAllCasesTogether) {
  RandomStream random(GetParam(), "cases");
  const std::int64_t sites = 1 + random.Below(9);
  std::map<std::string, CaseSum> federation;
  CaseSum pooled;
  for (std::int64_t i = 0; i < sites * kMinimumCasesOfSum + random.Below(200); ++i) {
    const std::vector<double> values = RandomVector(random);
    // The first cases go round, so that every site has enough of them.
    const std::int64_t site = i < sites * kMinimumCasesOfSum ? i % sites : random.Below(sites);
    AddCase(values, federation["site-" + std::to_string(site)]);
    AddCase(values, pooled);
  }
  for (auto& [site, sum] : federation) sum = Disclosed(sum);

  ASSERT_OK_AND_ASSIGN(const std::vector<double> federated, PopulationMean(federation, 11));

  for (std::size_t i = 0; i < federated.size(); ++i) {
    const double mean = pooled.sum[i] / static_cast<double>(pooled.cases);
    EXPECT_NEAR(federated[i], mean, 1e-12 * std::max(1.0, std::abs(mean)));
  }
}

TEST(PopulationMean, IsBlindToASiteOfFewCases) {
  CaseSum few;
  for (std::int64_t i = 0; i + 1 < kMinimumCasesOfSum; ++i) AddCase({{1000.0, 2000.0}}, few);
  CaseSum enough;
  for (std::int64_t i = 0; i < kMinimumCasesOfSum; ++i) AddCase({{1.0, 4.0}}, enough);

  EXPECT_EQ(Disclosed(few), CaseSum());
  EXPECT_EQ(Disclosed(enough), enough);
  ASSERT_OK_AND_ASSIGN(
      const std::vector<double> mean,
      PopulationMean({{"north", Disclosed(few)}, {"south", Disclosed(enough)}}, 2));
  EXPECT_THAT(mean, ElementsAre(DoubleEq(1), DoubleEq(4)));
}

TEST(PopulationMean, IsRefusedWhereNoSiteHasEnoughCases) {
  EXPECT_THAT(PopulationMean({{"north", {}}, {"south", {}}}, 11),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("none of 2 sites has the 5 cases")));
}

TEST(PopulationMean, RefusesASumThatIsNone) {
  EXPECT_THAT(PopulationMean({{"north", {.sum = {1, 2, 3}, .cases = 7}}}, 11),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("north declared a sum of 3 values, expected 11")));
  EXPECT_THAT(
      PopulationMean({{"north", {.sum = {1, 2}, .cases = 4}}}, 2),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("north declared a sum over 4 cases")));
  EXPECT_THAT(
      PopulationMean({{"north", {.sum = {1, std::numeric_limits<double>::infinity()}, .cases = 9}}},
                     2),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1 of 2 values")));
}

}  // namespace
}  // namespace isoscan
