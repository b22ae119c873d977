#include "client/certification/certification.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>

#include "tests/support/status_matchers.h"
#include "tests/unit/client/certification/scan_phantom.h"

namespace isoscan {
namespace {

using ::testing::Each;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::SizeIs;

Study TwoLabels() {
  Study study;
  study.name = "boxes";
  study.channels = {"T1w"};
  study.labels = {"box", "half"};
  return study;
}

CaseFiles Files() {
  CaseFiles files;
  files.name = "case";
  return files;
}

/// A "network" that sorts voxels by their intensity: what it says depends on the input alone.
absl::StatusOr<std::vector<float>> ThresholdScores(const PreparedCase& prepared) {
  std::vector<float> scores(3 * prepared.image.size());
  for (std::size_t i = 0; i < prepared.image.size(); ++i) {
    const float value = prepared.image[i];
    scores[i] = 0.2F - value;
    scores[prepared.image.size() + i] = value;
    scores[2 * prepared.image.size() + i] = 2 * value - 1.2F;
  }
  return scores;
}

absl::StatusOr<CaseFindings> Certified(const Study& study, const LoadedCase& loaded,
                                       const ModelScores& score = ThresholdScores) {
  return CertifyCase(loaded, Files(), study, 0, score, {}, [](std::int64_t) {});
}

TEST(Certification, HoldsForAnInputThatIsNormalised) {
  ASSERT_OK_AND_ASSIGN(const CaseFindings findings, Certified(TwoLabels(), BoxCase()));
  const InvarianceCertificate certificate = Summarize({findings});

  EXPECT_THAT(findings.affine, SizeIs(25));
  EXPECT_TRUE(certificate.holds()) << certificate.largest_logit_change;
  EXPECT_GT(certificate.largest_logit_change, 0);  // rounding was looked at
  EXPECT_EQ(certificate.voxels_changed, 0);
  EXPECT_EQ(certificate.voxels_compared, 25 * 16 * 14 * 9);
}

TEST(Certification, DoesNotHoldForRawIntensitiesAndSaysWhere) {
  Study study = TwoLabels();
  study.harmonization.normalize = HarmonizationPlan::Normalizer::kNone;

  ASSERT_OK_AND_ASSIGN(const CaseFindings findings, Certified(study, BoxCase()));
  const InvarianceCertificate certificate = Summarize({findings});

  EXPECT_FALSE(certificate.holds());
  EXPECT_EQ(certificate.scale, 1e5);
  EXPECT_EQ(std::abs(certificate.bias), 100);
  EXPECT_GT(certificate.voxels_changed, 0);
}

TEST(Certification, CountsANumberThatIsNoneAsTheGreatestChange) {
  int calls = 0;
  const auto breaks = [&calls](const PreparedCase& prepared) {
    absl::StatusOr<std::vector<float>> scores = ThresholdScores(prepared);
    if (++calls == 4) (*scores)[7] = std::numeric_limits<float>::quiet_NaN();
    return scores;
  };

  ASSERT_OK_AND_ASSIGN(const CaseFindings findings, Certified(TwoLabels(), BoxCase(), breaks));

  EXPECT_EQ(Summarize({findings}).largest_logit_change, std::numeric_limits<double>::infinity());
  EXPECT_FALSE(Summarize({findings}).holds());
}

TEST(Certification, LeavesTheNeutralPointsWhereTheModelIs) {
  ASSERT_OK_AND_ASSIGN(const CaseFindings findings, Certified(TwoLabels(), BoxCase()));

  double dice = 0;
  for (const PerturbedFinding& finding : findings.perturbed) {
    if (finding.amount != FactsOf(finding.perturbation).neutral) continue;
    EXPECT_EQ(finding.flipped, 0);
    if (dice == 0) dice = finding.dice;
    EXPECT_EQ(finding.dice, dice);
  }
  EXPECT_GT(dice, 0.4);
}

TEST(Certification, SeesWhatHarmonisationDoesNotRemove) {
  ASSERT_OK_AND_ASSIGN(const CaseFindings findings, Certified(TwoLabels(), BoxCase()));

  for (const PerturbedFinding& finding : findings.perturbed) {
    const PerturbationFacts& facts = FactsOf(finding.perturbation);
    if (finding.amount == facts.neutral) continue;
    EXPECT_GT(finding.flipped, 0) << facts.word << " " << finding.amount;
    EXPECT_LE(finding.flipped, 1) << facts.word << " " << finding.amount;
  }
  // The mirrored contrast turns bright into dark: nothing of the box is found.
  EXPECT_GT(findings.perturbed[findings.perturbed.size() - 2].flipped, 0.9);
}

TEST(Certification, GivesTheSameNumbersAgainAndOtherNoiseToAnotherCase) {
  const auto certify = [](std::int64_t index) {
    return *CertifyCase(BoxCase(), Files(), TwoLabels(), index, ThresholdScores, {},
                        [](std::int64_t) {});
  };
  const InvarianceCertificate first = Summarize({certify(0)});
  const InvarianceCertificate again = Summarize({certify(0)});
  const InvarianceCertificate other = Summarize({certify(1)});

  const auto noise = static_cast<std::size_t>(Perturbation::kRicianNoise);
  const auto gamma = static_cast<std::size_t>(Perturbation::kGamma);
  EXPECT_EQ(first.curves[noise].points.back().flipped, again.curves[noise].points.back().flipped);
  EXPECT_NE(first.curves[noise].points.back().flipped, other.curves[noise].points.back().flipped);
  EXPECT_EQ(first.curves[gamma].points.back().flipped, other.curves[gamma].points.back().flipped);
}

TEST(Certification, CountsItsPredictionsAndStopsBetweenThem) {
  std::int64_t calls = 0;
  std::int64_t last = 0;
  const auto count = [&calls](const PreparedCase& prepared) {
    ++calls;
    return ThresholdScores(prepared);
  };
  ASSERT_OK(CertifyCase(BoxCase(), Files(), TwoLabels(), 0, count, {},
                        [&last](std::int64_t done) { last = done; }));
  EXPECT_EQ(calls, PredictionsPerCase());
  EXPECT_EQ(last, PredictionsPerCase());

  std::stop_source stop;
  calls = 0;
  EXPECT_THAT(CertifyCase(BoxCase(), Files(), TwoLabels(), 0, count, stop.get_token(),
                          [&stop](std::int64_t done) {
                            if (done == 5) stop.request_stop();
                          }),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("interrupted")));
  EXPECT_EQ(calls, 6);
}

TEST(Certification, RefusesACaseThatHarmonisationRefuses) {
  LoadedCase constant = BoxCase();
  constant.channels[0].voxels.assign(constant.channels[0].voxels.size(), 7);

  EXPECT_THAT(Certified(TwoLabels(), constant),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("case")));
}

TEST(Certification, TakesMeansOfThePointsAndTheGreatestChangeOverCases) {
  ASSERT_OK_AND_ASSIGN(const CaseFindings one, Certified(TwoLabels(), BoxCase()));
  CaseFindings two = one;
  two.affine[7] = {.scale = 0.1, .bias = 0, .logit_change = 0.5, .voxels_changed = 11};
  two.perturbed[0].flipped = one.perturbed[0].flipped + 0.2;
  two.perturbed[0].dice = std::numeric_limits<double>::quiet_NaN();
  two.perturbed[1].usable = false;

  const InvarianceCertificate certificate = Summarize({one, two});

  EXPECT_EQ(certificate.cases, 2);
  EXPECT_EQ(certificate.largest_logit_change, 0.5);
  EXPECT_EQ(certificate.scale, 0.1);
  EXPECT_EQ(certificate.voxels_changed, 11);
  const std::vector<DegradationPoint>& gamma = certificate.curves[0].points;
  EXPECT_NEAR(gamma[0].flipped, one.perturbed[0].flipped + 0.1, 1e-12);
  EXPECT_EQ(gamma[0].dice, one.perturbed[0].dice);
  EXPECT_EQ(gamma[0].cases, 2);
  EXPECT_EQ(gamma[1].cases, 1);
  EXPECT_EQ(gamma[1].flipped, one.perturbed[1].flipped);
  EXPECT_THAT(OverCases({one, two}), SizeIs(25));
}

TEST(Certification, ChangesEveryChannelWithNoiseOfItsOwn) {
  Study study = TwoLabels();
  study.channels = {"T1w", "T2w"};
  LoadedCase loaded = BoxCase();
  loaded.channels.push_back(loaded.channels[0]);
  int noisy = 0;
  const auto look = [&noisy](const PreparedCase& prepared) {
    const std::size_t voxels = prepared.image.size() / 2;
    bool equal = true;
    for (std::size_t i = 0; i < voxels; ++i) {
      equal = equal && prepared.image[i] == prepared.image[voxels + i];
    }
    noisy += equal ? 0 : 1;
    std::vector<float> scores(3 * voxels);
    for (std::size_t i = 0; i < voxels; ++i) scores[i] = prepared.image[i];
    return absl::StatusOr<std::vector<float>>(std::move(scores));
  };

  ASSERT_OK(Certified(study, loaded, look));

  EXPECT_EQ(noisy, 4);  // the four levels of noise
}

}  // namespace
}  // namespace isoscan
