// Against SciPy and statsmodels: tests/interop/interval_statistics.py.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <fstream>
#include <string>
#include <vector>

#include "common/statistics/bootstrap_means.h"
#include "common/statistics/distributions.h"
#include "common/statistics/holm.h"
#include "common/statistics/median_interval.h"
#include "common/statistics/proportion_interval.h"
#include "common/statistics/sign_flips.h"
#include "common/statistics/smallest_difference.h"

namespace isoscan {
namespace {

using nlohmann::json;
using testing::DoubleNear;
using testing::Pointwise;

json Golden() {
  std::ifstream file(GOLDEN_FOLDER "/statistics/peers.json");
  return json::parse(file);
}

std::vector<json> Entries(const std::string& kind) {
  std::vector<json> entries = Golden()[kind];
  EXPECT_FALSE(entries.empty());
  return entries;
}

void ExpectInterval(const std::optional<Interval>& interval, const json& golden,
                    double tolerance = 1e-11) {
  ASSERT_TRUE(interval.has_value());
  EXPECT_NEAR(interval->low, golden[0], tolerance);
  EXPECT_NEAR(interval->high, golden[1], tolerance);
}

TEST(AgainstPeers, BootstrapsTheSameIntervalsFromTheSameDraws) {
  const json golden = Golden();
  for (const json& entry : Entries("bootstrap")) {
    const double level = entry["level"];
    SCOPED_TRACE(entry["name"].get<std::string>() + " at " + std::to_string(level));
    const std::vector<std::vector<double>> series = {entry["values"]};
    const auto bootstrap =
        BootstrapMeans::Draw(series, golden["site"].get<std::string>(),
                             {.seed = golden["seed"], .replicates = golden["replicates"]});

    ExpectInterval(bootstrap.MeanInterval(0, IntervalMethod::kPercentile, level),
                   entry["percentile"]);
    ExpectInterval(bootstrap.MeanInterval(0, IntervalMethod::kBca, level), entry["bca"]);
    ExpectInterval(bootstrap.MeanInterval(0, IntervalMethod::kStudentT, level), entry["student_t"]);
    if (entry["studentised"].is_null()) continue;
    ExpectInterval(bootstrap.MeanInterval(0, IntervalMethod::kStudentised, level),
                   entry["studentised"]);
  }
}

TEST(AgainstPeers, BoundsProportions) {
  for (const json& entry : Entries("proportions")) {
    SCOPED_TRACE(entry.dump());
    ExpectInterval(ClopperPearson(entry["hits"], entry["n"], entry["level"]),
                   entry["clopper_pearson"]);
    ExpectInterval(Wilson(entry["hits"], entry["n"], entry["level"]), entry["wilson"]);
  }
}

TEST(AgainstPeers, BoundsMedians) {
  for (const json& entry : Entries("medians")) {
    SCOPED_TRACE(entry.dump());
    const std::vector<double> sorted = entry["values"];
    ExpectInterval(MedianInterval(sorted, entry["level"]), entry["interval"], 0);
  }
}

TEST(AgainstPeers, AdjustsProbabilities) {
  for (const json& entry : Entries("holm")) {
    const std::vector<double> p = entry["p"];
    EXPECT_THAT(Holm(p),
                Pointwise(DoubleNear(1e-15), entry["adjusted"].get<std::vector<double>>()));
  }
}

TEST(AgainstPeers, FlipsSigns) {
  for (const json& entry : Entries("sign_flips")) {
    const std::vector<double> differences = entry["differences"];
    EXPECT_EQ(SignFlipProbability(differences, 0, 1), entry["p"]) << entry;
  }
}

TEST(AgainstPeers, FindsTheSmallestDifferenceOfAStudy) {
  for (const json& entry : Entries("smallest")) {
    SCOPED_TRACE(entry.dump());
    const CaseSpread cases{.n = entry["n"], .sd = entry["sd"]};
    const double power = entry["power"];
    // The peer's solver stops at 1e-5 of the effect.
    EXPECT_NEAR(*SmallestPairedDifference(cases, 0.95, power), entry["paired"], 2e-7);
    EXPECT_NEAR(*SmallestDifference(cases, cases, 0.95, power), entry["unpaired"], 2e-7);
  }
  for (const json& entry : Entries("smallest_unequal")) {
    SCOPED_TRACE(entry.dump());
    EXPECT_NEAR(*SmallestDifference({.n = entry["n"][0], .sd = entry["sd"][0]},
                                    {.n = entry["n"][1], .sd = entry["sd"][1]}),
                entry["difference"], 1e-9);
  }
}

TEST(AgainstPeers, KnowsStudentsDistribution) {
  for (const json& entry : Entries("student_t")) {
    SCOPED_TRACE(entry.dump());
    const double degrees = entry["degrees"];
    EXPECT_NEAR(StudentTQuantile(0.975, degrees), entry["quantile_975"], 1e-11);
    EXPECT_NEAR(StudentTProbability(1, degrees), entry["probability_of_1"], 1e-12);
    EXPECT_NEAR(NoncentralTProbability(2, degrees, 3), entry["noncentral_2_3"], 1e-9);
  }
}

}  // namespace
}  // namespace isoscan
