#include "deploy/sandbox/case_scores.h"

#include <fmt/format.h>

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

absl::StatusOr<CaseScores> MeanOverRepetitions(const std::vector<CaseScores>& repetitions) {
  CaseScores means;
  for (const auto& [site, first] : repetitions.front()) {
    for (std::size_t repetition = 1; repetition < repetitions.size(); ++repetition) {
      const auto scores = repetitions[repetition].find(site);
      const std::size_t cases = scores == repetitions[repetition].end() ? 0 : scores->second.size();
      if (cases == first.size()) continue;
      return absl::FailedPreconditionError(fmt::format(
          "{} scored {} cases in repetition {} and {} in the first: the cohort has changed, or the "
          "site was missing; remove the repetition's folder and compare again",
          site, cases, repetition + 1, first.size()));
    }
    for (std::size_t index = 0; index < first.size(); ++index) {
      Sum sum;
      for (const CaseScores& scores : repetitions) sum.Add(scores.at(site).at(index));
      means[site].push_back(sum.mean());
    }
  }
  return means;
}

std::int64_t CasesWithDice(const CaseScores& scores) {
  std::int64_t cases = 0;
  for (const auto& [site, dice] : scores) {
    cases +=
        std::count_if(dice.begin(), dice.end(), [](double value) { return !std::isnan(value); });
  }
  return cases;
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
