#pragma once

#include "client/simulation/tissue.h"

namespace isoscan {

// The four sequences by what their signal depends on. Times in milliseconds, angles in degrees.

/// Spoiled gradient echo.
struct Spgr {
  double tr_ms = 0;
  double te_ms = 0;
  double flip_degrees = 0;
};

/// Magnetisation-prepared rapid gradient echo. Requires ti - readout * readouts / 2 >= 0 and the
/// readouts to end before tr.
struct Mprage {
  double ti_ms = 0;  ///< From the inversion to the middle readout, where k-space has its centre.
  double tr_ms = 0;  ///< From one inversion to the next.
  double te_ms = 0;
  double flip_degrees = 0;
  double readout_ms = 0;  ///< From one readout to the next.
  int readouts = 0;       ///< Per inversion.
};

/// Turbo spin echo after an inversion that leaves no signal of CSF.
struct Flair {
  double tr_ms = 0;
  double te_ms = 0;  ///< The effective one.
  double ti_ms = 0;
};

/// Turbo spin echo, TE much shorter than TR.
struct TurboSpinEcho {
  double tr_ms = 0;
  double te_ms = 0;  ///< The effective one.
};

// Magnitude of a tissue's signal in the steady state, as a fraction of what water at rest gives to
// a 90 degree pulse. `transmit` is the local field of the pulses over the nominal one (B1+, above
// 0): it multiplies every flip angle, but not the inversions, which are adiabatic. Of a spin echo
// it leaves sin^3(90 degrees * transmit), excitation times refocusing. Pure functions.

/// Source: docs/references.md#ernst1966.
double Signal(const TissueParameters& tissue, const Spgr& sequence, double transmit = 1);

/// The exact periodic steady state: inversion, gap, readouts and recovery each map the longitudinal
/// magnetisation m to a m + b; the signal is the fixed point of their product, seen at the middle
/// readout. Source: docs/references.md#deichmann2000.
double Signal(const TissueParameters& tissue, const Mprage& sequence, double transmit = 1);

/// Source: docs/references.md#hajnal1992; the transmit field's part #insko1993.
double Signal(const TissueParameters& tissue, const Flair& sequence, double transmit = 1);
double Signal(const TissueParameters& tissue, const TurboSpinEcho& sequence, double transmit = 1);

}  // namespace isoscan
