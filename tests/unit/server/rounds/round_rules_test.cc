#include "server/rounds/round_rules.h"

#include <gmock/gmock.h>

namespace isoscan {
namespace {

using testing::HasSubstr;

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
