#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace isoscan {

/// How much sites count for by how good the model is for them: the worse, the more. Pure functions
/// of few numbers; the values are put together by WeightedSum.

/// What q-FedAvg knows of one update.
struct FairUpdate {
  double share = 0;           ///< By training cases; all together 1.
  double loss = 0;            ///< F: of the round's model, before training; at least 0.
  double squared_change = 0;  ///< |w - w_k|^2.
};

/// q-FedAvg: w - sum_k p_k F_k^q L (w - w_k) / sum_k p_k h_k, h_k = q F_k^(q-1) |L (w - w_k)|^2 +
/// L F_k^q. Answers with the factor of each (w_k - w), in the order given; they sum to at most 1,
/// and with q = 0 to 1: that is FedAvg.
///
/// The paper draws sites by p_k and then counts them alike; here all take part, so p_k stands
/// before each term. A loss below 1e-10 counts as 1e-10. Errors: INVALID_ARGUMENT a number that is
/// negative or not finite. Source: docs/references.md#li2020fair, Algorithm 2.
absl::StatusOr<std::vector<double>> FairFactors(double q, double smoothness,
                                                const std::vector<FairUpdate>& updates);

/// The nearest point, by Euclid, whose numbers are not negative and sum to 1.
/// Source: docs/references.md#duchi2008, Figure 1.
std::vector<double> NearestOnSimplex(std::vector<double> point);

/// Numbers by site that sum to 1.
using SiteShares = std::map<std::string, double>;

/// AFL's lambda for a round: what was kept of the sites that take part now; a site that is new
/// starts with its share of the cases. `kept` empty: the shares. All together 1.
SiteShares LambdaFor(const SiteShares& kept, const SiteShares& shares);

/// AFL's step of lambda: uphill along the losses, and back to the simplex. A site without a loss
/// counts as if it had the mean one.
/// Source: docs/references.md#mohri2019, Algorithm 1 (Stochastic-AFL), the step of lambda.
SiteShares LambdaAfter(const SiteShares& lambda, const std::map<std::string, double>& losses,
                       double learning_rate);

}  // namespace isoscan
