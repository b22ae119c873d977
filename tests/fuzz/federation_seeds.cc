#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "client/federation/messages.h"
#include "client/federation/update_record.h"
#include "common/study/initial_weights.h"
#include "common/study/study.h"
#include "common/tls/keys.h"
#include "common/weights/block_sums.h"
#include "common/weights/safetensors.h"
#include "common/weights/sealed_tensors.h"
#include "common/weights/sha256.h"
#include "proto/federation.pb.h"
#include "server/trust/authority.h"
#include "tests/fuzz/federation_fuzz.h"
#include "tests/fuzz/federation_studies.h"
#include "tests/support/file_content.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

FuzzSeed SeedOf(std::string name, char kind, std::string_view bytes) {
  FuzzSeed seed{.name = std::move(name), .bytes = std::string(1, kind)};
  seed.bytes += bytes;
  return seed;
}

FuzzSeed SeedOf(std::string name, char kind, const google::protobuf::MessageLite& message) {
  return SeedOf(std::move(name), kind, message.SerializeAsString());
}

v1::CohortSummary Cohort() {
  CohortDeclaration declaration;
  declaration.training_cases = 10;
  declaration.held_out_cases = 2;
  declaration.raw = {.low = 0, .high = 100, .counts = {5, 3, 2}};
  declaration.harmonized = {.low = -3, .high = 3, .counts = {1, 8, 1}};
  return ToMessage(declaration);
}

v1::CohortSummary DraftCohort() {
  CohortDeclaration declaration;
  declaration.training_cases = 6;
  declaration.held_out_cases = 2;
  Fingerprint fingerprint = Fingerprint::Empty(1, 3);
  const std::vector<float> intensities = {1, 2, 3};
  for (std::int64_t i = 0; i < 6; ++i) {
    fingerprint
        .AddCase({.spacing_mm = {2, 1, 1}, .size = {16, 16 + i, 20}, .foreground = {intensities}})
        .IgnoreError();
  }
  declaration.fingerprint = Disclosed(fingerprint);
  return ToMessage(declaration);
}

v1::SiteScores Scores() {
  v1::SiteScores scores;
  for (int index = 0; index < 2; ++index) {
    v1::CaseScore& score = *scores.add_cases();
    score.set_case_index(index);
    score.set_cohort("bids");
    for (int label = 0; label < 2; ++label) {
      v1::LabelScore& sent = *score.add_labels();
      sent.set_dice(0.5);
      sent.set_reference_voxels(100);
      sent.set_predicted_voxels(100);
      sent.set_common_voxels(50);
    }
  }
  return scores;
}

v1::SubmitUpdateRequest Update() {
  v1::SubmitUpdateRequest update;
  update.set_study("tiny");
  update.set_round(1);
  update.set_weights_digest(std::string(64, 'a'));
  update.set_training_cases(10);
  update.set_steps(1);
  update.set_mean_loss(0.7);
  update.set_seconds_training(2);
  update.set_seconds_scoring(1);
  *update.mutable_model_scores() = Scores();
  return update;
}

v1::InvarianceCertificate Certificate() {
  v1::InvarianceCertificate certificate;
  certificate.set_cases(3);
  certificate.set_largest_logit_change(1e-6);
  certificate.set_scale(10);
  certificate.set_bias(-1);
  certificate.set_voxels_compared(5000);
  for (const PerturbationFacts& facts : PerturbationTable()) {
    for (const double amount : facts.amounts) {
      v1::DegradationPoint& point = *certificate.add_points();
      point.set_perturbation(std::string(facts.word));
      point.set_amount(amount);
      point.set_cases(3);
      point.set_flipped(0.1);
      point.set_dice(0.8);
    }
  }
  return certificate;
}

v1::StudyState Offered(const char* toml) {
  v1::StudyState offered;
  offered.set_name("tiny");
  offered.set_toml(toml);
  offered.set_digest(Sha256Of(toml));
  offered.set_phase(v1::STUDY_PHASE_RUNNING);
  offered.set_round(1);
  offered.set_rounds(2);
  offered.set_waiting_for("the update of berlin");
  v1::SiteState& site = *offered.add_sites();
  site.set_site("berlin");
  site.set_approved(true);
  site.set_training_cases(10);
  return offered;
}

// A study with something in every table.
constexpr char kLongStudy[] = R"(name = "long"
description = "all tables"
seed = 7
channels = ["T1w", "FLAIR"]
labels = ["left-hippocampus", "right-hippocampus"]
sites = ["berlin", "charite"]
[held_out]
rule = "every"
every = 4
[harmonization]
mask = "otsu"
normalize = "nyul"
spacing_mm = [0, 2.0, 2.0]
[network]
kind = "residual"
features = [4, 8, 8]
strides = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
kernels = [[1, 3, 3], [3, 3, 3], [3, 3, 3]]
blocks_per_stage = [1, 2, 2]
norm = "group"
local_layers = ["norm"]
[training]
patch_size = [8, 16, 16]
optimizer = "sgd"
learning_rate = 1e-2
passes_per_round = 0.5
mirror_axes = [0, 1]
augmentation = "nnunet"
[evaluation]
overlap = 0.25
local_only = true
[rounds]
rounds = 3
aggregation = "fednova"
maximum_site_weight = 0.6
[rounds.quorum]
policy = "at_least"
minimum_sites = 1
minimum_case_fraction = 0.5
required_sites = ["berlin"]
)";

RoundUpdate Record() { return RoundUpdateFrom(Update()); }

}  // namespace

std::vector<FuzzSeed> SiteMessageSeeds() {
  return {SeedOf("cohort", 'c', Cohort()), SeedOf("draft_cohort", 'd', DraftCohort()),
          SeedOf("update", 'u', Update()), SeedOf("scores", 's', Scores()),
          SeedOf("certificate", 'i', Certificate())};
}

std::vector<FuzzSeed> ServerMessageSeeds() {
  v1::Assignment assignment;
  assignment.set_kind(v1::Assignment::KIND_TRAIN);
  assignment.set_study("tiny");
  assignment.set_study_digest(std::string(64, 'a'));
  assignment.set_round(1);
  assignment.set_model_digest(std::string(64, 'b'));
  assignment.set_model_bytes(4096);
  return {SeedOf("study", 'o', Offered(kFuzzedStudy)), SeedOf("draft", 'o', Offered(kFuzzedDraft)),
          SeedOf("long_study", 'o', Offered(kLongStudy)), SeedOf("assignment", 'a', assignment)};
}

std::vector<FuzzSeed> WeightsSeeds() {
  const TemporaryDirectory folder;
  const Study study = ParseStudy(kFuzzedStudy, "study").value();
  const NamedTensors weights = InitialWeights(study);
  const std::string file = EncodeSafetensors(weights, WeightsMetadataOf(study, 1));

  const NamedTensors few = {{"a", {.shape = {2, 3}, .values = {1, 2, 3, 4, 5, 6}}},
                            {"b", {.shape = {}, .values = {7}}},
                            {"c", {.shape = {0, 4}, .values = {}}}};
  const std::filesystem::path sealed = folder.path() / "sealed";
  WriteSealed(sealed, {.tensors = few, .metadata = {{"round", "1"}}}).IgnoreError();
  const std::filesystem::path summed = folder.path() / "summed";
  WriteSafetensors(summed, few, {}).IgnoreError();
  if (const auto sums = SumsOfFile(summed); sums.ok()) {
    sums->blocks.WriteBeside(summed).IgnoreError();
  }
  return {SeedOf("update", 'w', file), SeedOf("sealed", 's', TextOf(sealed)),
          SeedOf("summed", 'b',
                 fmt::format("{}{}{}", TextOf(summed), kSums, TextOf(BlockSums::PathFor(summed))))};
}

std::vector<FuzzSeed> TextSeeds() {
  const TemporaryDirectory folder;
  const Time now = SystemClock().Now();
  const Authority authority = Authority::Create(now).value();
  const std::string key = CreatePrivateKey().value();
  const std::string request = CreateSigningRequest(key, {Identity::Role::kSite, "berlin"}).value();
  const std::string certificate = authority.SignSite(request, "berlin", now).value().pem;
  const std::filesystem::path record = folder.path() / "record.json";
  WriteUpdateRecord(record, Record()).IgnoreError();
  return {SeedOf("study", 't', kFuzzedStudy),
          SeedOf("draft", 't', kFuzzedDraft),
          SeedOf("long_study", 't', kLongStudy),
          SeedOf("invitation", 'i',
                 fmt::format("server = \"localhost:18443\"\nsite = \"berlin\"\n"
                             "token = \"abc\"\nauthority = '''\n{}'''\n",
                             authority.certificate_pem())),
          SeedOf("request", 'r', request),
          SeedOf("certificate", 'c', certificate),
          SeedOf("record", 'j', TextOf(record))};
}

}  // namespace isoscan
