#include "common/invariance/certificate.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

namespace isoscan {
namespace {

constexpr std::array<double, 7> kGammas{0.5, 0.7, 0.85, 1, 1.2, 1.5, 2};
constexpr std::array<double, 5> kAmplitudes{0, 0.1, 0.2, 0.3, 0.4};
constexpr std::array<double, 5> kNoise{0, 0.01, 0.03, 0.05, 0.09};  // BrainWeb's levels
constexpr std::array<double, 5> kThickness{1, 1.5, 2, 3, 4};
constexpr std::array<double, 2> kSigns{-1, 1};

constexpr std::array<PerturbationFacts, 6> kTable{{
    {Perturbation::kGamma, "gamma", "Gamma", "exponent", 1, kGammas, false, true},
    {Perturbation::kLinearField, "linear_field", "Linear bias field", "amplitude, %", 0,
     kAmplitudes, true},
    {Perturbation::kQuadraticField, "quadratic_field", "Quadratic bias field", "amplitude, %", 0,
     kAmplitudes, true},
    {Perturbation::kRicianNoise, "rician_noise", "Rician noise", "% of bright tissue", 0, kNoise,
     true},
    {Perturbation::kSliceThickness, "slice_thickness", "Thicker slices", "times as thick", 1,
     kThickness},
    {Perturbation::kNegativeScale, "negative_scale", "Negative scale", "sign of the scale", 1,
     kSigns},
}};

// As kCertifiedMapsInWords says.
static_assert(kCertifiedScales.front() == 1e-5 && kCertifiedScales.back() == 1e5);
static_assert(kCertifiedBiases.front() == -100 && kCertifiedBiases.back() == 100);

}  // namespace

double PerturbationFacts::Place(double amount) const {
  return logarithmic ? std::log(amount) : amount;
}

std::string PerturbationFacts::Label(double amount) const {
  return fmt::format("{:g}", percent ? 100 * amount : amount);
}

std::span<const PerturbationFacts> PerturbationTable() { return kTable; }

const PerturbationFacts& FactsOf(Perturbation perturbation) {
  return kTable[static_cast<std::size_t>(perturbation)];
}

std::optional<Perturbation> PerturbationOf(std::string_view word) {
  const auto found =
      std::find_if(kTable.begin(), kTable.end(),
                   [word](const PerturbationFacts& facts) { return facts.word == word; });
  if (found == kTable.end()) return std::nullopt;
  return found->perturbation;
}

}  // namespace isoscan
