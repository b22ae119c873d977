#pragma once

#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "absl/status/statusor.h"

#include "client/simulation/signal_equations.h"
#include "client/simulation/tissue.h"

namespace isoscan {

/// A sequence with its timing on a magnet: what decides contrast, and what no scale and bias can
/// take away.
struct Protocol {
  std::string_view letter;  ///< "E", as in the table of docs/simulation.md.
  std::string_view name;    ///< "3T-mprage".
  FieldStrength field = FieldStrength::kTesla1_5;
  std::variant<Spgr, Mprage, Flair, TurboSpinEcho> sequence;
};

/// A to J, in this order.
std::span<const Protocol> Protocols();

/// By letter or name. Errors: INVALID_ARGUMENT listing the names.
absl::StatusOr<Protocol> FindProtocol(std::string_view name);

/// As Signal() of the sequence.
double Signal(const TissueParameters& tissue, const Protocol& protocol, double transmit = 1);

/// The suffix that BIDS gives the contrast: "T1w", "T2w" or "FLAIR".
std::string ContrastOf(const Protocol& protocol);

/// The tissue that noise is a fraction of: the brightest that a reader looks at, as in BrainWeb.
/// White matter, and CSF for T2w.
Tissue NoiseReference(const Protocol& protocol);

/// The members of a BIDS sidecar, without braces; times in seconds, angles in degrees, tesla.
/// Source: docs/references.md#bids, "Magnetic Resonance Imaging".
std::string SidecarMembers(const Protocol& protocol);

/// How far the best affine map of one protocol's signals of CSF, grey and white matter onto
/// another's is off, in standard deviations of the latter, tissues weighted by their volume in a
/// head (0.17, 0.47, 0.36): 0 is what instance normalisation can remove.
double AffineResidual(const Protocol& from, const Protocol& onto);

}  // namespace isoscan
