#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <array>
#include <cstddef>
#include <iterator>
#include <limits>
#include <regex>
#include <string>
#include <vector>

#include "client/certification/certificate_json.h"
#include "client/certification/certificate_picture.h"

namespace isoscan {
namespace {

using nlohmann::json;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

InvarianceCertificate Example() {
  InvarianceCertificate certificate{.cases = 5,
                                    .largest_logit_change = 3e-6,
                                    .scale = 10,
                                    .bias = -100,
                                    .voxels_changed = 2,
                                    .voxels_compared = 1000};
  for (const PerturbationFacts& facts : PerturbationTable()) {
    DegradationCurve& curve = certificate.curves.emplace_back();
    curve.perturbation = facts.perturbation;
    for (const double amount : facts.amounts) {
      curve.points.push_back({.amount = amount, .cases = 5, .flipped = 0.125, .dice = 0.75});
    }
  }
  return certificate;
}

TEST(CertificateJson, HoldsTheSubjectTheVerdictEveryMapAndEveryPoint) {
  InvarianceCertificate certificate = Example();
  certificate.curves.resize(1);
  certificate.curves[0].points.resize(1);

  const json twin = json::parse(CertificateJson(
      {.study = "boxes",
       .study_digest = "def",
       .model_digest = "abc",
       .software_version = "1.2",
       .device = "CPU",
       .refused_cases = 1},
      certificate, {{.scale = 10, .bias = -100, .logit_change = 3e-6, .voxels_changed = 2}}));

  EXPECT_EQ(twin, json::parse(R"({
    "certificate_version": 1, "study": "boxes", "study_digest": "def", "model_digest": "abc",
    "software_version": "1.2", "device": "CPU", "cases": 5, "refused_cases": 1,
    "invariance": {"holds": true, "limit": 1e-4, "largest_logit_change": 3e-6, "scale": 10.0,
                   "bias": -100.0, "voxels_changed": 2, "voxels_compared": 1000,
                   "maps": [{"scale": 10.0, "bias": -100.0, "logit_change": 3e-6,
                             "voxels_changed": 2}]},
    "curves": [{"perturbation": "gamma", "neutral": 1.0,
                "points": [{"amount": 0.5, "cases": 5, "flipped": 0.125, "dice": 0.75}]}]})"));
}

TEST(CertificateJson, HasACurveForEveryPerturbation) {
  const json twin = json::parse(CertificateJson({}, Example(), {}));

  ASSERT_EQ(twin["curves"].size(), PerturbationTable().size());
  EXPECT_EQ(twin["curves"][3]["perturbation"], "rician_noise");
  EXPECT_EQ(twin["curves"][3]["points"][4]["amount"], 0.09);
}

TEST(CertificateJson, ShowsANumberThatDoesNotExistAsNull) {
  InvarianceCertificate certificate = Example();
  certificate.largest_logit_change = std::numeric_limits<double>::infinity();
  certificate.curves[0].points[0] = {.amount = 0.5};

  const json twin = json::parse(CertificateJson({}, certificate, {}));

  EXPECT_TRUE(twin["invariance"]["largest_logit_change"].is_null());
  EXPECT_EQ(twin["invariance"]["holds"], false);
  EXPECT_TRUE(twin["curves"][0]["points"][0]["dice"].is_null());
}

TEST(CertificatePicture, SaysTheVerdictAndDrawsEveryPoint) {
  const std::string svg = CertificatePicture({.study = "boxes"}, Example());

  EXPECT_THAT(svg, HasSubstr("Holds: no logit changes"));
  EXPECT_THAT(svg, HasSubstr("3.0e-06"));
  std::size_t points = 0;
  for (const PerturbationFacts& facts : PerturbationTable()) {
    EXPECT_THAT(svg, HasSubstr(std::string(facts.title)));
    points += facts.amounts.size();
  }
  std::size_t marks = 0;
  for (std::size_t at = svg.find("<title>Dice 0.750, 5 cases"); at != std::string::npos;
       at = svg.find("<title>Dice 0.750, 5 cases", at + 1)) {
    ++marks;
  }
  EXPECT_EQ(marks, points);
}

/// Centres of the marks of one class, in the order of the file.
std::vector<std::array<double, 2>> MarksOf(const std::string& svg, const std::string& css_class) {
  const std::regex mark("<circle class=\"" + css_class + "\" cx=\"([0-9.]+)\" cy=\"([0-9.]+)\"");
  std::vector<std::array<double, 2>> marks;
  for (std::sregex_iterator found(svg.begin(), svg.end(), mark), end; found != end; ++found) {
    marks.push_back({std::stod((*found)[1]), std::stod((*found)[2])});
  }
  return marks;
}

TEST(CertificatePicture, PutsAmountsInOrderAndHigherSharesHigher) {
  InvarianceCertificate certificate = Example();
  certificate.curves.resize(1);
  std::vector<DegradationPoint>& points = certificate.curves[0].points;
  for (std::size_t i = 0; i < points.size(); ++i) {
    points[i].dice = static_cast<double>(i) / static_cast<double>(points.size() - 1);
    points[i].flipped = 1 - points[i].dice;
  }

  const std::string svg = CertificatePicture({}, certificate);

  // The first of each class is the legend's.
  const std::vector<std::array<double, 2>> dice = MarksOf(svg, "dot");
  const std::vector<std::array<double, 2>> flipped = MarksOf(svg, "ring");
  ASSERT_THAT(dice, SizeIs(points.size() + 1));
  ASSERT_THAT(flipped, SizeIs(points.size() + 1));
  for (std::size_t i = 2; i < dice.size(); ++i) {
    EXPECT_GT(dice[i][0], dice[i - 1][0]);
    EXPECT_LT(dice[i][1], dice[i - 1][1]);
    EXPECT_GT(flipped[i][1], flipped[i - 1][1]);
    EXPECT_EQ(flipped[i][0], dice[i][0]);
  }
  // Gamma's axis is logarithmic: 0.5 and 2 lie as far from 1.
  EXPECT_NEAR(dice[4][0] - dice[1][0], dice[7][0] - dice[4][0], 0.15);
  // All of it lies on the sheet.
  EXPECT_GT(flipped.back()[1], 0);
  EXPECT_LT(dice.back()[0], 760);
}

TEST(CertificatePicture, DrawsALineThroughTheMarksButForTheSign) {
  const std::string svg = CertificatePicture({}, Example());

  const std::regex line("<path class=\"(dice|flipped)\" d=\"M[^M\"]+\"/>");
  EXPECT_EQ(std::distance(std::sregex_iterator(svg.begin(), svg.end(), line), {}),
            2 * static_cast<std::ptrdiff_t>(PerturbationTable().size() - 1));
}

TEST(CertificatePicture, SaysItPlainlyWhenTheInvarianceDoesNotHold) {
  InvarianceCertificate certificate = Example();
  certificate.largest_logit_change = 0.02;

  EXPECT_THAT(CertificatePicture({}, certificate), HasSubstr("Does NOT hold"));
}

TEST(CertificatePicture, LeavesAGapWhereThereIsNoNumberAndEscapesNames) {
  InvarianceCertificate certificate = Example();
  certificate.curves[0].points[3] = {.amount = 1};

  const std::string svg = CertificatePicture({.study = "<script>&"}, certificate);

  EXPECT_THAT(svg, ContainsRegex("d=\"M[^M\"]+M[^M\"]+\"")) << "one line in two pieces";
  EXPECT_THAT(svg, Not(HasSubstr("<script>")));
  EXPECT_THAT(svg, HasSubstr("&lt;script&gt;&amp;"));
  EXPECT_THAT(svg, Not(ContainsRegex("[^a-z]nan[^a-z]")));
  EXPECT_THAT(svg, Not(ContainsRegex("https?://[^w]")));
}

}  // namespace
}  // namespace isoscan
