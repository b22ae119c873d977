#include "common/population/population_mean.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace isoscan {

absl::Status CheckCaseSum(const std::string& site, const CaseSum& sum, std::size_t length) {
  if (sum.sum.size() != length) {
    return absl::InvalidArgumentError(
        fmt::format("{} declared a sum of {} values, expected {}", site, sum.sum.size(), length));
  }
  if (sum.cases < kMinimumCasesOfSum) {
    return absl::InvalidArgumentError(
        fmt::format("{} declared a sum over {} cases; fewer than {} must not leave a site", site,
                    sum.cases, kMinimumCasesOfSum));
  }
  const auto broken = std::count_if(sum.sum.begin(), sum.sum.end(),
                                    [](double value) { return !std::isfinite(value); });
  if (broken == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "{} of {} values of the sum that {} declared are NaN or infinite", broken, length, site));
}

void AddCase(std::span<const double> values, CaseSum& sum) {
  AddCases({.sum = {values.begin(), values.end()}, .cases = 1}, sum);
}

void AddCases(const CaseSum& other, CaseSum& sum) {
  if (other.cases == 0) return;
  sum.sum.resize(other.sum.size(), 0);
  std::transform(other.sum.begin(), other.sum.end(), sum.sum.begin(), sum.sum.begin(),
                 std::plus<>());
  sum.cases += other.cases;
}

CaseSum Disclosed(const CaseSum& sum) { return sum.cases < kMinimumCasesOfSum ? CaseSum() : sum; }

absl::StatusOr<std::vector<double>> PopulationMean(const std::map<std::string, CaseSum>& sites,
                                                   std::size_t length) {
  CaseSum total;
  for (const auto& [site, sum] : sites) {
    if (sum == CaseSum()) continue;
    if (absl::Status status = CheckCaseSum(site, sum, length); !status.ok()) return status;
    AddCases(sum, total);
  }
  if (total.cases == 0) {
    return absl::FailedPreconditionError(
        fmt::format("none of {} sites has the {} cases that a share in the population's standard "
                    "needs: give the standard in the study, or choose another normaliser",
                    sites.size(), kMinimumCasesOfSum));
  }
  for (double& value : total.sum) value /= static_cast<double>(total.cases);
  return total.sum;
}

}  // namespace isoscan
