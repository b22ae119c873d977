#include "common/invariance/certificate_json.h"

#include <nlohmann/json.hpp>

#include <utility>

#include "common/json/numbers.h"

namespace isoscan {

using Json = nlohmann::ordered_json;

Json InvarianceJson(const InvarianceCertificate& certificate) {
  return {{"holds", certificate.holds()},
          {"limit", kInvarianceLimit},
          {"largest_logit_change", NumberOrNull(certificate.largest_logit_change)},
          {"scale", certificate.scale},
          {"bias", certificate.bias},
          {"voxels_changed", certificate.voxels_changed},
          {"voxels_compared", certificate.voxels_compared}};
}

Json CurvesJson(const InvarianceCertificate& certificate) {
  Json curves = Json::array();
  for (const DegradationCurve& curve : certificate.curves) {
    const PerturbationFacts& facts = FactsOf(curve.perturbation);
    Json points = Json::array();
    for (const DegradationPoint& point : curve.points) {
      points.push_back({{"amount", point.amount},
                        {"cases", point.cases},
                        {"flipped", NumberOrNull(point.flipped)},
                        {"dice", NumberOrNull(point.dice)}});
    }
    curves.push_back(
        {{"perturbation", facts.word}, {"neutral", facts.neutral}, {"points", std::move(points)}});
  }
  return curves;
}

}  // namespace isoscan
