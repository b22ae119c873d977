#pragma once

#include <nlohmann/json_fwd.hpp>

#include "common/invariance/certificate.h"

namespace isoscan {

// The parts of a certificate that a site's own file and the study's report write alike;
// docs/fairness.md describes every key. A number that does not exist is null.

/// `holds`, `limit`, the greatest change and its map, voxels changed and compared.
nlohmann::ordered_json InvarianceJson(const InvarianceCertificate& certificate);

/// One entry per curve: `perturbation`, `neutral` and `points`.
nlohmann::ordered_json CurvesJson(const InvarianceCertificate& certificate);

}  // namespace isoscan
