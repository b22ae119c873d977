#include <gtest/gtest.h>

#include "tests/fuzz/intake_fuzz.h"
#include "tests/fuzz/replay.h"

namespace isoscan {
namespace {

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
