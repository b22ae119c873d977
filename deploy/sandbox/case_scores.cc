#include "deploy/sandbox/case_scores.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include "absl/status/status.h"

#include "common/random/philox.h"
#include "common/status/status_macros.h"

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

constexpr std::size_t kSamples = 2000;

/// Of samples that are numbers.
Interval MiddleOf(std::vector<double> samples) {
  std::erase_if(samples, [](double sample) { return std::isnan(sample); });
  if (samples.empty()) return {.low = std::nan(""), .high = std::nan("")};
  std::sort(samples.begin(), samples.end());
  const auto last = static_cast<double>(samples.size() - 1);
  return {.low = samples[static_cast<std::size_t>(std::floor(0.025 * last))],
          .high = samples[static_cast<std::size_t>(std::ceil(0.975 * last))]};
}

std::size_t Draw(std::size_t count, RandomStream& random) {
  return static_cast<std::size_t>(random.Below(static_cast<std::int64_t>(count)));
}

/// As many repetitions as there are, drawn with replacement.
std::vector<CaseScores> Redrawn(const std::vector<CaseScores>& repetitions, RandomStream& random) {
  std::vector<CaseScores> drawn;
  for (std::size_t draw = 0; draw < repetitions.size(); ++draw) {
    drawn.push_back(repetitions[Draw(repetitions.size(), random)]);
  }
  return drawn;
}

/// Case by case; NaN where either has none. Requires the same sites and numbers of cases.
CaseScores Less(const CaseScores& arm, const CaseScores& other) {
  CaseScores differences;
  for (const auto& [site, dice] : arm) {
    const std::vector<double>& reference = other.at(site);
    for (std::size_t index = 0; index < dice.size(); ++index) {
      differences[site].push_back(dice[index] - reference[index]);
    }
  }
  return differences;
}

/// The mean of as many cases as there are, drawn with replacement within their site.
double MeanOfRedrawn(const CaseScores& scores, RandomStream& random) {
  Sum sum;
  for (const auto& [site, dice] : scores) {
    for (std::size_t draw = 0; draw < dice.size(); ++draw) {
      sum.Add(dice[Draw(dice.size(), random)]);
    }
  }
  return sum.mean();
}

absl::Status CheckSameCases(const CaseScores& arm, const CaseScores& other) {
  for (const auto& [site, dice] : arm) {
    const auto scores = other.find(site);
    const std::size_t cases = scores == other.end() ? 0 : scores->second.size();
    if (cases == dice.size()) continue;
    return absl::FailedPreconditionError(
        fmt::format("{} scored {} cases in one arm and {} in another: the cohort has changed, or "
                    "the site was missing; remove the arm's folder and compare again",
                    site, dice.size(), cases));
  }
  return absl::OkStatus();
}

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
  RandomStream random(/*seed=*/1, "bootstrap");
  std::vector<double> means;
  for (std::size_t sample = 0; sample < kSamples; ++sample) {
    means.push_back(MeanOfRedrawn(scores, random));
  }
  return MiddleOf(std::move(means));
}

absl::StatusOr<Difference> PairedDifference(const std::vector<CaseScores>& arm,
                                            const std::vector<CaseScores>& other) {
  ASSIGN_OR_RETURN(const CaseScores mean, MeanOverRepetitions(arm));
  ASSIGN_OR_RETURN(const CaseScores reference, MeanOverRepetitions(other));
  RETURN_IF_ERROR(CheckSameCases(mean, reference));
  Difference difference{.mean = MeanOf(Less(mean, reference)), .interval = {}};
  RandomStream random(/*seed=*/1, "paired bootstrap");
  std::vector<double> samples;
  for (std::size_t sample = 0; sample < kSamples; ++sample) {
    ASSIGN_OR_RETURN(const CaseScores drawn, MeanOverRepetitions(Redrawn(arm, random)));
    ASSIGN_OR_RETURN(const CaseScores against, MeanOverRepetitions(Redrawn(other, random)));
    samples.push_back(MeanOfRedrawn(Less(drawn, against), random));
  }
  difference.interval = MiddleOf(std::move(samples));
  return difference;
}

}  // namespace isoscan
