// What the intervals and verdicts of common/statistics really come to, by simulation: cases are
// drawn from populations whose truth is known, and it is counted how often an interval holds it, or
// a test is wrong. Prints the tables of docs/fairness.md, "How sure it is".
//
//   coverage_bench means|verdicts|spread|power [DATA_SETS [REPLICATES]]     (4000, 2000)
//
// A worry: what the report uses covers less than its table says.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "common/random/philox.h"
#include "common/statistics/bootstrap_means.h"
#include "common/statistics/distributions.h"
#include "common/statistics/non_inferiority.h"
#include "common/statistics/sign_flips.h"
#include "common/statistics/smallest_difference.h"
#include "common/statistics/spread_over_sites.h"
#include "tests/support/dice_shapes.h"

namespace isoscan {
namespace {

struct Size {
  int data_sets = 4000;
  int replicates = 2000;
};

// How often something held, of how many.
struct Tally {
  int held = 0;
  int counted = 0;
  double width = 0;

  void Count(bool holds) {
    held += holds;
    ++counted;
  }
  void Count(const std::optional<Interval>& interval, double truth) {
    if (!interval) return;
    Count(interval->Holds(truth));
    width += interval->high - interval->low;
  }
  double PerCent() const { return 100.0 * held / std::max(1, counted); }
  std::string CoverageAndWidth() const {
    return fmt::format("{:.1f} %, {:.3f}", PerCent(), width / std::max(1, counted));
  }
};

// Adds up what `count(data_set, tallies)` counts in each data set.
template <typename Count>
std::vector<Tally> Simulate(const Size& size, std::size_t tallies, Count count) {
  std::vector<Tally> total(tallies);
#pragma omp parallel
  {
    std::vector<Tally> own(tallies);
#pragma omp for schedule(dynamic, 16)
    for (int data_set = 0; data_set < size.data_sets; ++data_set) {
      count(static_cast<std::uint64_t>(data_set), own);
    }
#pragma omp critical
    for (std::size_t i = 0; i < tallies; ++i) {
      total[i].held += own[i].held;
      total[i].counted += own[i].counted;
      total[i].width += own[i].width;
    }
  }
  return total;
}

void PrintRow(const std::vector<std::string>& cells) {
  for (const std::string& cell : cells) fmt::print("| {} ", cell);
  fmt::print("|\n");
  std::fflush(stdout);
}

void PrintHead(const std::vector<std::string>& cells) {
  PrintRow(cells);
  for (std::size_t i = 0; i < cells.size(); ++i) fmt::print("|---");
  fmt::print("|\n");
}

BootstrapMeans Draw(const std::vector<double>& cases, std::string_view site, std::uint64_t seed,
                    const Size& size) {
  const std::vector<std::vector<double>> series = {cases};
  return BootstrapMeans::Draw(series, site,
                              {.seed = seed, .replicates = size.replicates, .threads = 1});
}

// Coverage and mean width of the interval of a mean, at 95 %.
void Means(const Size& size) {
  constexpr std::array kMethods = {IntervalMethod::kStudentT, IntervalMethod::kPercentile,
                                   IntervalMethod::kBca, IntervalMethod::kStudentised};
  PrintHead({"cases", "Dice", "Student's t", "percentile", "BCa", "studentised"});
  for (const std::size_t cases : {6U, 10U, 15U, 30U, 100U, 300U}) {
    for (const DiceShape& shape : DiceShapes()) {
      const std::vector<Tally> tallies =
          Simulate(size, kMethods.size(), [&](std::uint64_t data_set, std::vector<Tally>& counted) {
            RandomStream random(1, shape.name, data_set, static_cast<std::uint32_t>(cases));
            const auto bootstrap = Draw(shape.Sample(cases, random), "site", data_set, size);
            for (std::size_t i = 0; i < kMethods.size(); ++i) {
              std::optional<Interval> interval = bootstrap.MeanInterval(0, kMethods[i]);
              if (interval) interval = interval->Within(0, 1);
              counted[i].Count(interval, shape.mean);
            }
          });
      std::vector<std::string> row = {std::to_string(cases), shape.name};
      for (const Tally& tally : tallies) row.push_back(tally.CoverageAndWidth());
      PrintRow(row);
    }
  }
}

std::vector<DiceShape> DifferenceShapes() {
  return {ShapeOf("normal", [](double p) { return 0.03 * NormalQuantile(p); }),
          ShapeOf("heavy tails", [](double p) { return 0.02 * StudentTQuantile(p, 3); }),
          ShapeOf("a third better, else equal",
                  [](double p) {
                    return p < 0.67 ? 0.005 * NormalQuantile(p / 0.67) : 0.05 + 0.4 * (p - 0.67);
                  }),
          ShapeOf("a tenth much worse, else better", [](double p) {
            return p < 0.1 ? -0.5 + 5 * p : 0.01 + 0.01 * NormalQuantile((p - 0.1) / 0.9);
          })};
}

// How often the mean of differences is found above, and below, what it is: 2.5 % each.
void VerdictErrors(const Size& size) {
  PrintHead({"cases", "differences", "sign flips", "Student's t", "studentised"});
  for (const std::size_t cases : {6U, 10U, 14U, 15U, 20U, 30U, 100U}) {
    for (const DiceShape& shape : DifferenceShapes()) {
      const std::vector<Tally> tallies =
          Simulate(size, 6, [&](std::uint64_t data_set, std::vector<Tally>& counted) {
            RandomStream random(1, shape.name, data_set, static_cast<std::uint32_t>(cases));
            std::vector<double> differences = shape.Sample(cases, random);
            const auto bootstrap = Draw(differences, "site", data_set, size);
            const auto is_wrong = [&](const std::optional<Interval>& interval, std::size_t first) {
              counted[first].Count(interval && interval->low > shape.mean);
              counted[first + 1].Count(interval && interval->high < shape.mean);
            };
            counted[0].Count(SignFlipProbability(differences, shape.mean, 1) <= 0.025);
            is_wrong(bootstrap.MeanInterval(0, IntervalMethod::kStudentT), 2);
            is_wrong(bootstrap.MeanInterval(0, IntervalMethod::kStudentised), 4);
            for (double& value : differences) value = -value;
            counted[1].Count(SignFlipProbability(differences, -shape.mean, 1) <= 0.025);
          });
      std::vector<std::string> row = {std::to_string(cases), shape.name};
      for (std::size_t i = 0; i < tallies.size(); i += 2) {
        row.push_back(
            fmt::format("{:.1f} / {:.1f} %", tallies[i].PerCent(), tallies[i + 1].PerCent()));
      }
      PrintRow(row);
    }
  }
}

struct Federation {
  std::string name;
  std::vector<std::size_t> cases;
  std::vector<double> offsets;  // Of each site's true mean.
};

std::vector<Federation> Federations() {
  const std::vector<std::size_t> three = {10, 20, 40};
  const std::vector<std::size_t> ten = {6, 8, 10, 12, 15, 20, 30, 40, 60, 100};
  return {
      {"3 equal", three, {0, 0, 0}},
      {"3, the smallest 0.1 lower", three, {-0.1, 0, 0}},
      {"3 of 100 cases, one 0.05 lower", {100, 100, 100}, {-0.05, 0, 0}},
      {"10 equal", ten, std::vector<double>(10, 0)},
      {"10, evenly over 0.2", ten, {-0.1, 0.1, 0.02, -0.08, 0.06, -0.04, 0.08, -0.06, 0.04, -0.02}},
      {"10, one 0.2 lower", ten, {0, 0, 0, -0.2, 0, 0, 0, 0, 0, 0}},
  };
}

struct TrueSpread {
  double gap = 0;
  double sd = 0;
  double jain = 0;
};

TrueSpread SpreadOf(const Federation& federation, double mean_of_shape) {
  const auto [least, most] =
      std::minmax_element(federation.offsets.begin(), federation.offsets.end());
  const auto sites = static_cast<double>(federation.offsets.size());
  double sum = 0;
  double squares = 0;
  for (const double offset : federation.offsets) {
    sum += offset;
    squares += offset * offset;
  }
  const double variance = std::max(0.0, squares / sites - sum * sum / sites / sites);
  const double error = 1 - mean_of_shape - sum / sites;
  return {
      .gap = *most - *least, .sd = std::sqrt(variance), .jain = 1 / (1 + variance / error / error)};
}

// Errors of the replicates' means, without regard to the replicates' spread.
SiteMean WithPlainErrors(const BootstrapMeans& bootstrap) {
  const CaseSample& sample = bootstrap.sample(0);
  const auto n = static_cast<double>(sample.n);
  SiteMean site{.mean = sample.mean, .errors = {}};
  for (const double mean : bootstrap.means(0)) {
    site.errors.push_back((mean - sample.mean) * std::sqrt(n / (n - 1)));
  }
  return site;
}

// The bootstrap distribution of the observed gap.
Interval PercentileGap(const std::vector<SiteMean>& sites) {
  std::vector<double> gaps;
  for (std::size_t replicate = 0; replicate < sites.front().errors.size(); ++replicate) {
    double lowest = sites.front().mean + sites.front().errors[replicate];
    double highest = lowest;
    for (const SiteMean& site : sites) {
      lowest = std::min(lowest, site.mean + site.errors[replicate]);
      highest = std::max(highest, site.mean + site.errors[replicate]);
    }
    gaps.push_back(highest - lowest);
  }
  Interval interval{.level = 0.95, .method = IntervalMethod::kPercentile};
  interval.low = QuantileInPlace(gaps, 0.025);
  interval.high = QuantileInPlace(gaps, 0.975);
  return interval;
}

// Coverage and mean width at 95 %.
void Spreads(const Size& size) {
  PrintHead({"sites", "Dice", "gap", "standard deviation", "Jain on error",
             "gap, errors not studentised", "gap, percentile"});
  for (const Federation& federation : Federations()) {
    for (const DiceShape& shape : DiceShapes()) {
      const TrueSpread truth = SpreadOf(federation, shape.mean);
      const std::vector<Tally> tallies =
          Simulate(size, 5, [&](std::uint64_t data_set, std::vector<Tally>& counted) {
            std::vector<SiteMean> sites;
            std::vector<SiteMean> plain;
            for (std::size_t i = 0; i < federation.cases.size(); ++i) {
              const std::string name = fmt::format("{} {}", shape.name, i);
              RandomStream random(1, name, data_set);
              std::vector<double> cases = shape.Sample(federation.cases[i], random);
              for (double& value : cases) value += federation.offsets[i];
              const BootstrapMeans bootstrap = Draw(cases, name, data_set, size);
              auto site = MeanWithErrors(bootstrap, 0);
              if (!site) return;
              sites.push_back(*std::move(site));
              plain.push_back(WithPlainErrors(bootstrap));
            }
            const auto spread = CompareSites(sites);
            counted[0].Count(spread->gap.interval, truth.gap);
            counted[1].Count(spread->sd.interval, truth.sd);
            if (spread->jain_on_error) {
              counted[2].Count(spread->jain_on_error->interval, truth.jain);
            }
            counted[3].Count(CompareSites(plain)->gap.interval, truth.gap);
            counted[4].Count(PercentileGap(plain), truth.gap);
          });
      std::vector<std::string> row = {federation.name, shape.name};
      for (const Tally& tally : tallies) row.push_back(tally.CoverageAndWidth());
      PrintRow(row);
    }
  }
}

// How often the t test and the report's own test show the smallest paired difference: 80 %.
void Power(const Size& size) {
  PrintHead({"cases", "differences", "Student's t", "sign flips below 15, else studentised"});
  for (const std::size_t cases : {6U, 10U, 15U, 30U, 100U}) {
    for (const DiceShape& shape : DifferenceShapes()) {
      const double difference = *SmallestPairedDifference(
          {.n = static_cast<std::int64_t>(cases), .sd = SampleOf(shape.values).sd});
      const std::vector<Tally> tallies =
          Simulate(size, 2, [&](std::uint64_t data_set, std::vector<Tally>& counted) {
            RandomStream random(1, shape.name, data_set, static_cast<std::uint32_t>(cases));
            std::vector<double> differences = shape.Sample(cases, random);
            for (double& value : differences) value += difference - shape.mean;
            const BootstrapMeans bootstrap = Draw(differences, "site", data_set, size);
            const auto interval = bootstrap.MeanInterval(0, IntervalMethod::kStudentT);
            counted[0].Count(interval && interval->low > 0);
            counted[1].Count(CompareWithMargin(bootstrap, 0, 0).p_better <= 0.025);
          });
      PrintRow({std::to_string(cases), shape.name, fmt::format("{:.1f} %", tallies[0].PerCent()),
                fmt::format("{:.1f} %", tallies[1].PerCent())});
    }
  }
}

}  // namespace
}  // namespace isoscan

int main(int argc, char** argv) {
  const std::string table = argc > 1 ? argv[1] : "";
  isoscan::Size size;
  if (argc > 2) size.data_sets = std::atoi(argv[2]);
  if (argc > 3) size.replicates = std::atoi(argv[3]);
  if (table == "means") {
    isoscan::Means(size);
  } else if (table == "verdicts") {
    isoscan::VerdictErrors(size);
  } else if (table == "spread") {
    isoscan::Spreads(size);
  } else if (table == "power") {
    isoscan::Power(size);
  } else {
    fmt::print(stderr,
               "usage: coverage_bench means|verdicts|spread|power [DATA_SETS [REPLICATES]]\n");
    return 2;
  }
  return 0;
}
