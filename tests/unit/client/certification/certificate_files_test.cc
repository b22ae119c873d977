#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <limits>
#include <string>

#include "client/certification/certificate_json.h"
#include "client/certification/certificate_picture.h"

namespace isoscan {
namespace {

using nlohmann::json;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

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

TEST(CertificateJson, HoldsTheVerdictEveryMapAndEveryPoint) {
  const json twin = json::parse(
      CertificateJson({.study = "boxes", .model_digest = "abc", .refused_cases = 1}, Example(),
                      {{.scale = 10, .bias = -100, .logit_change = 3e-6, .voxels_changed = 2}}));

  EXPECT_EQ(twin["study"], "boxes");
  EXPECT_EQ(twin["cases"], 5);
  EXPECT_EQ(twin["invariance"]["holds"], true);
  EXPECT_EQ(twin["invariance"]["largest_logit_change"], 3e-6);
  EXPECT_EQ(twin["invariance"]["maps"][0]["bias"], -100);
  ASSERT_EQ(twin["curves"].size(), PerturbationTable().size());
  EXPECT_EQ(twin["curves"][3]["perturbation"], "rician_noise");
  EXPECT_EQ(twin["curves"][3]["points"][4]["amount"], 0.09);
  EXPECT_EQ(twin["curves"][3]["points"][4]["dice"], 0.75);
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

TEST(CertificatePicture, SaysItPlainlyWhenTheInvarianceDoesNotHold) {
  InvarianceCertificate certificate = Example();
  certificate.largest_logit_change = 0.02;

  EXPECT_THAT(CertificatePicture({}, certificate), HasSubstr("Does NOT hold"));
}

TEST(CertificatePicture, LeavesAGapWhereThereIsNoNumberAndEscapesNames) {
  InvarianceCertificate certificate = Example();
  certificate.curves[0].points[3] = {.amount = 1};

  const std::string svg = CertificatePicture({.study = "<script>&"}, certificate);

  EXPECT_THAT(svg, Not(HasSubstr("<script>")));
  EXPECT_THAT(svg, HasSubstr("&lt;script&gt;&amp;"));
  EXPECT_THAT(svg, Not(ContainsRegex("[^a-z]nan[^a-z]")));
  EXPECT_THAT(svg, Not(ContainsRegex("https?://[^w]")));
}

}  // namespace
}  // namespace isoscan
