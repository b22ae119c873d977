#pragma once

#include <array>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "client/imaging/volume.h"
#include "client/simulation/anatomy.h"
#include "client/simulation/protocol.h"
#include "client/simulation/tissue.h"
#include "common/random/philox.h"

namespace isoscan {

/// How one hospital's scanner shows the same anatomy: x' = scale * S + bias, where S is what the
/// protocol, the fields, the sampling, noise and a contrast curve leave of it. Scale and bias are
/// what instance normalisation removes exactly; the rest it does not.
struct Scanner {
  std::string name;
  std::vector<Protocol> protocols = {};  ///< One per contrast; none: the head's own intensities.
  double scale = 1;
  double bias = 0;      ///< In units of the result, on every voxel.
  double gamma = 1;     ///< Exponent of the contrast curve; the brightest tissue stays.
  double noise = 0;     ///< Rician: standard deviation over the signal of the brightest tissue.
  double field = 0;     ///< Receive field, smooth: 0.2 multiplies by 0.8 to 1.2.
  double transmit = 0;  ///< Transmit field, likewise: multiplies the flip angles.
  double bits = 0;      ///< Integers that the magnitude is rounded to before scale; 0: none.
  std::array<double, 3> spacing_mm{};  ///< In the order of stored axes; 0: the cohort's.
  double thickness = 0;                ///< Of a slice, millimetres; 0: as the slices' distance.
  double psf = 0;                      ///< In-plane point spread, FWHM in millimetres.
  double oblique = 0;                  ///< Turn of the grid, degrees.
  std::string orientation = "LPS";     ///< Where the stored axes run to.
};

/// "north:protocol=3T-mprage+3T-flair,scale=2.5,bias=300,noise=0.03,spacing=1x1x4"; every part but
/// the name is optional. A scanner with a protocol stores 12 bits unless told otherwise.
/// Errors: INVALID_ARGUMENT naming the part that is wrong.
absl::StatusOr<Scanner> ParseScanner(const std::string& text);

/// A volume that exists as this scanner would have stored it: contrast curve, receive field, noise,
/// bits, scale and bias over the volume's own range. Nothing else can be changed afterwards.
Volume Rescan(const Volume& volume, const Scanner& scanner, RandomStream random);

/// A person (MakePatient, with tissue) under a protocol, in this order: signal equations with the
/// transmit field, linear mix of the tissues in a voxel, receive field, Rician noise, contrast
/// curve, bits, scale and bias. S is in units of which white matter of textbook values has 100.
///
/// OpenMP over slices; the same for any number of threads.
/// Source: docs/references.md#kwan1999 for mixing signals; #gudbjartsson1995 for noise.
Volume Scan(const Anatomy& patient, const TissueTable& tissues, const Protocol& protocol,
            const Scanner& scanner, RandomStream random);

}  // namespace isoscan
