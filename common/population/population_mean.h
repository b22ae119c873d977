#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace isoscan {

/// A population's standard (Nyul's scale of 11 landmarks, the 3 relative tissue means of least
/// squares) is the mean of one vector per case. A mean over all sites' cases is a sum over the
/// sites of their sums, so the federated standard is the pooled one but for the order of additions,
/// and no case's vector leaves its site: only this does.
struct CaseSum {
  std::vector<double> sum;
  std::int64_t cases = 0;

  bool operator==(const CaseSum&) const = default;
};

/// A sum over fewer cases tells too much about each of them, so a site with fewer does not send it;
/// it uses the others' standard.
inline constexpr std::int64_t kMinimumCasesOfSum = 5;

/// Adds one case. Requires the length of those before it.
void AddCase(std::span<const double> values, CaseSum& sum);

/// Adds another sum's cases. Requires equal lengths unless one is empty.
void AddCases(const CaseSum& other, CaseSum& sum);

/// What may leave a site: the sum, or an empty one under kMinimumCasesOfSum cases.
CaseSum Disclosed(const CaseSum& sum);

/// Errors: INVALID_ARGUMENT naming the site: a sum of another length than `length`, with a value
///         that is NaN or infinite, or over fewer than kMinimumCasesOfSum cases.
absl::Status CheckCaseSum(const std::string& site, const CaseSum& sum, std::size_t length);

/// The population's standard from the sites' disclosed sums, in site-name order. Sites without one
/// are left out.
///
/// Errors: FAILED_PRECONDITION no site has disclosed a sum;
///         those of CheckCaseSum.
absl::StatusOr<std::vector<double>> PopulationMean(const std::map<std::string, CaseSum>& sites,
                                                   std::size_t length);

}  // namespace isoscan
