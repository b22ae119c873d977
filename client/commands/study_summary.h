#pragma once

#include <cstdint>
#include <string>

#include "common/study/study.h"

namespace isoscan {

/// What a study will do, in a dozen lines, for the person who approves it.
std::string Summarize(const Study& study);

/// "1.50 GiB".
std::string Gibibytes(std::int64_t bytes);

}  // namespace isoscan
