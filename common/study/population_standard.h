#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "common/study/harmonization_plan.h"

namespace isoscan {

/// No number of a standard is greater, nor smaller than its negative.
inline constexpr double kLargestStandard = 1e6;

/// Why `standard` cannot be one for `channels` channels, to follow the name of what has it: another
/// number of numbers, one beyond kLargestStandard or NaN, or a channel that descends. Empty: it
/// can.
std::string StandardFault(const std::vector<double>& standard,
                          HarmonizationPlan::Normalizer normalizer, std::size_t channels);

/// Where the plan leaves its standard to the sites' mean, takes the numbers that `metadata` has
/// (HarmonizationMetadata), if they can be one for `channels` channels; CheckHarmonization tells
/// whether the rest fits.
void TakeStandard(const std::map<std::string, std::string>& metadata, std::size_t channels,
                  HarmonizationPlan& plan);

}  // namespace isoscan
