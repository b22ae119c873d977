#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/random/philox.h"
#include "tests/fuzz/intake_fuzz.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using Fuzz = void (*)(std::string_view, const std::filesystem::path&);

/// Bytes replaced, parts removed and repeated, as a fuzzer's first steps.
std::string Mutated(std::string bytes, RandomStream& random) {
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

void Replay(const std::vector<FuzzSeed>& seeds, Fuzz fuzz) {
  RandomStream random(/*seed=*/11, "fuzz");
  for (const FuzzSeed& seed : seeds) {
    for (int i = 0; i < 60; ++i) {
      const TemporaryDirectory folder;
      fuzz(i == 0 ? seed.bytes : Mutated(seed.bytes, random), folder.path());
    }
  }
}

TEST(FuzzSeeds, AreSmallAndThere) {
  EXPECT_GE(NiftiSeeds().size(), 17u);
  EXPECT_GE(DicomSeeds().size(), 12u);
  for (const FuzzSeed& seed : NiftiSeeds()) EXPECT_LT(seed.bytes.size(), 20'000u) << seed.name;
  for (const FuzzSeed& seed : DicomSeeds()) EXPECT_LT(seed.bytes.size(), 20'000u) << seed.name;
}

TEST(NiftiIntake, SurvivesItsSeedsAndTheirMutations) { Replay(NiftiSeeds(), &FuzzNifti); }

TEST(DicomIntake, SurvivesItsSeedsAndTheirMutations) { Replay(DicomSeeds(), &FuzzDicom); }

}  // namespace
}  // namespace isoscan
