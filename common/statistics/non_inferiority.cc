#include "common/statistics/non_inferiority.h"

#include <algorithm>
#include <cmath>

#include "common/statistics/holm.h"
#include "common/statistics/sign_flips.h"

namespace isoscan {
namespace {

constexpr std::uint64_t kSeed = 1;

// How likely so high a mean would be if the true one were `origin`: how many replicates' t are as
// high as the sample's.
double ProbabilityAbove(double sign, const BootstrapMeans& bootstrap, std::size_t series,
                        double origin) {
  const CaseSample& sample = bootstrap.sample(series);
  const double t =
      sign * (sample.mean - origin) / sample.sd * std::sqrt(static_cast<double>(sample.n));
  const std::span<const double> replicates = bootstrap.t(series);
  const auto hits = std::count_if(replicates.begin(), replicates.end(),
                                  [&](double other) { return sign * other >= t; });
  return static_cast<double>(1 + hits) / static_cast<double>(1 + replicates.size());
}

std::vector<double> Negated(std::span<const double> values) {
  std::vector<double> negated(values.begin(), values.end());
  for (double& value : negated) value = -value;
  return negated;
}

}  // namespace

std::string_view WordsFor(Verdict verdict) {
  switch (verdict) {
    case Verdict::kBetter:
      return "better";
    case Verdict::kNotWorse:
      return "not worse";
    case Verdict::kCannotTell:
      return "cannot tell";
    case Verdict::kHarmed:
      return "harmed";
  }
  return "";
}

Comparison CompareWithMargin(const BootstrapMeans& bootstrap, std::size_t series, double margin,
                             double level) {
  Comparison comparison{.differences = bootstrap.sample(series), .interval = std::nullopt};
  const std::span<const double> values = bootstrap.values(series);
  if (comparison.differences.n >= kFewestDifferencesOfBootstrap &&
      comparison.differences.HasSpread()) {
    comparison.interval = bootstrap.MeanInterval(series, IntervalMethod::kStudentised, level);
    comparison.p_better = ProbabilityAbove(1, bootstrap, series, 0);
    comparison.p_not_worse = ProbabilityAbove(1, bootstrap, series, -margin);
    comparison.p_harmed = ProbabilityAbove(-1, bootstrap, series, -margin);
    return comparison;
  }
  if (comparison.differences.HasSpread()) comparison.interval = SignFlipInterval(values, level);
  comparison.p_better = SignFlipProbability(values, 0, kSeed);
  comparison.p_not_worse = SignFlipProbability(values, -margin, kSeed);
  comparison.p_harmed = SignFlipProbability(Negated(values), margin, kSeed);
  return comparison;
}

std::vector<Verdict> Verdicts(std::span<const Comparison> sites, double level) {
  const auto shown = [&](double Comparison::*p) {
    std::vector<double> p_values;
    for (const Comparison& site : sites) p_values.push_back(site.*p);
    const std::vector<double> adjusted = Holm(p_values);
    std::vector<bool> is_shown;
    for (const double value : adjusted) is_shown.push_back(value <= (1 - level) / 2);
    return is_shown;
  };
  const std::vector<bool> better = shown(&Comparison::p_better);
  const std::vector<bool> not_worse = shown(&Comparison::p_not_worse);
  const std::vector<bool> harmed = shown(&Comparison::p_harmed);
  std::vector<Verdict> verdicts;
  for (std::size_t i = 0; i < sites.size(); ++i) {
    verdicts.push_back(harmed[i]      ? Verdict::kHarmed
                       : better[i]    ? Verdict::kBetter
                       : not_worse[i] ? Verdict::kNotWorse
                                      : Verdict::kCannotTell);
  }
  return verdicts;
}

}  // namespace isoscan
