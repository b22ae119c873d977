#include "client/simulation/signal_equations.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace isoscan {
namespace {

constexpr TissueParameters kTissue{
    .t1_ms = 900, .t2_ms = 85, .t2_star_ms = 50, .proton_density = 0.8};

double Degrees(double angle) { return angle * std::numbers::pi / 180; }

TEST(Spgr, IsGreatestAtTheErnstAngle) {
  constexpr double kTr = 20;
  const double e1 = std::exp(-kTr / kTissue.t1_ms);
  const double ernst = std::acos(e1) * 180 / std::numbers::pi;
  const auto at = [&](double flip) {
    return Signal(kTissue, Spgr{.tr_ms = kTr, .te_ms = 5, .flip_degrees = flip});
  };

  EXPECT_GT(at(ernst), at(ernst - 0.1));
  EXPECT_GT(at(ernst), at(ernst + 0.1));
  // The closed form of the maximum.
  EXPECT_NEAR(at(ernst), 0.8 * std::sqrt((1 - e1) / (1 + e1)) * std::exp(-5.0 / 50), 1e-12);
}

TEST(Spgr, IsTheSteadyStateOfManyPulses) {
  const Spgr sequence{.tr_ms = 18, .te_ms = 10, .flip_degrees = 30};
  double longitudinal = 1;
  for (int pulse = 0; pulse < 10'000; ++pulse) {
    const double e1 = std::exp(-sequence.tr_ms / kTissue.t1_ms);
    longitudinal = longitudinal * std::cos(Degrees(30)) * e1 + 1 - e1;
  }

  EXPECT_NEAR(Signal(kTissue, sequence),
              0.8 * longitudinal * std::sin(Degrees(30)) * std::exp(-10.0 / 50), 1e-12);
}

/// The magnetisation pulse by pulse through many inversions.
double MprageByHand(const Mprage& sequence, double transmit) {
  const double flip = Degrees(transmit * sequence.flip_degrees);
  double longitudinal = 1;
  double signal = 0;
  const auto wait = [&](double time_ms) {
    const double left = std::exp(-time_ms / kTissue.t1_ms);
    longitudinal = longitudinal * left + 1 - left;
  };
  for (int inversion = 0; inversion < 60; ++inversion) {
    const double gap = sequence.ti_ms - sequence.readouts * sequence.readout_ms / 2;
    longitudinal = -longitudinal;
    wait(gap);
    for (int readout = 0; readout < sequence.readouts; ++readout) {
      if (readout == sequence.readouts / 2) {
        signal = kTissue.proton_density * std::abs(longitudinal) * std::sin(flip) *
                 std::exp(-sequence.te_ms / kTissue.t2_star_ms);
      }
      longitudinal *= std::cos(flip);
      wait(sequence.readout_ms);
    }
    wait(sequence.tr_ms - gap - sequence.readouts * sequence.readout_ms);
  }
  return signal;
}

TEST(Mprage, IsTheFixedPointOfManyInversions) {
  const Mprage even{.ti_ms = 900,
                    .tr_ms = 2300,
                    .te_ms = 3,
                    .flip_degrees = 9,
                    .readout_ms = 6.8,
                    .readouts = 160};
  Mprage odd = even;
  odd.readouts = 131;

  for (const Mprage& sequence : {even, odd}) {
    for (const double transmit : {0.8, 1.0, 1.2}) {
      EXPECT_NEAR(Signal(kTissue, sequence, transmit), MprageByHand(sequence, transmit), 1e-12);
    }
  }
}

TEST(Mprage, WithSmallFlipAnglesIsAnInversionRecovery) {
  const Mprage sequence{.ti_ms = 1000,
                        .tr_ms = 2500,
                        .te_ms = 3,
                        .flip_degrees = 1e-3,
                        .readout_ms = 7,
                        .readouts = 100};

  const double longitudinal = 1 - 2 * std::exp(-1000.0 / 900) / (1 + std::exp(-2500.0 / 900));
  EXPECT_NEAR(Signal(kTissue, sequence) / std::sin(Degrees(1e-3)),
              0.8 * std::abs(longitudinal) * std::exp(-3.0 / 50), 1e-6);
}

TEST(Flair, HasNoSignalOfTheTissueThatTiNulls) {
  constexpr double kTr = 9000;
  // 1 - 2 exp(-TI/T1) + exp(-TR/T1) = 0 solved for TI.
  const double nulling = kTissue.t1_ms * std::log(2 / (1 + std::exp(-kTr / kTissue.t1_ms)));

  EXPECT_NEAR(Signal(kTissue, Flair{.tr_ms = kTr, .te_ms = 90, .ti_ms = nulling}), 0, 1e-12);
  EXPECT_GT(Signal(kTissue, Flair{.tr_ms = kTr, .te_ms = 90, .ti_ms = nulling * 1.5}), 0.01);
}

TEST(Flair, WithALongInversionTimeIsATurboSpinEcho) {
  EXPECT_NEAR(Signal(kTissue, Flair{.tr_ms = 1e6, .te_ms = 90, .ti_ms = 5e5}),
              Signal(kTissue, TurboSpinEcho{.tr_ms = 1e6, .te_ms = 90}), 1e-12);
}

TEST(TurboSpinEcho, HasItsLimits) {
  // All has recovered and nothing has decayed: proton density. Nothing has recovered: no signal.
  EXPECT_NEAR(Signal(kTissue, TurboSpinEcho{.tr_ms = 1e6, .te_ms = 0}), 0.8, 1e-12);
  EXPECT_NEAR(Signal(kTissue, TurboSpinEcho{.tr_ms = 0, .te_ms = 0}), 0, 1e-12);
  // One T2 later it is 1/e.
  EXPECT_NEAR(Signal(kTissue, TurboSpinEcho{.tr_ms = 1e6, .te_ms = 85}), 0.8 / std::numbers::e,
              1e-12);
}

TEST(TransmitField, ActsOnEveryPulse) {
  EXPECT_NEAR(Signal(kTissue, Spgr{.tr_ms = 18, .te_ms = 10, .flip_degrees = 20}, 1.5),
              Signal(kTissue, Spgr{.tr_ms = 18, .te_ms = 10, .flip_degrees = 30}), 1e-12);
  const TurboSpinEcho echo{.tr_ms = 3000, .te_ms = 100};
  // Two thirds of 90 degrees: sin^3(60 degrees).
  EXPECT_NEAR(Signal(kTissue, echo, 2.0 / 3) / Signal(kTissue, echo), 3 * std::sqrt(3.0) / 8,
              1e-12);
}

}  // namespace
}  // namespace isoscan
