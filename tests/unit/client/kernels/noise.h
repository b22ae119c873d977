#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "client/kernels/bfloat16.h"
#include "common/random/philox.h"

namespace isoscan {

template <typename Number>
Number Rounded(float value) {
  if constexpr (std::is_same_v<Number, float>) {
    return value;
  } else {
    return ToBfloat16(value);
  }
}

/// Standard normal numbers; the same ones for the same name.
template <typename Number>
std::vector<Number> Noise(std::int64_t count, const std::string& stream) {
  RandomStream random(1, stream);
  std::vector<Number> noise;
  for (std::int64_t i = 0; i < count; ++i) {
    noise.push_back(Rounded<Number>(static_cast<float>(random.Normal())));
  }
  return noise;
}

}  // namespace isoscan
