#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>

#include "client/certification/certificate_json.h"
#include "client/certification/certificate_picture.h"
#include "client/commands/commands.h"
#include "client/commands/device_trainer.h"
#include "client/commands/study_choice.h"
#include "client/site_certificate.h"
#include "common/process/progress.h"
#include "common/status/printable.h"
#include "common/status/status_macros.h"
#include "common/transfer/chunks.h"
#include "common/version.h"
#include "common/weights/sha256.h"

namespace isoscan {
namespace {

absl::StatusOr<SiteCases> CasesOf(const ClientConfig& config, const CertificateRequest& request,
                                  const Study& study) {
  if (request.folder.empty()) return ListSiteCases(config, study);
  CohortFolder cohort;
  cohort.folder = request.folder;
  SiteCases cases;
  ASSIGN_OR_RETURN(cases.files, ListCases(cohort, study));
  cases.held_out.assign(cases.files.size(), true);  // The study's rule is for who takes part.
  return cases;
}

void Print(const InvarianceCertificate& certificate) {
  fmt::print(
      "{}: over {} cases no logit changes by more than {:.2e} of the logits' spread (limit {:g})\n"
      "under {};\ngreatest at scale {:g}, bias {:g}; {} of {} compared voxels change their label\n",
      certificate.holds() ? "holds" : "DOES NOT HOLD", certificate.cases,
      certificate.largest_logit_change, kInvarianceLimit, kCertifiedMapsInWords, certificate.scale,
      certificate.bias, certificate.voxels_changed, certificate.voxels_compared);
  for (const DegradationCurve& curve : certificate.curves) {
    const PerturbationFacts& facts = FactsOf(curve.perturbation);
    std::string amounts;
    std::string dice;
    std::string flipped;
    for (const DegradationPoint& point : curve.points) {
      amounts += fmt::format("{:>8}", facts.Label(point.amount));
      dice += fmt::format("{:>8.3f}", point.dice);
      flipped += fmt::format("{:>8.3f}", point.flipped);
    }
    fmt::print("\n{:<22}{}   {}\n{:<22}{}\n{:<22}{}\n", facts.title, amounts, facts.unit, "  Dice",
               dice, "  flipped", flipped);
  }
}

}  // namespace

absl::Status Certify(const ClientConfig& config, const CertificateRequest& request,
                     std::stop_token stop) {
  ASSIGN_OR_RETURN(Study study, ChooseStudy(config, request.study));
  // bfloat16 rounds each input to three digits, which would hide what harmonisation does.
  study.training.precision = TrainingPlan::Precision::kFloat32;
  ASSIGN_OR_RETURN(const NamedTensors weights, LoadStudyModel(request.model, study));
  ASSIGN_OR_RETURN(const std::string digest, Sha256OfFile(request.model));
  ASSIGN_OR_RETURN(const SiteCases cases, CasesOf(config, request, study));
  ASSIGN_OR_RETURN(const std::unique_ptr<StudyTrainer> trainer,
                   MakeDeviceTrainer(study, config.device));

  absl::StatusOr<SiteFindings> findings;
  {
    const auto held_out = std::count(cases.held_out.begin(), cases.held_out.end(), true);
    const std::int64_t certified =
        request.cases > 0 ? std::min<std::int64_t>(request.cases, held_out) : held_out;
    Progress progress(fmt::format("certifying {} cases", certified),
                      certified * PredictionsPerCase());
    findings = CertifyHeldOut(
        cases, study, request.cases,
        [&](const PreparedCase& prepared) { return trainer->Scores(weights, prepared); }, stop,
        [&progress](std::int64_t done, std::int64_t) { progress.Advance(done); });
  }
  RETURN_IF_ERROR(findings.status());
  for (const RefusedCase& refused : findings->refused) {
    fmt::print(stderr, "refused  {}\n", Printable(refused.reason));
  }

  const InvarianceCertificate certificate = Summarize(findings->cases);
  const CertificateSubject subject{
      .study = study.name,
      .study_digest = study.digest,
      .model_digest = digest,
      .software_version = kVersion,
      .device = trainer->device_name(),
      .refused_cases = static_cast<std::int64_t>(findings->refused.size())};
  const std::string json = CertificateJson(subject, certificate, OverCases(findings->cases));
  if (!request.out.empty()) RETURN_IF_ERROR(WriteFileAtomically(request.out, json));
  if (!request.svg.empty()) {
    RETURN_IF_ERROR(WriteFileAtomically(request.svg, CertificatePicture(subject, certificate)));
  }
  if (request.json) {
    fmt::print("{}", json);
  } else {
    Print(certificate);
  }
  std::fflush(stdout);
  return absl::OkStatus();
}

}  // namespace isoscan
