#include "client/harmonization/harmonize.h"

#include <fmt/format.h>

#include "common/status/status_macros.h"

namespace isoscan {

absl::StatusOr<HarmonizationRecord> Harmonize(Volume& canonical, const HarmonizationPlan& plan,
                                              const std::optional<Mask>& given) {
  using Normalizer = HarmonizationPlan::Normalizer;
  HarmonizationRecord record;
  if (plan.n4.has_value()) {
    ASSIGN_OR_RETURN(const Mask mask, MakeMask(canonical, plan, given));
    ASSIGN_OR_RETURN(record.bias_field, CorrectBiasField(canonical, mask, *plan.n4));
  }
  switch (plan.normalize) {
    case Normalizer::kInstance: {
      if (plan.mask == HarmonizationPlan::Mask::kWhole) {
        ASSIGN_OR_RETURN(record.statistics, NormalizeWhole(canonical));
        return record;
      }
      ASSIGN_OR_RETURN(const Mask mask, MakeMask(canonical, plan, given));
      ASSIGN_OR_RETURN(record.statistics, NormalizeOverMask(canonical, mask, plan.outside));
      return record;
    }
    case Normalizer::kZScore: {
      ASSIGN_OR_RETURN(record.statistics, NormalizeWhole(canonical));
      return record;
    }
    case Normalizer::kNone:
      RETURN_IF_ERROR(CheckVoxels(canonical));
      record.statistics = StatisticsOf(canonical, Mask(canonical.voxels.size(), 1));
      return record;
    default:
      return absl::UnimplementedError(
          fmt::format("this version cannot normalise by '{}' yet", ToString(plan.normalize)));
  }
}

}  // namespace isoscan
