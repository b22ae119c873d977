#pragma once

#include "absl/status/status.h"

#include "client/cohort/cohort.h"
#include "common/planning/fingerprint.h"

namespace isoscan {

/// Adds a training case to its site's fingerprint as nnU-Net measures it
/// (docs/references.md#isensee2021), in the case's canonical grid: what is left of it once the rim
/// is cropped where every channel is 0, and the intensities, as stored, under any label in there. A
/// case that is 0 everywhere is not cropped.
/// Errors: those of Fingerprint::AddCase; the fingerprint is then as before.
absl::Status AddToFingerprint(const LoadedCase& loaded, Fingerprint& fingerprint);

}  // namespace isoscan
