#include "deploy/sandbox/case_scores.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "common/random/philox.h"

namespace isoscan {
namespace {

struct Sum {
  double dice = 0;
  double cases = 0;

  void Add(double value) {
    if (std::isnan(value)) return;
    dice += value;
    cases += 1;
  }
  double mean() const { return cases > 0 ? dice / cases : std::nan(""); }
};

}  // namespace

CaseScores MeanOverRepetitions(const std::vector<CaseScores>& repetitions) {
  CaseScores means;
  for (const auto& [site, first] : repetitions.front()) {
    for (std::size_t index = 0; index < first.size(); ++index) {
      Sum sum;
      for (const CaseScores& scores : repetitions) sum.Add(scores.at(site).at(index));
      means[site].push_back(sum.mean());
    }
  }
  return means;
}

double MeanOf(const std::vector<double>& dice) {
  Sum sum;
  for (const double value : dice) sum.Add(value);
  return sum.mean();
}

double MeanOf(const CaseScores& scores) {
  Sum sum;
  for (const auto& [site, dice] : scores) {
    for (const double value : dice) sum.Add(value);
  }
  return sum.mean();
}

Interval BootstrapInterval(const CaseScores& scores) {
  constexpr std::size_t kSamples = 2000;
  RandomStream random(/*seed=*/1, "bootstrap");
  std::vector<double> means;
  for (std::size_t sample = 0; sample < kSamples; ++sample) {
    Sum sum;
    for (const auto& [site, dice] : scores) {
      for (std::size_t draw = 0; draw < dice.size(); ++draw) {
        const std::int64_t chosen = random.Below(static_cast<std::int64_t>(dice.size()));
        sum.Add(dice[static_cast<std::size_t>(chosen)]);
      }
    }
    if (sum.cases > 0) means.push_back(sum.mean());
  }
  if (means.empty()) return {.low = std::nan(""), .high = std::nan("")};
  std::sort(means.begin(), means.end());
  const auto last = static_cast<double>(means.size() - 1);
  return {.low = means[static_cast<std::size_t>(std::floor(0.025 * last))],
          .high = means[static_cast<std::size_t>(std::ceil(0.975 * last))]};
}

}  // namespace isoscan
