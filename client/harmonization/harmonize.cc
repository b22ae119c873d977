#include "client/harmonization/harmonize.h"

#include <cstddef>
#include <variant>

#include "common/status/status_macros.h"

namespace isoscan {
namespace {

AffineMap MapOf(const IntensityStatistics& statistics) {
  return {.shift = statistics.mean, .scale = statistics.standard_deviation};
}

void EraseOutside(const Mask& mask, Volume& volume) {
  for (std::size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] == 0) volume.voxels[i] = 0;
  }
}

}  // namespace

absl::StatusOr<HarmonizationRecord> Harmonize(Volume& canonical, const HarmonizationPlan& plan,
                                              const std::optional<Mask>& given,
                                              std::size_t channel) {
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
        record.map = MapOf(record.statistics);
        return record;
      }
      ASSIGN_OR_RETURN(const Mask mask, MakeMask(canonical, plan, given));
      ASSIGN_OR_RETURN(record.statistics, NormalizeOverMask(canonical, mask, plan.outside));
      record.map = MapOf(record.statistics);
      return record;
    }
    case Normalizer::kZScore: {
      ASSIGN_OR_RETURN(record.statistics, NormalizeWhole(canonical));
      record.map = MapOf(record.statistics);
      return record;
    }
    case Normalizer::kNone:
      RETURN_IF_ERROR(CheckVoxels(canonical));
      record.statistics = StatisticsOf(canonical, Mask(canonical.voxels.size(), 1));
      return record;
    default: {
      ASSIGN_OR_RETURN(const Mask mask, MakeMask(canonical, plan, given));
      ASSIGN_OR_RETURN(record.map, FitNormalizer(canonical, mask, plan, channel));
      record.statistics = StatisticsOf(canonical, mask);
      std::visit([&canonical](const auto& map) { Apply(map, canonical); }, record.map);
      if (plan.outside == HarmonizationPlan::Outside::kZero) EraseOutside(mask, canonical);
      return record;
    }
  }
}

absl::StatusOr<std::vector<double>> StandardOf(const Volume& canonical,
                                               const HarmonizationPlan& plan,
                                               const std::optional<Mask>& given) {
  if (!plan.n4.has_value()) {
    ASSIGN_OR_RETURN(const Mask mask, MakeMask(canonical, plan, given));
    return StandardOf(canonical, mask, plan);
  }
  Volume corrected = canonical;
  ASSIGN_OR_RETURN(const Mask before, MakeMask(corrected, plan, given));
  RETURN_IF_ERROR(CorrectBiasField(corrected, before, *plan.n4).status());
  ASSIGN_OR_RETURN(const Mask mask, MakeMask(corrected, plan, given));
  return StandardOf(corrected, mask, plan);
}

}  // namespace isoscan
