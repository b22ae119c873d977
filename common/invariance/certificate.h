#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace isoscan {

/// What a scanner may do to a scan beyond a positive scale and a bias: what instance normalisation
/// does not remove. How each is done to a volume: client/certification/perturbation.h.
enum class Perturbation {
  kGamma,           ///< Amount: the exponent.
  kLinearField,     ///< Amount: amplitude a of a field from 1 - a to 1 + a.
  kQuadraticField,  ///< Likewise.
  kRicianNoise,     ///< Amount: standard deviation, as a fraction of the reference signal.
  kSliceThickness,  ///< Amount: by how much thicker the slices are.
  kNegativeScale,   ///< Amount: -1.
};

/// How a perturbation is named and measured; the same at every site, so that curves lie on one
/// axis.
struct PerturbationFacts {
  Perturbation perturbation;
  std::string_view word;            ///< In files and messages: "linear_field".
  std::string_view title;           ///< For people: "Linear bias field".
  std::string_view unit;            ///< Of the axis.
  double neutral;                   ///< The amount that changes nothing.
  std::span<const double> amounts;  ///< Ascending, the neutral one among them.
  bool percent = false;             ///< Amounts are shown in per cent.
  bool logarithmic = false;         ///< The axis is.

  /// Where an amount lies on its axis.
  double Place(double amount) const;
  /// An amount as its axis is labelled: "0.5", "30" (of per cent).
  std::string Label(double amount) const;
};

/// All of them, in the order of the enumeration.
std::span<const PerturbationFacts> PerturbationTable();
const PerturbationFacts& FactsOf(Perturbation perturbation);
/// nullopt: no perturbation has this name.
std::optional<Perturbation> PerturbationOf(std::string_view word);

/// Means over a site's held-out cases; NaN where no case has the number.
struct DegradationPoint {
  double amount = 0;
  std::int64_t cases = 0;  ///< Fewer than the certificate's where harmonisation refused a scan.
  /// Of the voxels that are labelled or predicted, before or after: how many are labelled
  /// otherwise.
  double flipped = std::numeric_limits<double>::quiet_NaN();
  /// Against the reference: mean over cases of the mean over labels (docs/fairness.md).
  double dice = std::numeric_limits<double>::quiet_NaN();
  std::int64_t scored = 0;  ///< Of `cases`, those that have a Dice; the site alone knows.
};

struct DegradationCurve {
  Perturbation perturbation = Perturbation::kGamma;
  std::vector<DegradationPoint> points;  ///< By amount.
};

/// The maps x' = scale * x + bias that a positive scale and a bias are tried by: each scale with
/// each bias, which is in scaled standard deviations (population, all voxels) of a scan.
inline constexpr std::array<double, 5> kCertifiedScales{1e-5, 0.1, 1, 10, 1e5};
inline constexpr std::array<double, 5> kCertifiedBiases{-100, -1, 0, 1, 100};

inline constexpr std::string_view kCertifiedMapsInWords =
    "scales from 1e-5 to 1e5, biases up to 100 scaled standard deviations";

/// Above this change of a logit, in standard deviations of all logits of the case, a positive scale
/// and a bias do more than rounding does.
inline constexpr double kInvarianceLimit = 1e-4;

/// Fewer cases than this are not sent: a mean over two is nearly a case's own number.
inline constexpr std::int64_t kFewestCertifiedCases = 3;

/// How one model answers to changes of one site's own scans. No number of a single case is in it
/// but the greatest.
struct InvarianceCertificate {
  std::int64_t cases = 0;
  double largest_logit_change = 0;  ///< In spreads, over all cases and affine maps.
  double scale = 1;                 ///< Of the map x' = scale * x + bias that did it.
  double bias = 0;                  ///< In scaled standard deviations of the scan.
  std::int64_t voxels_changed = 0;  ///< Labels that any of the maps changed, over cases and maps.
  std::int64_t voxels_compared = 0;
  std::vector<DegradationCurve> curves = {};

  bool holds() const { return largest_logit_change < kInvarianceLimit; }
};

}  // namespace isoscan
