#include <gtest/gtest.h>

#include "tests/fuzz/federation_fuzz.h"
#include "tests/fuzz/replay.h"

namespace isoscan {
namespace {

/// A seed that is refused at its first byte leads a fuzzer nowhere.
template <typename Fuzz>
void SurvivesAndTakesSeeds(const std::vector<FuzzSeed>& seeds, Fuzz fuzz) {
  for (const FuzzSeed& seed : seeds) {
    const TemporaryDirectory folder;
    EXPECT_TRUE(fuzz(seed.bytes, folder.path())) << seed.name;
    EXPECT_LT(seed.bytes.size(), 20'000u) << seed.name;
  }
  Replay(seeds, fuzz);
}

TEST(SiteMessages, SurviveTheirSeedsAndTheirMutations) {
  SurvivesAndTakesSeeds(SiteMessageSeeds(), &FuzzSiteMessage);
}

TEST(ServerMessages, SurviveTheirSeedsAndTheirMutations) {
  SurvivesAndTakesSeeds(ServerMessageSeeds(), &FuzzServerMessage);
}

TEST(Weights, SurviveTheirSeedsAndTheirMutations) {
  SurvivesAndTakesSeeds(WeightsSeeds(), &FuzzWeights);
}

TEST(Text, SurvivesItsSeedsAndTheirMutations) { SurvivesAndTakesSeeds(TextSeeds(), &FuzzText); }

}  // namespace
}  // namespace isoscan
