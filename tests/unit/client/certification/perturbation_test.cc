#include "client/certification/perturbation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <ostream>
#include <string>

#include "tests/unit/client/certification/scan_phantom.h"

namespace isoscan {

void PrintTo(const PerturbationFacts& facts, std::ostream* out) { *out << facts.word; }

namespace {

using ::testing::Pointwise;

RandomStream Noise() { return RandomStream(1, "test"); }

double LargestDifference(const Volume& left, const Volume& right) {
  double largest = 0;
  for (std::size_t i = 0; i < left.voxels.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(left.voxels[i]) -
                                         static_cast<double>(right.voxels[i])));
  }
  return largest;
}

class EveryPerturbation : public testing::TestWithParam<PerturbationFacts> {};

TEST_P(EveryPerturbation, OfTheNeutralAmountIsTheScanItself) {
  const Volume scan = BoxCase().channels[0];

  EXPECT_EQ(Perturbed(scan, GetParam().perturbation, GetParam().neutral, Noise()).voxels,
            scan.voxels);
}

TEST_P(EveryPerturbation, KeepsTheGridAndChangesMoreByLargerAmounts) {
  const Volume scan = BoxCase().channels[0];
  double last = 0;
  for (const double amount : GetParam().amounts) {
    // Gammas below 1 come in falling order of change.
    if (amount == GetParam().neutral || (amount > 0 && amount < GetParam().neutral)) continue;

    const Volume perturbed = Perturbed(scan, GetParam().perturbation, amount, Noise());

    EXPECT_EQ(perturbed.geometry, scan.geometry);
    ASSERT_EQ(perturbed.voxels.size(), scan.voxels.size());
    const double change = LargestDifference(perturbed, scan);
    EXPECT_GT(change, last) << amount;
    last = change;
  }
}

TEST_P(EveryPerturbation, FollowsTheScanUnderScaleAndBias) {
  const Volume scan = BoxCase().channels[0];
  for (const double amount : GetParam().amounts) {
    const Volume expected =
        Rescaled(Perturbed(scan, GetParam().perturbation, amount, Noise()), 2.5, -300);

    const Volume perturbed =
        Perturbed(Rescaled(scan, 2.5, -300), GetParam().perturbation, amount, Noise());

    EXPECT_LT(LargestDifference(perturbed, expected), 1e-3) << amount;  // of a range of 500
  }
}

INSTANTIATE_TEST_SUITE_P(All, EveryPerturbation,
                         testing::ValuesIn(PerturbationTable().begin(), PerturbationTable().end()),
                         [](const auto& test) { return std::string(test.param.word); });

/// 5 x 3 x 9 voxels, x from 100 to 140, the same in every row.
Volume Ramp(const std::array<double, 3>& spacing_mm = {1, 1, 1}) {
  Volume ramp{.geometry = {.size = {5, 3, 9}, .spacing_mm = spacing_mm}, .voxels = {}};
  for (std::int64_t i = 0; i < ramp.geometry.voxels(); ++i) {
    ramp.voxels.push_back(static_cast<float>(100 + 10 * (i % 5)));
  }
  return ramp;
}

TEST(Perturbation, GammaIsAPowerOverTheScansOwnRange) {
  const Volume bent = Perturbed(Ramp(), Perturbation::kGamma, 2, Noise());

  for (std::size_t i = 0; i < 5; ++i) {
    const auto share = static_cast<double>(i) / 4;
    EXPECT_NEAR(bent.voxels[i], 100 + 40 * share * share, 1e-4);
  }
}

TEST(Perturbation, LinearFieldRunsFromOneCornerToTheOpposite) {
  Volume flat = Ramp();
  flat.voxels.assign(flat.voxels.size(), 50);
  flat.voxels[22] = 0;  // air

  const Volume tilted = Perturbed(flat, Perturbation::kLinearField, 0.4, Noise());

  EXPECT_NEAR(tilted.voxels.front(), 50 * 0.6, 1e-4);
  EXPECT_NEAR(tilted.voxels.back(), 50 * 1.4, 1e-4);
  EXPECT_EQ(tilted.voxels[22], 0);
  const std::size_t middle = 2 + 5 * (1 + 3 * 4);
  EXPECT_NEAR(tilted.voxels[middle], 50, 1e-4);
}

TEST(Perturbation, QuadraticFieldIsStrongestInTheMiddleAndWeakestInTheCorners) {
  Volume flat = Ramp();
  flat.voxels.assign(flat.voxels.size(), 50);
  flat.voxels[22] = 0;

  const Volume domed = Perturbed(flat, Perturbation::kQuadraticField, 0.4, Noise());

  EXPECT_NEAR(domed.voxels[2 + 5 * (1 + 3 * 4)], 50 * 1.4, 1e-4);
  EXPECT_NEAR(domed.voxels.front(), 50 * 0.6, 1e-4);
  EXPECT_NEAR(domed.voxels.back(), 50 * 0.6, 1e-4);
}

TEST(Perturbation, NoiseInTheAirHasTheRayleighMean) {
  // 90 % air, 10 % tissue of 200: the 95th percentile, the reference, is 200.
  Volume head{.geometry = {.size = {50, 50, 40}}, .voxels = {}};
  for (int i = 0; i < 100'000; ++i) head.voxels.push_back(i % 10 == 0 ? 200.0F : 0.0F);

  const Volume noisy = Perturbed(head, Perturbation::kRicianNoise, 0.05, Noise());

  double air = 0;
  double tissue = 0;
  double square = 0;
  for (std::size_t i = 0; i < noisy.voxels.size(); ++i) {
    const double value = noisy.voxels[i];
    if (i % 10 != 0) {
      air += value / 90'000;
    } else {
      tissue += value / 10'000;
      square += value * value / 10'000;
    }
  }
  const double sd = 0.05 * 200;
  EXPECT_NEAR(air, sd * std::sqrt(std::acos(-1.0) / 2), 0.1);
  EXPECT_NEAR(std::sqrt(square - tissue * tissue), sd, 0.3);
}

TEST(Perturbation, ThickSlicesAreMeansAcrossTheWidestSpacing) {
  Volume scan = Ramp({1, 1, 3});
  for (std::size_t i = 0; i < scan.voxels.size(); ++i) {
    scan.voxels[i] = static_cast<float>(i / 15 == 4 ? 90 : 0);  // one bright slice of nine
  }

  const Volume thick = Perturbed(scan, Perturbation::kSliceThickness, 3, Noise());

  // Slices 3, 4, 5 become one of 90 / 3, whose middle is slice 4.
  EXPECT_NEAR(thick.voxels[4 * 15], 30, 1e-4);
  EXPECT_NEAR(thick.voxels[3 * 15], 20, 1e-4);
  EXPECT_NEAR(thick.voxels[1 * 15], 0, 1e-4);
  EXPECT_THAT(Perturbed(Ramp({1, 1, 3}), Perturbation::kSliceThickness, 4, Noise()).voxels,
              Pointwise(testing::FloatNear(1e-4F), Ramp().voxels));
}

TEST(Perturbation, ThickSlicesBlurAnotherAxisWhereThatIsTheWidest) {
  const Volume wide_x = Ramp({4, 1, 1});

  const Volume thick = Perturbed(wide_x, Perturbation::kSliceThickness, 2, Noise());

  EXPECT_GT(LargestDifference(thick, wide_x), 1);
}

TEST(Perturbation, NegativeScaleMirrorsTheRange) {
  const Volume mirrored = Perturbed(Ramp(), Perturbation::kNegativeScale, -1, Noise());

  EXPECT_EQ(mirrored.voxels[0], 140);
  EXPECT_EQ(mirrored.voxels[4], 100);
}

TEST(Perturbation, HasOneNameInFiles) {
  for (const PerturbationFacts& facts : PerturbationTable()) {
    EXPECT_EQ(FactsOf(facts.perturbation).word, facts.word);
    EXPECT_EQ(PerturbationOf(facts.word), facts.perturbation);
    EXPECT_TRUE(std::is_sorted(facts.amounts.begin(), facts.amounts.end()));
    EXPECT_NE(std::find(facts.amounts.begin(), facts.amounts.end(), facts.neutral),
              facts.amounts.end());
  }
  EXPECT_EQ(PerturbationOf("motion"), std::nullopt);
}

}  // namespace
}  // namespace isoscan
