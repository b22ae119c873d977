#include "server/rounds/round_rules.h"

#include <gmock/gmock.h>

#include <map>

namespace isoscan {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::SizeIs;

Standing Site(const std::string& name, std::int64_t cases, bool contributed) {
  Standing site;
  site.site = name;
  site.approved = true;
  site.contributed = contributed;
  site.training_cases = cases;
  return site;
}

TEST(QuorumShortfall, CountsTheCasesOfTheContributors) {
  const Quorum half{
      .all = false, .minimum_sites = 1, .minimum_case_fraction = 0.5, .required_sites = {}};

  EXPECT_EQ(QuorumShortfall(half, {Site("a", 49, true), Site("b", 51, false)}),
            "50 % of the 100 declared training cases (49 so far)");
  EXPECT_EQ(QuorumShortfall(half, {Site("a", 50, true), Site("b", 50, false)}), "");
}

TEST(QuorumShortfall, IsNotMissedByTheRoundingOfAFraction) {
  const Quorum tenth{
      .all = false, .minimum_sites = 1, .minimum_case_fraction = 0.1, .required_sites = {}};

  EXPECT_EQ(QuorumShortfall(tenth, {Site("a", 3, true), Site("b", 27, false)}), "");
}

TEST(QuorumShortfall, NamesRequiredSites) {
  const Quorum quorum{.all = false, .minimum_sites = 1, .required_sites = {"b", "c", "d"}};
  Standing withdrawn = Site("c", 1, false);
  withdrawn.withdrawn = true;

  EXPECT_EQ(QuorumShortfall(quorum, {Site("a", 1, true), Site("b", 1, false), withdrawn}),
            "the updates of b, c (has withdrawn) and d (has not approved)");
}

TEST(QuorumShortfall, IsNeverEmptyWithoutAnyUpdate) {
  Standing withdrawn = Site("a", 1, true);
  withdrawn.withdrawn = true;

  EXPECT_EQ(QuorumShortfall(Quorum(), {}), "the update of any site");
  EXPECT_EQ(QuorumShortfall(Quorum(), {withdrawn}), "the update of any site");
}

TEST(QuorumShortfall, OfAllDoesNotWaitForSitesThatCameLater) {
  Standing late = Site("late", 1, false);
  late.declared = false;

  EXPECT_EQ(QuorumShortfall(Quorum(), {Site("a", 1, true), late}), "");
}

TEST(QuorumShortfall, OfAllWaitsForThoseAloneThatTheRoundAsks) {
  Standing resting = Site("resting", 1, false);
  resting.drawn = false;

  EXPECT_EQ(QuorumShortfall(Quorum(), {Site("a", 1, true), resting}), "");
  EXPECT_EQ(QuorumShortfall(Quorum(), {Site("a", 1, false), resting}), "the update of a");
}

TEST(SitesToAsk, AreAllWithoutANumber) {
  EXPECT_THAT(SitesToAsk(RoundsPlan(), 1, 1, {}, {"a", "b"}), ElementsAre("a", "b"));
  EXPECT_THAT(SitesToAsk(RoundsPlan(), 1, 1, {"a"}, {"a", "b"}), ElementsAre("b"));
}

TEST(SitesToAsk, AreEverySetOfTheirNumberEquallyOften) {
  RoundsPlan plan;
  plan.sites_per_round = 2;
  const std::set<std::string> sites = {"a", "b", "c", "d", "e"};
  constexpr int kRounds = 10'000;
  std::map<std::set<std::string>, int> drawn;
  for (int round = 1; round <= kRounds; ++round) ++drawn[SitesToAsk(plan, 7, round, {}, sites)];

  ASSERT_THAT(drawn, SizeIs(10)) << "pairs of five";
  double chi_squared = 0;
  for (const auto& [pair, count] : drawn) {
    const double expected = kRounds / 10.0;
    chi_squared += (count - expected) * (count - expected) / expected;
  }
  EXPECT_LT(chi_squared, 27.9) << "99.9 % of the distribution with 9 degrees of freedom";
}

TEST(SitesToAsk, GoByTheSeedAndTheRound) {
  RoundsPlan plan;
  plan.sites_per_round = 3;
  std::set<std::string> sites;
  for (int i = 0; i < 50; ++i) sites.insert(std::to_string(i));

  const std::set<std::string> asked = SitesToAsk(plan, 1, 1, {}, sites);

  EXPECT_EQ(SitesToAsk(plan, 1, 1, {}, sites), asked);
  EXPECT_NE(SitesToAsk(plan, 1, 2, {}, sites), asked);
  EXPECT_NE(SitesToAsk(plan, 2, 1, {}, sites), asked);
}

TEST(SitesToAsk, GiveThePlaceOfOneThatLeavesToTheNextAndDisturbNobodyElse) {
  RoundsPlan plan;
  plan.sites_per_round = 4;
  std::set<std::string> sites;
  for (int i = 0; i < 12; ++i) sites.insert(std::to_string(i));
  for (int round = 1; round <= 20; ++round) {
    const std::set<std::string> asked = SitesToAsk(plan, 1, round, {}, sites);
    for (const std::string& leaving : asked) {
      std::set<std::string> others = sites;
      others.erase(leaving);
      std::set<std::string> still = asked;
      still.erase(leaving);
      const std::set<std::string> instead = SitesToAsk(plan, 1, round, still, others);

      ASSERT_THAT(instead, SizeIs(1));
      EXPECT_FALSE(asked.contains(*instead.begin()));
      still.merge(std::set<std::string>(instead));
      EXPECT_EQ(SitesToAsk(plan, 1, round, {}, others), still) << "as if it had never been there";
    }
  }
}

TEST(SitesToAsk, HaveTheQuorumsRequiredSitesAmongThem) {
  RoundsPlan plan;
  plan.sites_per_round = 2;
  plan.quorum = {.all = false, .required_sites = {"z", "absent"}};
  for (int round = 1; round <= 20; ++round) {
    const std::set<std::string> asked = SitesToAsk(plan, 1, round, {}, {"a", "b", "c", "z"});
    EXPECT_THAT(asked, SizeIs(2));
    EXPECT_THAT(asked, Contains("z"));
  }
  EXPECT_THAT(SitesToAsk(plan, 1, 1, {"a", "b"}, {"c", "z"}), ElementsAre("z"))
      << "it comes late, and the round cannot close without it";
}

TEST(DurationWords, AreShort) {
  EXPECT_EQ(DurationWords(std::chrono::minutes(1)), "1 minute");
  EXPECT_EQ(DurationWords(std::chrono::minutes(30)), "30 minutes");
  EXPECT_EQ(DurationWords(std::chrono::hours(24)), "24 hours");
  EXPECT_EQ(DurationWords(std::chrono::seconds(6)), "6 seconds");
}

TEST(ListWords, ReadsLikeASentence) {
  EXPECT_EQ(ListWords({}), "");
  EXPECT_EQ(ListWords({"a"}), "a");
  EXPECT_EQ(ListWords({"a", "b", "c"}), "a, b and c");
}

}  // namespace
}  // namespace isoscan
