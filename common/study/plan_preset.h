#pragma once

#include <string_view>

namespace isoscan {

/// nnU-Net's presets of network and memory.
enum class PlanPreset {
  kPlain,      ///< PlainConvUNet, the default of docs/references.md#isensee2021.
  kResidualM,  ///< ResidualEncoderUNet M of docs/references.md#isensee2024.
  kResidualL,  ///< ResidualEncoderUNet L.
};

/// "plain", "residual_m", "residual_l".
std::string_view ToString(PlanPreset preset);

/// The memory that nnU-Net gives each preset: 8, 8 and 24 GB.
double DefaultMemoryGb(PlanPreset preset);

}  // namespace isoscan
