#include "tests/fuzz/federation_fuzz.h"

#include <fstream>
#include <string>
#include <vector>

#include "client/federation/enrolment.h"
#include "client/federation/messages.h"
#include "client/federation/update_record.h"
#include "common/planning/planned_study.h"
#include "common/study/initial_weights.h"
#include "common/study/study.h"
#include "common/tls/keys.h"
#include "common/weights/block_sums.h"
#include "common/weights/safetensors.h"
#include "common/weights/sealed_tensors.h"
#include "proto/federation.pb.h"
#include "server/aggregation/federated_average.h"
#include "server/rounds/submission_rules.h"
#include "server/rpc/messages.h"
#include "server/trust/authority.h"
#include "tests/fuzz/federation_studies.h"

namespace isoscan {
namespace {

std::filesystem::path Write(const std::filesystem::path& file, std::string_view bytes) {
  std::ofstream(file, std::ios::binary) << bytes;
  return file;
}

template <typename Message>
bool Parse(std::string_view bytes, Message& message) {
  return message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

const Study& StudyOf(const char* toml) {
  static std::map<std::string, Study> studies;
  const auto found = studies.find(toml);
  return found != studies.end()
             ? found->second
             : studies.emplace(toml, ParseStudy(toml, "study").value()).first->second;
}

/// As the server would take it.
bool TakeCohort(const v1::CohortSummary& message, const Study& study) {
  const absl::StatusOr<SiteRecord> cohort = FromMessage("berlin", message);
  if (!cohort.ok() || !CheckCohort(*cohort, study).ok()) return false;
  return !cohort->fingerprint.has_value() ||
         PlannedStudy(study, {{"berlin", *cohort->fingerprint}}).ok();
}

SiteRecord DeclaredCohort() {
  SiteRecord cohort;
  cohort.name = "berlin";
  cohort.training_cases = 10;
  cohort.held_out_cases = 5;
  return cohort;
}

}  // namespace

bool FuzzSiteMessage(std::string_view bytes, const std::filesystem::path& /*folder*/) {
  if (bytes.empty()) return false;
  const char kind = bytes.front();
  bytes.remove_prefix(1);
  const Study& study = StudyOf(kFuzzedStudy);
  if (kind == 'c' || kind == 'd') {
    v1::CohortSummary message;
    return Parse(bytes, message) &&
           TakeCohort(message, kind == 'c' ? study : StudyOf(kFuzzedDraft));
  }
  if (kind == 'u') {
    v1::SubmitUpdateRequest message;
    return Parse(bytes, message) && CheckUpdate(study, DeclaredCohort(), FromMessage(message)).ok();
  }
  if (kind == 's') {
    v1::SiteScores message;
    return Parse(bytes, message) && CheckScores(study, DeclaredCohort(), FromMessage(message)).ok();
  }
  v1::InvarianceCertificate message;
  if (kind != 'i' || !Parse(bytes, message)) return false;
  const absl::StatusOr<InvarianceCertificate> certificate = FromMessage(message);
  return certificate.ok() && CheckCertificate(DeclaredCohort(), *certificate).ok();
}

bool FuzzServerMessage(std::string_view bytes, const std::filesystem::path& /*folder*/) {
  if (bytes.empty()) return false;
  const char kind = bytes.front();
  bytes.remove_prefix(1);
  if (kind == 'o') {
    v1::StudyState message;
    if (!Parse(bytes, message)) return false;
    const OfferedStudy offered = OfferedStudyFrom(message);
    const absl::StatusOr<Study> study = ParseStudy(offered.toml, offered.name);
    if (study.ok()) (void)IsPlanOf(offered, *study);
    return study.ok();
  }
  v1::Assignment message;
  return kind == 'a' && Parse(bytes, message) && SiteAssignmentFrom(message).ok();
}

bool FuzzWeights(std::string_view bytes, const std::filesystem::path& folder) {
  if (bytes.empty()) return false;
  const char kind = bytes.front();
  bytes.remove_prefix(1);
  const std::size_t sums = bytes.find(kSums);
  const std::filesystem::path file = Write(folder / "x.safetensors", bytes.substr(0, sums));
  if (kind == 's') return ReadSealed(file).ok();
  if (kind == 'b') {
    if (sums == std::string_view::npos) return false;
    Write(BlockSums::PathFor(file), bytes.substr(sums + kSums.size()));
    absl::StatusOr<BlockSums> of_file = BlockSums::ReadBeside(file);
    if (!of_file.ok()) return false;
    const auto checked = SafetensorsFile::OpenChecked(file, *std::move(of_file));
    if (!checked.ok()) return false;
    for (const auto& [name, shape] : checked->shapes()) {
      std::vector<float> values(static_cast<std::size_t>(ElementCount(shape)));
      if (!checked->Read(name, 0, values).ok()) return false;
    }
    return true;
  }
  if (kind != 'w') return false;
  const Study& study = StudyOf(kFuzzedStudy);
  const bool averaged = FederatedAverage({{.site = "berlin", .weights = file, .weight = 1},
                                          {.site = "charite", .weights = file, .weight = 2}},
                                         folder / "mean.safetensors", {}, {.threads = 1})
                            .ok();
  return DecodeSafetensors(bytes).ok() && averaged &&
         CheckWeightsMetadata(study, "berlin", file).ok() &&
         ScreenUpdate("berlin", file, NetworkShapes(study)).ok();
}

bool FuzzText(std::string_view bytes, const std::filesystem::path& folder) {
  if (bytes.empty()) return false;
  const char kind = bytes.front();
  const std::string text(bytes.substr(1));
  switch (kind) {
    case 't': {
      const absl::StatusOr<Study> study = ParseStudy(text, "study.toml");
      if (study.ok() && CheckPlanned(*study).ok()) (void)NetworkShapes(*study);
      return study.ok();
    }
    case 'i':
      return LoadInvitation(Write(folder / "invitation.toml", text)).ok();
    case 'r':
      return RequestedIdentity(text).ok();
    case 'c':
      return IdentityOf(text).ok() && DaysUntilExpiry(text).ok();
    case 'j':
      return ReadUpdateRecord(Write(folder / "update.json", text)).ok();
    default:
      return false;
  }
}

}  // namespace isoscan
