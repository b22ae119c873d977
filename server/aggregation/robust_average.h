#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "server/aggregation/block_pass.h"
#include "server/aggregation/block_reducer.h"
#include "server/aggregation/staged_updates.h"
#include "server/aggregation/update_distances.h"

namespace isoscan {

/// Ways to make one model of updates of which some may be anything: broken, mislabelled, hostile.
///
/// All but the geometric median ignore the weights: how many cases a site has is what the site
/// says, and a rule that has to stand sites that lie cannot count them by what they say. The
/// geometric median weighs as its paper does; what a site can gain by a lie there is bounded by
/// `maximum_site_weight`.
struct RobustRule {
  enum class Kind {
    kMedian,           ///< Of each value: trimmed_mean.h
    kTrimmedMean,      ///< Of each value: trimmed_mean.h
    kKrum,             ///< krum.h
    kMultiKrum,        ///< krum.h
    kBulyan,           ///< krum.h, then trimmed_mean.h
    kGeometricMedian,  ///< geometric_median.h
  };

  Kind kind = Kind::kMedian;
  double trimmed_fraction = 0.1;  ///< kTrimmedMean: of each side, in [0, 0.5).
  std::int64_t faulty_sites = 1;  ///< kKrum, kMultiKrum, kBulyan: f, how many may be anything.
  std::int64_t kept_updates = 0;  ///< kMultiKrum: m; 0: as many as its proof allows, n - f - 2.
};

/// The fewest updates from which the rule means anything: 2 f + 3 for Krum, also m + f for
/// Multi-Krum; 4 f + 3 for Bulyan; as many that one is trimmed from each side for the trimmed mean;
/// 1 for the medians.
std::int64_t MinimumUpdates(const RobustRule& rule);

/// Whether the rule needs distances, and with that a pass of its own over the updates.
bool NeedsDistances(const RobustRule& rule);

/// What was decided before any value was combined.
struct RobustDecision {
  /// By update: what it counts for. 0 where it was left out, otherwise they sum to 1; rules that go
  /// by coordinate and keep every update give all the same.
  std::vector<double> weights;
  /// By update: why it was left out, such as "distance 41.2 to its 5 nearest, chosen were up to
  /// 12.9"; empty where it was not.
  std::vector<std::string> left_out;
  /// Puts those together whose weight is not 0, in their order.
  std::unique_ptr<BlockReducer> reducer;
};

/// A pure function. `shares` are the updates' weights (SharesOf) in site-name order, which also
/// decides between equals; `distances` of the same updates is read where NeedsDistances().
/// Errors: FAILED_PRECONDITION fewer updates than MinimumUpdates (both numbers).
absl::StatusOr<RobustDecision> Decide(const RobustRule& rule, const std::vector<double>& shares,
                                      const Distances* distances);

/// One site's part in a model.
struct SitePart {
  std::string site;
  double weight = 0;     ///< As RobustDecision::weights.
  std::string left_out;  ///< As RobustDecision::left_out.
};

/// Measures, decides and writes the model to `output` (atomically) with `metadata`. Tells the
/// sites' parts in site-name order. On an error nothing is written.
/// Errors: those of CheckStagedUpdates, Decide and ReduceBlocks.
absl::StatusOr<std::vector<SitePart>> RobustAverage(
    const RobustRule& rule, std::vector<StagedUpdate> updates, const std::filesystem::path& output,
    const std::map<std::string, std::string>& metadata, const AveragingOptions& options = {});

}  // namespace isoscan
