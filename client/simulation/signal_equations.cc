#include "client/simulation/signal_equations.h"

#include <cmath>
#include <numbers>

namespace isoscan {
namespace {

double Radians(double degrees) { return degrees * std::numbers::pi / 180; }

/// What a stretch of a sequence does to the longitudinal magnetisation: m becomes a m + b.
struct Step {
  double a = 1;
  double b = 0;
};

Step Then(const Step& first, const Step& second) {
  return {.a = second.a * first.a, .b = second.a * first.b + second.b};
}

/// `step` n times in a row, by the geometric series; step.a is below 1.
Step Repeated(const Step& step, int n) {
  const double power = std::pow(step.a, n);
  return {.a = power, .b = step.b * (1 - power) / (1 - step.a)};
}

Step Recovery(double time_ms, double t1_ms) {
  const double left = std::exp(-time_ms / t1_ms);
  return {.a = left, .b = 1 - left};
}

double SpinEcho(double te_ms, const TissueParameters& tissue, double transmit) {
  const double sine = std::sin(Radians(90) * transmit);
  return std::abs(sine * sine * sine) * std::exp(-te_ms / tissue.t2_ms);
}

}  // namespace

double Signal(const TissueParameters& tissue, const Spgr& sequence, double transmit) {
  const double flip = Radians(transmit * sequence.flip_degrees);
  const double e1 = std::exp(-sequence.tr_ms / tissue.t1_ms);
  return tissue.proton_density * std::abs(std::sin(flip)) * (1 - e1) / (1 - std::cos(flip) * e1) *
         std::exp(-sequence.te_ms / tissue.t2_star_ms);
}

double Signal(const TissueParameters& tissue, const Mprage& sequence, double transmit) {
  const double flip = Radians(transmit * sequence.flip_degrees);
  const double train_ms = sequence.readout_ms * sequence.readouts;
  const double gap_ms = sequence.ti_ms - train_ms / 2;
  const int before = sequence.readouts / 2;
  const Step pulse{.a = std::cos(flip), .b = 0};
  const Step readout = Then(pulse, Recovery(sequence.readout_ms, tissue.t1_ms));

  const Step inverted = Then({.a = -1, .b = 0}, Recovery(gap_ms, tissue.t1_ms));
  const Step to_middle = Then(inverted, Repeated(readout, before));
  const Step to_end = Then(to_middle, Repeated(readout, sequence.readouts - before));
  const Step cycle = Then(to_end, Recovery(sequence.tr_ms - gap_ms - train_ms, tissue.t1_ms));

  const double steady = cycle.b / (1 - cycle.a);
  return tissue.proton_density * std::abs(to_middle.a * steady + to_middle.b) *
         std::abs(std::sin(flip)) * std::exp(-sequence.te_ms / tissue.t2_star_ms);
}

double Signal(const TissueParameters& tissue, const Flair& sequence, double transmit) {
  const double longitudinal =
      1 - 2 * std::exp(-sequence.ti_ms / tissue.t1_ms) + std::exp(-sequence.tr_ms / tissue.t1_ms);
  return tissue.proton_density * std::abs(longitudinal) *
         SpinEcho(sequence.te_ms, tissue, transmit);
}

double Signal(const TissueParameters& tissue, const TurboSpinEcho& sequence, double transmit) {
  const double longitudinal = 1 - std::exp(-sequence.tr_ms / tissue.t1_ms);
  return tissue.proton_density * longitudinal * SpinEcho(sequence.te_ms, tissue, transmit);
}

}  // namespace isoscan
