#include "client/site_certificate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <utility>

#include "common/status/status_macros.h"

namespace isoscan {
namespace {

/// Up to `limit` of the held-out cases, evenly spread.
std::vector<std::size_t> ChooseCases(const SiteCases& cases, std::int64_t limit) {
  std::vector<std::size_t> held_out;
  for (std::size_t i = 0; i < cases.files.size(); ++i) {
    if (cases.held_out[i]) held_out.push_back(i);
  }
  const auto wanted = static_cast<std::size_t>(limit);
  if (limit <= 0 || wanted >= held_out.size()) return held_out;
  std::vector<std::size_t> chosen;
  for (std::size_t k = 0; k < wanted; ++k) chosen.push_back(held_out[k * held_out.size() / wanted]);
  return chosen;
}

}  // namespace

absl::StatusOr<SiteFindings> CertifyHeldOut(const SiteCases& cases, const Study& study,
                                            std::int64_t limit, const ModelScores& score,
                                            const std::stop_token& stop,
                                            const CaseObserver& observe) {
  const std::vector<std::size_t> chosen = ChooseCases(cases, limit);
  const std::int64_t per_case = PredictionsPerCase();
  const std::int64_t total = per_case * static_cast<std::int64_t>(chosen.size());
  SiteFindings site;
  for (std::size_t k = 0; k < chosen.size(); ++k) {
    const CaseFiles& files = cases.files[chosen[k]];
    const std::int64_t before = per_case * static_cast<std::int64_t>(k);
    const auto certify = [&]() -> absl::StatusOr<CaseFindings> {
      ASSIGN_OR_RETURN(const LoadedCase loaded, LoadCase(files, study));
      return CertifyCase(loaded, files, study, static_cast<std::int64_t>(k), score, stop,
                         [&](std::int64_t done) { observe(before + done, total); });
    };
    absl::StatusOr<CaseFindings> findings = certify();
    if (findings.ok()) {
      site.cases.push_back(*std::move(findings));
    } else if (absl::IsCancelled(findings.status()) ||
               absl::IsResourceExhausted(findings.status()) ||
               absl::IsDeadlineExceeded(findings.status()) || absl::IsInternal(findings.status())) {
      return findings.status();
    } else {
      site.refused.push_back({.index = static_cast<std::int64_t>(chosen[k]),
                              .cohort = files.cohort,
                              .name = files.name,
                              .held_out = true,
                              .reason = std::string(findings.status().message())});
    }
  }
  if (!site.cases.empty()) return site;
  return absl::DataLossError(fmt::format(
      "none of {} cases can be used, the first because {}; `isoscan-client inspect` lists "
      "them all",
      chosen.size(), site.refused.empty() ? "there is none" : site.refused.front().reason));
}

std::optional<InvarianceCertificate> SendableCertificate(const InvarianceCertificate& certificate) {
  if (certificate.cases < kFewestCertifiedCases) return std::nullopt;
  InvarianceCertificate sent = certificate;
  for (DegradationCurve& curve : sent.curves) {
    std::erase_if(curve.points, [](const DegradationPoint& point) {
      return point.cases < kFewestCertifiedCases;
    });
    for (DegradationPoint& point : curve.points) {
      // Cases without any of the labels have no Dice: the mean may be over fewer than `cases`.
      if (point.scored < kFewestCertifiedCases) {
        point.dice = std::numeric_limits<double>::quiet_NaN();
      }
    }
  }
  return sent;
}

}  // namespace isoscan
