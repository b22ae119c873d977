/// The brains that tests/golden/harmonization/generate.py gave to intensity-normalization, and what
/// that package answered.
#pragma once

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "client/harmonization/masked_normalization.h"
#include "client/imaging/volume.h"

namespace isoscan {

struct Brain {
  Volume volume;
  Mask mask;
};

/// Case 0 to 5: the same shells of tissue with another contrast, scale, bias and noise. The formula
/// is generate.py's, in whole numbers.
inline Brain PhantomBrain(std::uint32_t number) {
  const std::int64_t n = number;
  Brain brain;
  brain.volume.geometry.size = {24, 28, 20};
  std::uint32_t state = 12345 + 1000 * number;
  for (std::int64_t z = 0; z < 20; ++z) {
    for (std::int64_t y = 0; y < 28; ++y) {
      for (std::int64_t x = 0; x < 24; ++x) {
        const auto square = [](std::int64_t i) { return i * i; };
        const std::int64_t r =
            64 * square(2 * x - 23) + 47 * square(2 * y - 27) + 92 * square(2 * z - 19);
        const std::int64_t tissue = r < 9000                 ? 1120 + 25 * n
                                    : r < 17000              ? 800 - 10 * n
                                    : r < 21000              ? 420 + 15 * n
                                    : r > 24000 && r < 28000 ? 1500
                                                             : 30;
        std::int64_t noise = 0;
        for (int draw = 0; draw < 4; ++draw) {
          state = 1664525u * state + 1013904223u;
          noise += state >> 24;
        }
        const std::int64_t value = std::max<std::int64_t>(0, tissue + noise * 3 / 10 - 153);
        brain.volume.voxels.push_back(static_cast<float>(value * (4 + n) / 4 + 7 * n));
        brain.mask.push_back(r < 21000 ? 1 : 0);
      }
    }
  }
  return brain;
}

/// Every 97th voxel, as the golden file has them.
inline std::vector<double> ProbesOf(const Volume& volume) {
  std::vector<double> probes;
  for (std::size_t i = 0; i < volume.voxels.size(); i += 97) {
    probes.push_back(static_cast<double>(volume.voxels[i]));
  }
  return probes;
}

/// The numbers of one line of the golden file; empty when there is no such line.
inline std::vector<double> Golden(const std::string& name) {
  std::ifstream file(GOLDEN_FOLDER "/harmonization/intensity-normalization.txt");
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string first;
    if (!(words >> first) || first != name) continue;
    std::vector<double> values;
    for (double value = 0; words >> value;) values.push_back(value);
    return values;
  }
  return {};
}

inline Volume Mapped(const Volume& volume, double scale, double bias) {
  Volume result = volume;
  for (float& voxel : result.voxels) {
    voxel = static_cast<float>(scale * static_cast<double>(voxel) + bias);
  }
  return result;
}

}  // namespace isoscan
