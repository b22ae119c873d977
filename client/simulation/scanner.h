#pragma once

#include <string>

#include "absl/status/statusor.h"

#include "client/imaging/volume.h"
#include "common/random/philox.h"

namespace isoscan {

/// How one hospital's scanner shows the same anatomy: x' = scale * S + bias, where S is the anatomy
/// under a contrast curve, a smooth field and noise. Scale and bias are what instance normalisation
/// removes exactly; the rest it does not.
struct Scanner {
  std::string name;
  double scale = 1;
  double bias = 0;   ///< In units of the result, on every voxel.
  double gamma = 1;  ///< Exponent of the contrast curve over the volume's own range.
  double noise = 0;  ///< Rician noise, standard deviation as a fraction of the range.
  double field = 0;  ///< Amplitude of a smooth multiplicative field: 0.2 is 0.8 to 1.2.
};

/// "north:scale=2.5,bias=300,gamma=1.2,noise=0.03,field=0.1"; every part but the name is optional.
/// Errors: INVALID_ARGUMENT naming the part that is wrong.
absl::StatusOr<Scanner> ParseScanner(const std::string& text);

/// The volume as this scanner would have stored it.
Volume Scan(const Volume& anatomy, const Scanner& scanner, RandomStream random);

}  // namespace isoscan
