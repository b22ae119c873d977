#include "server/fairness/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <limits>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "tests/support/status_matchers.h"
#include "tests/unit/server/fairness/example_study.h"

namespace isoscan {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

/// A number of the page as the reader sees it: thousands separated, a real minus sign.
double NumberOn(std::string text) {
  std::erase(text, ',');
  const std::string minus = "−";
  return text.starts_with(minus) ? -std::stod(text.substr(minus.size())) : std::stod(text);
}

std::set<std::string> IdsOf(const std::string& html) {
  std::set<std::string> ids;
  const std::regex id(" id=\"([^\"]+)\"");
  for (std::sregex_iterator match(html.begin(), html.end(), id), end; match != end; ++match) {
    EXPECT_TRUE(ids.insert((*match)[1]).second) << "twice on the page: " << (*match)[1];
  }
  return ids;
}

class ReportOfShape : public testing::TestWithParam<ExampleShape> {};

TEST_P(ReportOfShape, EveryNumberOfItsTablesEqualsTheJson) {
  ASSERT_OK_AND_ASSIGN(const RenderedReport report, RenderReport(ExampleStudy(GetParam())));
  const json twin = json::parse(report.json);

  const std::regex cell("data-json=\"([^\"]+)\">([^<]*)<");
  int compared = 0;
  for (std::sregex_iterator match(report.html.begin(), report.html.end(), cell), end; match != end;
       ++match) {
    const json& value = twin.at(json::json_pointer((*match)[1]));
    const std::string shown = (*match)[2];
    if (value.is_null()) {
      EXPECT_EQ(shown, "–") << (*match)[1];
    } else {
      EXPECT_NEAR(NumberOn(shown), value.get<double>(), 0.000501) << (*match)[1];
    }
    ++compared;
  }
  EXPECT_GE(compared, GetParam().sites * (10 + GetParam().labels));
}

TEST_P(ReportOfShape, IsOneFileThatAsksNothingOfTheNetwork) {
  ASSERT_OK_AND_ASSIGN(const RenderedReport report, RenderReport(ExampleStudy(GetParam())));

  EXPECT_THAT(report.html, HasSubstr("default-src 'none'"));
  EXPECT_THAT(report.html, Not(ContainsRegex("https?:")));
  EXPECT_THAT(report.html, Not(HasSubstr("<script")));
  EXPECT_THAT(report.html, Not(HasSubstr("url(")));
  EXPECT_THAT(report.html, Not(ContainsRegex("[^a-z]nan[^a-z]")));
}

TEST_P(ReportOfShape, EveryReferenceLeadsToOneThingOnThePage) {
  ASSERT_OK_AND_ASSIGN(const RenderedReport report, RenderReport(ExampleStudy(GetParam())));
  const std::set<std::string> ids = IdsOf(report.html);

  const std::regex reference("(?:aria-labelledby=\"|href=\"#)([^\"]+)\"");
  for (std::sregex_iterator match(report.html.begin(), report.html.end(), reference), end;
       match != end; ++match) {
    std::istringstream names((*match)[1]);
    for (std::string name; names >> name;) EXPECT_TRUE(ids.contains(name)) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Studies, ReportOfShape,
                         testing::Values(ExampleShape{},
                                         ExampleShape{.sites = 1, .labels = 1, .local_only = false},
                                         ExampleShape{.sites = 3, .personal = true},
                                         ExampleShape{.sites = 12, .labels = 8, .rounds = 40}),
                         [](const testing::TestParamInfo<ExampleShape>& test) {
                           return std::to_string(test.param.sites) + "Sites" +
                                  std::to_string(test.param.labels) + "Labels";
                         });

TEST(Report, ShowsEachHospitalsOwnModelBesideTheFederatedOne) {
  ASSERT_OK_AND_ASSIGN(const RenderedReport with,
                       RenderReport(ExampleStudy({.sites = 2, .personal = true})));
  ASSERT_OK_AND_ASSIGN(const RenderedReport without, RenderReport(ExampleStudy({.sites = 2})));

  EXPECT_THAT(with.html, HasSubstr("A model of its own"));
  EXPECT_THAT(without.html, Not(HasSubstr("A model of its own")));
  EXPECT_TRUE(json::parse(without.json)["sites"][0]["personal"].is_null());
  const json twin = json::parse(with.json);
  for (const json& site : twin["sites"]) {
    const json& personal = site["personal"];
    EXPECT_GT(personal["dice"]["mean"], site["dice"]["mean"]);
    EXPECT_NEAR(personal["personal_minus_federated"]["mean"].get<double>(),
                personal["dice"]["mean"].get<double>() - site["dice"]["mean"].get<double>(), 1e-9);
    EXPECT_GT(personal["cases_better_personal"], personal["cases_worse_personal"]);
  }
}

TEST(Report, SaysThatLayersStayAtTheHospitals) {
  StudyRecord record = ExampleStudy({.sites = 2});
  record.study.network.local_layers = {"norm", "<b>"};
  ASSERT_OK_AND_ASSIGN(const RenderedReport report, RenderReport(record));

  EXPECT_THAT(report.html, HasSubstr("the layers called norm, &lt;b&gt; stay at each hospital"));
  EXPECT_THAT(report.html, HasSubstr("Stays at each hospital"));
}

TEST(Report, BeginsWithTheSentenceThatMatters) {
  ASSERT_OK_AND_ASSIGN(const RenderedReport report, RenderReport(ExampleStudy({})));
  const json twin = json::parse(report.json);

  EXPECT_EQ(twin["worst_site"], "henry-ford");
  EXPECT_EQ(twin["best_site"], "case-western");
  EXPECT_NEAR(twin["gap"].get<double>(),
              twin["sites"][0]["dice"]["mean"].get<double>() -
                  twin["sites"][1]["dice"]["mean"].get<double>(),
              1e-12);
  EXPECT_THAT(report.html,
              ContainsRegex("After 10 rounds over 4 hospitals the model reaches a mean Dice of "
                            "<b>0\\.[0-9]{3}</b>; worst served is <b>henry-ford</b> "
                            "\\(0\\.[0-9]{3}\\), 0\\.[0-9]{3} behind the best \\(95 % interval "
                            "<span[^>]*>0\\.[0-9]{3}</span> to <span[^>]*>0\\.[0-9]{3}"
                            "</span>\\)\\."));
}

TEST(Report, NamesTheBestModelAndWhoJudgedIt) {
  StudyRecord record = ExampleStudy({.sites = 2});
  record.study.rounds.best_by = RoundsPlan::BestBy::kWorstSite;
  ASSERT_OK_AND_ASSIGN(const RenderedReport report, RenderReport(record));
  const json best = json::parse(report.json)["best_model"];

  EXPECT_EQ(best["by"], "worst_site");
  EXPECT_EQ(best["judges"], json({"case-western", "henry-ford"}));
  const int round = best["round"];
  ASSERT_GE(round, 1);
  EXPECT_EQ(best["digest"], record.rounds.at(static_cast<std::size_t>(round) - 1).model_digest);
  for (const json& model : best["models"]) EXPECT_LE(model["score"], best["score"]);
  EXPECT_THAT(report.html, HasSubstr("Best by mean Dice at the worst served site"));
}

TEST(Report, SaysWhichSitesAreTooSmallAndWhoWasLeftOutAndWhy) {
  ASSERT_OK_AND_ASSIGN(const RenderedReport report, RenderReport(ExampleStudy({})));

  EXPECT_THAT(report.html, HasSubstr("too few to conclude from: henry-ford"));
  EXPECT_THAT(report.html, HasSubstr("<b>henry-ford</b>, rounds 4, 5: no progress for 30 minutes"));
}

TEST(Report, CountsMissesAndEmptyLabelsInsteadOfAveragingThemAway) {
  StudyRecord record = ExampleStudy({.sites = 1, .labels = 1, .rounds = 1, .local_only = false});
  record.scores = {GlobalScores("case-western", 1,
                                {{LabelScore(0.9)}, {Miss()}, {BothEmpty()}, {FalseAlarm()}})};

  ASSERT_OK_AND_ASSIGN(const RenderedReport report, RenderReport(record));
  const json label = json::parse(report.json)["sites"][0]["labels"][0];

  EXPECT_NEAR(label["dice"]["mean"].get<double>(), 0.3, 1e-12);
  EXPECT_EQ(label["misses"], 1);
  EXPECT_EQ(label["false_alarms"], 1);
  EXPECT_EQ(label["both_empty"], 1);
  EXPECT_THAT(report.html, HasSubstr("3 cases · 1 missed · 1 false alarm · 1 rightly empty"));
}

TEST(Report, EscapesHostileTextEverywhere) {
  const std::string attack = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>";
  StudyRecord record = ExampleStudy({.sites = 2, .rounds = 2});
  record.study.name = attack;
  record.study.description = attack;
  record.study.toml = attack;
  record.study.digest = attack;
  record.study.channels = {attack};
  record.study.labels[1] = attack;
  record.study.rounds.quorum.all = false;
  record.study.rounds.quorum.required_sites = {attack};
  record.software_version = attack;
  record.sites[1].name = attack;
  for (ModelScoresRecord& scores : record.scores) {
    if (scores.site == "henry-ford") scores.site = attack;
  }
  for (RoundRecord& round : record.rounds) {
    round.model_digest = attack;
    round.sites[1].site = attack;
    round.sites[1].outcome = ParticipationRecord::Outcome::kLeftOut;
    round.sites[1].reason = attack;
  }

  ASSERT_OK_AND_ASSIGN(const RenderedReport report, RenderReport(record));

  EXPECT_THAT(report.html, Not(HasSubstr("<script")));
  EXPECT_THAT(report.html, Not(HasSubstr("<img")));
  EXPECT_THAT(report.html, Not(HasSubstr("onerror='")));
  EXPECT_EQ(json::parse(report.json)["study"], attack);
}

TEST(Report, IsReadableBeforeTheFirstRound) {
  StudyRecord record = ExampleStudy({.sites = 2, .rounds = 0, .local_only = false});
  record.finished = false;
  record.ended = Time{};
  record.scores.clear();

  ASSERT_OK_AND_ASSIGN(const RenderedReport report, RenderReport(record));
  const json twin = json::parse(report.json);

  EXPECT_THAT(report.html, HasSubstr("No trained model has been scored"));
  EXPECT_THAT(report.html, HasSubstr("not started"));
  EXPECT_TRUE(twin["worst_site"].is_null());
  EXPECT_TRUE(twin["gap"].is_null());
  EXPECT_TRUE(twin["sites"][0]["misses"].is_null());
}

TEST(Report, IsReadableForAStudyOfNothing) {
  ASSERT_OK_AND_ASSIGN(const RenderedReport report, RenderReport(StudyRecord{}));

  EXPECT_THAT(report.html, HasSubstr("No trained model has been scored"));
  EXPECT_TRUE(json::parse(report.json)["sites"].empty());
}

TEST(Report, SaysWhatEachHarmonisationLeaves) {
  using Plan = HarmonizationPlan;
  const auto html_of = [](const Plan& plan) {
    StudyRecord record = ExampleStudy({});
    record.study.harmonization = plan;
    return RenderReport(record)->html;
  };
  Plan kde;
  kde.normalize = Plan::Normalizer::kKde;
  kde.contrasts = {Plan::Contrast::kT1w};
  kde.bandwidth = Plan::Bandwidth::kPackage;
  Plan scott = kde;
  scott.bandwidth = Plan::Bandwidth::kScott;
  Plan none;
  none.normalize = Plan::Normalizer::kNone;
  Plan n4_alone = none;
  n4_alone.n4 = N4Plan();

  EXPECT_THAT(html_of({}), AllOf(HasSubstr("As stored"), HasSubstr("After harmonisation")));
  EXPECT_THAT(html_of(none), AllOf(HasSubstr("As stored"), HasSubstr("the network sees these."),
                                   Not(HasSubstr("After harmonisation"))));
  EXPECT_THAT(html_of(n4_alone), HasSubstr("the network sees these after N4 alone."));
  EXPECT_THAT(html_of({}), HasSubstr("and its bias (<i>x</i> becomes <i>s·x + b</i>) exactly"));
  EXPECT_THAT(html_of(scott), HasSubstr("exactly (<i>x</i> becomes <i>s·x</i>), but no bias"));
  EXPECT_THAT(html_of(kde),
              AllOf(HasSubstr("<b>Partly removed:</b>"), Not(HasSubstr("<b>Removed:</b>")),
                    HasSubstr("<b>Not removed:</b>")));
  EXPECT_THAT(html_of(none),
              AllOf(HasSubstr("intensities as they are."), Not(HasSubstr("<b>Not removed:</b>"))));
  EXPECT_THAT(html_of(n4_alone), AllOf(HasSubstr("intensities that N4 corrects"),
                                       Not(HasSubstr("intensities as they are"))));
}

TEST(Report, ShowsEachSitesCertificateAndCurves) {
  ASSERT_OK_AND_ASSIGN(const RenderedReport report, RenderReport(ExampleStudy({})));
  const json twin = json::parse(report.json);

  EXPECT_THAT(report.html, HasSubstr("<h2>Invariance certificate</h2>"));
  EXPECT_THAT(report.html, HasSubstr("certificate-quadratic_field-dice"));
  const json& certificate = twin["sites"][0]["certificate"];
  EXPECT_EQ(certificate["holds"], true);
  EXPECT_EQ(certificate["curves"][0]["perturbation"], "gamma");
  EXPECT_EQ(certificate["curves"][0]["points"][0]["amount"], 0.5);
  EXPECT_TRUE(twin["sites"][1]["certificate"].is_null()) << "this site sent none";
  EXPECT_THAT(report.html, HasSubstr("No certificate came from " +
                                     twin["sites"][1]["name"].get<std::string>() + "."));
}

TEST(Report, SaysPlainlyThatTheInvarianceDoesNotHold) {
  StudyRecord record = ExampleStudy({});
  EXPECT_THAT(RenderReport(record)->html, Not(HasSubstr("does not hold</td>")));

  for (ModelScoresRecord& scores : record.scores) {
    if (!scores.certificate) continue;
    scores.certificate->largest_logit_change = std::numeric_limits<double>::infinity();
  }

  ASSERT_OK_AND_ASSIGN(const RenderedReport report, RenderReport(record));
  EXPECT_THAT(report.html, HasSubstr("does not hold</td>"));
  EXPECT_TRUE(
      json::parse(report.json)["sites"][0]["certificate"]["largest_logit_change"].is_null());
}

TEST(Report, HasNoCertificateSectionWhereNoSiteSentOne) {
  StudyRecord record = ExampleStudy({});
  for (ModelScoresRecord& scores : record.scores) scores.certificate.reset();

  EXPECT_THAT(RenderReport(record)->html, Not(HasSubstr("Invariance certificate")));
}

TEST(Report, SurvivesHistogramsThatCannotBeDrawn) {
  StudyRecord record = ExampleStudy({.rounds = 1});
  record.sites[0].raw = {.low = 5, .high = 5, .counts = {1, 2}};
  record.sites[1].raw = {.low = 0, .high = 1e308, .counts = {1}};
  record.sites[2].raw = {.low = std::numeric_limits<double>::quiet_NaN(), .high = 1, .counts = {1}};
  record.sites[3].raw = {.low = 0, .high = 1, .counts = {-3, 4}};

  ASSERT_OK_AND_ASSIGN(const RenderedReport report, RenderReport(record));

  EXPECT_THAT(report.html, HasSubstr("After harmonisation"));
  EXPECT_THAT(report.html, Not(HasSubstr("As stored")));
  EXPECT_TRUE(json::parse(report.json)["histograms"][2]["raw"]["low"].is_null());
}

TEST(Report, SaysWhatAveragingDoesToBatchNormalisation) {
  StudyRecord record = ExampleStudy({.rounds = 1});
  EXPECT_THAT(RenderReport(record)->html, Not(HasSubstr("Batch normalisation")));

  record.study.network.norm = NetworkPlan::Norm::kBatch;
  EXPECT_THAT(RenderReport(record)->html, HasSubstr("is not the variance of all their data"));
}

TEST(Report, OfTheSameRecordHasTheSameBytes) {
  const StudyRecord record = ExampleStudy({});

  EXPECT_EQ(RenderReport(record)->html, RenderReport(record)->html);
  EXPECT_EQ(RenderReport(record)->json, RenderReport(record)->json);
}

}  // namespace
}  // namespace isoscan
