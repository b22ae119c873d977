#include "client/certification/certificate_json.h"

#include <nlohmann/json.hpp>

#include <cmath>
#include <utility>

namespace isoscan {
namespace {

using Json = nlohmann::ordered_json;

Json NumberOrNull(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json ToJson(const DegradationCurve& curve) {
  const PerturbationFacts& facts = FactsOf(curve.perturbation);
  Json points = Json::array();
  for (const DegradationPoint& point : curve.points) {
    points.push_back({{"amount", point.amount},
                      {"cases", point.cases},
                      {"flipped", NumberOrNull(point.flipped)},
                      {"dice", NumberOrNull(point.dice)}});
  }
  return {{"perturbation", facts.word}, {"neutral", facts.neutral}, {"points", std::move(points)}};
}

}  // namespace

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
  json["invariance"] = {{"holds", certificate.holds()},
                        {"limit", kInvarianceLimit},
                        {"largest_logit_change", NumberOrNull(certificate.largest_logit_change)},
                        {"scale", certificate.scale},
                        {"bias", certificate.bias},
                        {"voxels_changed", certificate.voxels_changed},
                        {"voxels_compared", certificate.voxels_compared},
                        {"maps", std::move(table)}};
  json["curves"] = Json::array();
  for (const DegradationCurve& curve : certificate.curves) json["curves"].push_back(ToJson(curve));
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace isoscan
