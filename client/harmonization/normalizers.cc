#include "client/harmonization/normalizers.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "client/harmonization/fuzzy_c_means.h"
#include "client/harmonization/least_squares.h"
#include "client/harmonization/nyul.h"
#include "client/harmonization/tissue_mode.h"
#include "client/harmonization/white_stripe.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

using Normalizer = HarmonizationPlan::Normalizer;
static_assert(StandardLength(Normalizer::kNyul) == kNyulPercentiles.size());
static_assert(StandardLength(Normalizer::kLsq) == kTissueClasses);

template <std::size_t length>
std::array<double, length> StandardOfChannel(const HarmonizationPlan& plan, std::size_t channel) {
  std::array<double, length> standard;
  std::copy_n(plan.standard.begin() + static_cast<std::ptrdiff_t>(channel * length), length,
              standard.begin());
  return standard;
}

}  // namespace

absl::StatusOr<IntensityMap> FitNormalizer(const Volume& volume, const Mask& mask,
                                           const HarmonizationPlan& plan, std::size_t channel) {
  if (plan.standard.size() < (channel + 1) * StandardLength(plan.normalize)) {
    return absl::FailedPreconditionError(fmt::format(
        "'{}' needs a standard of {} numbers per channel, and channel {} has none: the sites' mean "
        "is known once the study has started; elsewhere give `standard`",
        ToString(plan.normalize), StandardLength(plan.normalize), channel));
  }
  switch (plan.normalize) {
    case Normalizer::kNyul:
      return FitNyul(volume, mask, StandardOfChannel<kNyulPercentiles.size()>(plan, channel));
    case Normalizer::kLsq:
      return FitLeastSquares(volume, mask, StandardOfChannel<kTissueClasses>(plan, channel));
    case Normalizer::kWhiteStripe: {
      ASSIGN_OR_RETURN(const WhiteStripe stripe,
                       FitWhiteStripe(volume, mask, plan.contrasts.at(channel)));
      return stripe.Map();
    }
    case Normalizer::kKde:
      return FitTissueMode(volume, mask, plan.contrasts.at(channel), plan.bandwidth);
    case Normalizer::kFcm:
      return FitTissueMean(volume, mask, plan.tissue);
    default:
      return absl::InternalError(fmt::format("'{}' is fitted elsewhere", ToString(plan.normalize)));
  }
}

absl::StatusOr<std::vector<double>> StandardOf(const Volume& volume, const Mask& mask,
                                               const HarmonizationPlan& plan) {
  if (plan.normalize == Normalizer::kNyul) {
    ASSIGN_OR_RETURN(const NyulLandmarks landmarks, FindLandmarks(volume, mask));
    const NyulLandmarks standard = OnStandardRange(landmarks);
    return std::vector<double>(standard.begin(), standard.end());
  }
  ASSIGN_OR_RETURN(const auto means, RelativeTissueMeans(volume, mask));
  return std::vector<double>(means.begin(), means.end());
}

}  // namespace isoscan
