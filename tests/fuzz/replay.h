#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/random/philox.h"
#include "tests/fuzz/fuzz_seed.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {

/// Bytes replaced, parts removed and repeated, as a fuzzer's first steps.
inline std::string Mutated(std::string bytes, RandomStream& random) {
  for (std::int64_t edits = 1 + random.Below(4); edits > 0 && !bytes.empty(); --edits) {
    const auto at = static_cast<std::size_t>(random.Below(static_cast<std::int64_t>(bytes.size())));
    switch (random.Below(4)) {
      case 0:
        bytes[at] = static_cast<char>(random.Below(256));
        break;
      case 1:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.Below(8)));
        break;
      case 2:
        bytes.erase(at, static_cast<std::size_t>(random.Below(32)));
        break;
      default:
        bytes.insert(at, bytes.substr(at, static_cast<std::size_t>(random.Below(32))));
    }
  }
  return bytes;
}

/// Each seed and 59 mutations of it, the same ones every time.
template <typename Fuzz>
void Replay(const std::vector<FuzzSeed>& seeds, Fuzz fuzz) {
  RandomStream random(/*seed=*/11, "fuzz");
  for (const FuzzSeed& seed : seeds) {
    for (int i = 0; i < 60; ++i) {
      const TemporaryDirectory folder;
      fuzz(i == 0 ? seed.bytes : Mutated(seed.bytes, random), folder.path());
    }
  }
}

}  // namespace isoscan
