#include "client/certification/certificate_json.h"

#include <nlohmann/json.hpp>

#include <utility>

#include "common/invariance/certificate_json.h"
#include "common/json/numbers.h"

namespace isoscan {

using Json = nlohmann::ordered_json;

std::string CertificateJson(const CertificateSubject& subject,
                            const InvarianceCertificate& certificate,
                            const std::vector<AffineFinding>& maps) {
  Json table = Json::array();
  for (const AffineFinding& map : maps) {
    table.push_back({{"scale", map.scale},
                     {"bias", map.bias},
                     {"logit_change", NumberOrNull(map.logit_change)},
                     {"voxels_changed", map.voxels_changed}});
  }
  Json json = {{"certificate_version", 1},
               {"study", subject.study},
               {"study_digest", subject.study_digest},
               {"model_digest", subject.model_digest},
               {"software_version", subject.software_version},
               {"device", subject.device},
               {"cases", certificate.cases},
               {"refused_cases", subject.refused_cases}};
  json["invariance"] = InvarianceJson(certificate);
  json["invariance"]["maps"] = std::move(table);
  json["curves"] = CurvesJson(certificate);
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace isoscan
