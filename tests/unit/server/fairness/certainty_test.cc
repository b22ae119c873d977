#include "server/fairness/certainty.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <string>
#include <vector>

#include "server/fairness/fairness_statistics.h"
#include "server/fairness/report.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/server/fairness/example_study.h"

namespace isoscan {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

/// A site whose cases have these Dice with the federated model, and by `gain` less alone.
void AddSite(StudyRecord& record, const std::string& name, const std::vector<double>& dice,
             double gain) {
  std::vector<std::vector<LabelScoreRecord>> federated;
  std::vector<std::vector<LabelScoreRecord>> alone;
  for (const double value : dice) {
    federated.push_back({LabelScore(value)});
    alone.push_back({LabelScore(value - gain)});
  }
  record.scores.push_back(GlobalScores(name, 1, federated));
  record.scores.push_back(LocalOnlyScores(name, alone));
}

StudyRecord OneLabel() {
  StudyRecord record = ExampleStudy({.sites = 2, .labels = 1, .rounds = 1});
  record.sites.clear();
  record.scores.clear();
  return record;
}

/// `n` cases around `centre`.
std::vector<double> Cases(int n, double centre) {
  std::vector<double> dice;
  for (int i = 0; i < n; ++i) dice.push_back(centre + 0.02 * ((i * 7) % 5 - 2));
  return dice;
}

const SiteCertainty& OfSite(const StudyStatistics& study, const std::string& name) {
  for (const SiteStatistics& site : study.sites) {
    if (site.site.name == name) return site.certainty;
  }
  ADD_FAILURE() << "no site " << name;
  return study.sites.front().certainty;
}

TEST(Certainty, GivesEverySiteAnIntervalAroundItsMeanAndAVerdict) {
  StudyRecord record = OneLabel();
  AddSite(record, "gains", Cases(20, 0.8), 0.05);
  AddSite(record, "harmed", Cases(20, 0.6), -0.05);
  AddSite(record, "small", Cases(4, 0.7), 0.05);
  ASSERT_OK_AND_ASSIGN(const StudyStatistics study, Summarize(record));

  for (const SiteStatistics& site : study.sites) {
    ASSERT_TRUE(site.certainty.mean.has_value());
    EXPECT_LT(site.certainty.mean->low, site.after->dice.mean);
    EXPECT_GT(site.certainty.mean->high, site.after->dice.mean);
    EXPECT_LE(site.certainty.mean->high, 1);
  }
  EXPECT_EQ(OfSite(study, "gains").verdict, Verdict::kBetter);
  EXPECT_EQ(OfSite(study, "harmed").verdict, Verdict::kHarmed);
  EXPECT_EQ(OfSite(study, "small").verdict, Verdict::kCannotTell);
  EXPECT_TRUE(OfSite(study, "gains").median.has_value());
  EXPECT_FALSE(OfSite(study, "small").median.has_value());
}

TEST(Certainty, TellsSitesApartOnlyWhereTheirCasesDo) {
  StudyRecord record = OneLabel();
  AddSite(record, "a", Cases(20, 0.8), 0);
  AddSite(record, "b", Cases(20, 0.6), 0);
  ASSERT_OK_AND_ASSIGN(const RenderedReport apart, RenderReport(record));
  EXPECT_GT(json::parse(apart.json)["between_sites"]["gap"]["interval"]["low"], 0.15);
  EXPECT_THAT(apart.html, HasSubstr("Chance alone does not explain"));

  record = OneLabel();
  AddSite(record, "a", Cases(20, 0.8), 0);
  AddSite(record, "b", Cases(20, 0.801), 0);
  ASSERT_OK_AND_ASSIGN(const RenderedReport alike, RenderReport(record));
  EXPECT_EQ(json::parse(alike.json)["between_sites"]["gap"]["interval"]["low"], 0);
  EXPECT_THAT(alike.html, HasSubstr("Such a gap can be chance"));
}

TEST(Certainty, GivesTheSameReportAgain) {
  const StudyRecord record = ExampleStudy({});
  ASSERT_OK_AND_ASSIGN(const RenderedReport once, RenderReport(record));
  ASSERT_OK_AND_ASSIGN(const RenderedReport again, RenderReport(record));
  EXPECT_EQ(once.json, again.json);
}

TEST(Certainty, SaysWhichSiteHasNoIntervalInsteadOfAZeroWidth) {
  StudyRecord record = OneLabel();
  AddSite(record, "all-missed", std::vector<double>(12, 0), 0);
  AddSite(record, "one-case", {0.7}, 0.1);
  AddSite(record, "usual", Cases(20, 0.8), 0);
  ASSERT_OK_AND_ASSIGN(const StudyStatistics study, Summarize(record));
  ASSERT_OK_AND_ASSIGN(const RenderedReport report, RenderReport(record));

  EXPECT_FALSE(OfSite(study, "all-missed").mean.has_value());
  EXPECT_FALSE(OfSite(study, "one-case").mean.has_value());
  EXPECT_THAT(study.certainty.without_spread, ElementsAre("all-missed", "one-case"));
  EXPECT_FALSE(study.certainty.spread.has_value());
  EXPECT_THAT(report.html, HasSubstr("give no interval: all-missed, one-case"));
  EXPECT_THAT(report.html, Not(HasSubstr("behind the best (95 %")));
  EXPECT_TRUE(json::parse(report.json)["sites"][0]["interval"].is_null());
}

TEST(Certainty, IsSilentOnStudiesWithoutScores) {
  ASSERT_OK_AND_ASSIGN(const StudyStatistics study, Summarize(OneLabel()));
  EXPECT_FALSE(study.certainty.spread.has_value());
  EXPECT_THAT(study.certainty.without_spread, ElementsAre());
}

}  // namespace
}  // namespace isoscan
