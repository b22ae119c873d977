#include "server/rounds/participation.h"

#include <gmock/gmock.h>

namespace isoscan {
namespace {

TEST(Participation, CapsTheWeightOfALargeSite) {
  RoundsPlan plan;
  plan.maximum_site_weight = 0.5;
  RoundSituation situation;
  std::map<std::string, JournaledUpdate> updates;
  for (const auto& [name, cases] : std::map<std::string, int>{{"a", 80}, {"b", 10}, {"c", 10}}) {
    Standing site;
    site.site = name;
    site.approved = site.contributed = true;
    site.training_cases = cases;
    situation.sites.push_back(site);
    updates[name].site = name;
    updates[name].training_cases = cases;
  }

  const std::vector<ParticipationRecord> sites = ParticipationOf(plan, situation, updates);

  ASSERT_EQ(sites.size(), 3U);
  EXPECT_DOUBLE_EQ(sites[0].weight, 0.5);
  EXPECT_DOUBLE_EQ(sites[1].weight, 0.25);
  EXPECT_DOUBLE_EQ(sites[2].weight, 0.25);
}

}  // namespace
}  // namespace isoscan
