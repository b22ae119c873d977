#pragma once

#include <string>

#include "common/study/study.h"

namespace isoscan {

/// The grid, the network and its training in a line each, for those who decide upon the study; of a
/// draft, how they will be planned.
std::string PlanInWords(const Study& study);

}  // namespace isoscan
