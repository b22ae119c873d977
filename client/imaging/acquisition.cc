#include "client/imaging/acquisition.h"

#include <algorithm>

namespace isoscan {
namespace {

bool Has(const std::vector<std::string>& codes, std::string_view code) {
  return std::find(codes.begin(), codes.end(), code) != codes.end();
}

/// Prepared by an inversion: the inversion time says what is nulled (docs/dicom.md#contrast).
Contrast OfInversion(double inversion_ms, double repetition_ms, double echo_ms) {
  if (inversion_ms >= 1500 && repetition_ms >= 4000 && echo_ms >= 60) return Contrast::kFlair;
  if (inversion_ms >= 250 && inversion_ms < 1500 && echo_ms <= 30) return Contrast::kT1w;
  return Contrast::kUnknown;
}

Contrast OfGradientEcho(const Acquisition& acquisition, double repetition_ms, double echo_ms) {
  const bool spoiled =
      Has(acquisition.sequence_variant, "SP") || Has(acquisition.sequence_variant, "MP");
  if (Has(acquisition.sequence_variant, "SS") && !spoiled) return Contrast::kUnknown;
  const double flip_degrees = acquisition.flip_degrees.value_or(0);
  // Larger flip angles are those of single-shot series, which not every scanner calls EP.
  if (echo_ms >= 12) return flip_degrees <= 60 ? Contrast::kT2starw : Contrast::kUnknown;
  const bool slab = repetition_ms <= 50 && flip_degrees >= 5;
  const bool slices = repetition_ms > 50 && repetition_ms <= 1000 && flip_degrees >= 50;
  return echo_ms <= 10 && (slab || slices) ? Contrast::kT1w : Contrast::kUnknown;
}

Contrast OfSpinEcho(double repetition_ms, double echo_ms) {
  if (repetition_ms <= 1000 && echo_ms <= 35) return Contrast::kT1w;
  if (repetition_ms >= 1800 && echo_ms <= 45) return Contrast::kPdw;
  if (repetition_ms >= 1800 && echo_ms >= 60) return Contrast::kT2w;
  return Contrast::kUnknown;
}

}  // namespace

Contrast GuessContrast(const Acquisition& acquisition) {
  if (acquisition.component != ImageComponent::kMagnitude || Has(acquisition.sequence, "EP") ||
      !acquisition.repetition_ms.has_value() || !acquisition.echo_ms.has_value()) {
    return Contrast::kUnknown;
  }
  const double repetition_ms = *acquisition.repetition_ms;
  const double echo_ms = *acquisition.echo_ms;
  if (acquisition.inversion_ms.value_or(0) > 0) {
    return OfInversion(*acquisition.inversion_ms, repetition_ms, echo_ms);
  }
  if (Has(acquisition.sequence, "GR")) return OfGradientEcho(acquisition, repetition_ms, echo_ms);
  const Contrast spin_echo = OfSpinEcho(repetition_ms, echo_ms);
  if (Has(acquisition.sequence, "SE") || spin_echo == Contrast::kT2w) return spin_echo;
  // GE often says neither (RM): where both would be T1w, it is.
  const Contrast gradient_echo = OfGradientEcho(acquisition, repetition_ms, echo_ms);
  return spin_echo == gradient_echo ? spin_echo : Contrast::kUnknown;
}

std::string_view ContrastName(Contrast contrast) {
  switch (contrast) {
    case Contrast::kT1w:
      return "T1w";
    case Contrast::kT2w:
      return "T2w";
    case Contrast::kPdw:
      return "PDw";
    case Contrast::kFlair:
      return "FLAIR";
    case Contrast::kT2starw:
      return "T2starw";
    case Contrast::kUnknown:
      break;
  }
  return "unknown";
}

}  // namespace isoscan
