#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "client/certification/certification.h"

namespace isoscan {

/// Which model was measured, on what, by which program.
struct CertificateSubject {
  std::string study = "";
  std::string study_digest = "";
  std::string model_digest = "";  ///< SHA-256 of the model's file.
  std::string software_version = "";
  std::string device = "";
  std::int64_t refused_cases = 0;  ///< Held-out cases that could not be read or harmonised.
};

/// The certificate as a program reads it; docs/fairness.md describes every key. A number that does
/// not exist is null. No case's name, path or own number is in it.
std::string CertificateJson(const CertificateSubject& subject,
                            const InvarianceCertificate& certificate,
                            const std::vector<AffineFinding>& maps);

}  // namespace isoscan
