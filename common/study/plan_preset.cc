#include "common/study/plan_preset.h"

namespace isoscan {

std::string_view ToString(PlanPreset preset) {
  switch (preset) {
    case PlanPreset::kPlain:
      return "plain";
    case PlanPreset::kResidualM:
      return "residual_m";
    case PlanPreset::kResidualL:
      break;
  }
  return "residual_l";
}

double DefaultMemoryGb(PlanPreset preset) { return preset == PlanPreset::kResidualL ? 24 : 8; }

}  // namespace isoscan
