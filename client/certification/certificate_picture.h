#pragma once

#include <string>

#include "client/certification/certificate_json.h"

namespace isoscan {

/// The certificate on one sheet: the verdict in a sentence, and for each perturbation Dice and
/// flipped labels by amount. A self-contained SVG without script or link, for light and dark
/// screens and for print; the two curves differ by colour, line and mark.
std::string CertificatePicture(const CertificateSubject& subject,
                               const InvarianceCertificate& certificate);

}  // namespace isoscan
