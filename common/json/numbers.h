#pragma once

#include <nlohmann/json.hpp>

#include <cmath>

namespace isoscan {

/// JSON has neither NaN nor infinity: null.
inline nlohmann::ordered_json NumberOrNull(double value) {
  return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json(nullptr);
}

}  // namespace isoscan
