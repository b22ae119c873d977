#include "tests/unit/server/rounds/federation_in_memory.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "common/weights/safetensors.h"
#include "common/weights/sha256.h"
#include "tests/support/status_matchers.h"

namespace isoscan {

std::string TinyStudy::toml() const {
  std::vector<std::string> quoted;
  for (const std::string& site : sites) quoted.push_back(fmt::format("\"{}\"", site));
  return fmt::format(R"(
name = "{}"
channels = ["T1w"]
labels = ["left", "right"]
sites = [{}]

[harmonization]
{}

[network]
features = [2, 3]
strides = [[1, 1, 1], [2, 2, 2]]
{}

[training]
patch_size = [8, 8, 8]
batch_size = 1
{}

[evaluation]
local_only = {}

[rounds]
rounds = {}
aggregation = "{}"
no_progress_minutes = 30
round_deadline_minutes = 1440
{}

[rounds.quorum]
{}
)",
                     name, fmt::join(quoted, ", "), harmonization, network, training, local_only,
                     rounds, aggregation, rounds_table, quorum);
}

FederationInMemory::FederationInMemory() {
  std::filesystem::create_directories(folder() / "models");
  std::filesystem::create_directories(folder() / "uploads");
  Restart();
}

void FederationInMemory::Restart() {
  coordinator_.reset();
  journal_.reset();
  auto journal = SqliteJournal::Open(folder() / "journal.db");
  ASSERT_OK(journal);
  journal_ = *std::move(journal);
  auto coordinator =
      Coordinator::Open(*journal_, clock_, folder() / "models", folder() / "uploads");
  ASSERT_OK(coordinator);
  coordinator_ = *std::move(coordinator);
}

void FederationInMemory::Create(const TinyStudy& study, const std::vector<std::string>& sites) {
  ASSERT_OK(coordinator_->CreateStudy(study.toml()));
  for (const std::string& site : sites.empty() ? study.sites : sites) {
    ASSERT_OK(Approve(site, study.name));
  }
}

void FederationInMemory::CreateAndStart(const TinyStudy& study,
                                        const std::vector<std::string>& sites) {
  Create(study, sites);
  ASSERT_OK(coordinator_->StartStudy(study.name));
}

absl::Status FederationInMemory::Approve(const std::string& site, const std::string& study) {
  ASSIGN_OR_RETURN(const StudyStatus status, coordinator_->Status(study));
  return coordinator_->Approve(site, study, status.digest, CohortOf(site));
}

SiteRecord FederationInMemory::CohortOf(const std::string& site) {
  SiteRecord cohort;
  cohort.name = site;
  cohort.training_cases = site == "berlin"     ? 10
                          : site == "charite"  ? 20
                          : site == "st-marys" ? 30
                                               : 5;
  cohort.held_out_cases = 2;
  cohort.raw = {0, 100, {1, 2, 3}};
  cohort.harmonized = {-4, 6, {4, 5}};
  return cohort;
}

std::vector<CaseScoreRecord> FederationInMemory::Scores(double dice) {
  const LabelScoreRecord score{dice, 10, 12, 5};
  return {{0, "", {score, score}}, {1, "3T", {score, score}}};
}

absl::StatusOr<SiteUpdate> FederationInMemory::Upload(const std::string& site,
                                                      const std::string& study, float extra_shift) {
  ASSIGN_OR_RETURN(const StudyStatus status, coordinator_->Status(study));
  ASSIGN_OR_RETURN(const std::filesystem::path model,
                   coordinator_->Model(site, study, NewestModel(study)));
  ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(model));
  NamedTensors weights = file.ReadAll();
  float shift = extra_shift + 0.01F * static_cast<float>(status.round);
  for (const char letter : site) shift += 0.001F * static_cast<float>(letter);
  for (auto& [name, tensor] : weights) {
    for (float& value : tensor.values) value += shift;
  }
  std::map<std::string, std::string> metadata = file.metadata();
  if (!standard_.empty()) {
    ASSIGN_OR_RETURN(Study used, ParseStudy(status.toml, study));
    used.harmonization.standard = standard_;
    metadata = WeightsMetadataOf(used, status.round);
  }
  const std::string bytes = EncodeSafetensors(weights, metadata);
  const std::string digest = Sha256Of(bytes);
  ASSIGN_OR_RETURN(const std::filesystem::path path,
                   coordinator_->UploadPath(site, study, status.round, digest,
                                            static_cast<std::int64_t>(bytes.size())));
  RETURN_IF_ERROR(WriteSafetensors(path, weights, metadata));
  SiteUpdate update;
  update.study = study;
  update.round = status.round;
  update.weights_digest = digest;
  update.training_cases = CohortOf(site).training_cases;
  update.steps = 1;
  update.mean_loss = 0.25;
  update.seconds_training = 2;
  update.seconds_scoring = 1;
  if (const auto loss = losses_.find(site); loss != losses_.end()) {
    update.loss_before = loss->second;
  }
  const auto round_before = static_cast<std::size_t>(status.round) - 1;
  update.model_scores =
      Scores(dice_.empty() ? std::min(0.1 * status.round, 1.0) : dice_.at(round_before));
  return update;
}

absl::Status FederationInMemory::Train(const std::string& site, const std::string& study) {
  ASSIGN_OR_RETURN(const SiteUpdate update, Upload(site, study));
  return coordinator_->SubmitUpdate(site, update);
}

absl::Status FederationInMemory::Score(const std::string& site, const std::string& study) {
  const double dice =
      dice_.empty() ? 0.9 : dice_.at(static_cast<std::size_t>(Status(study).round) - 1);
  return coordinator_->SubmitScores(site, study, Assignment::Kind::kScore, Scores(dice));
}

std::optional<Assignment> FederationInMemory::AskedOf(const std::string& site) {
  const std::vector<Assignment> assignments = coordinator_->AssignmentsOf(site);
  EXPECT_LE(assignments.size(), 1U);
  if (assignments.empty()) return std::nullopt;
  return assignments.front();
}

StudyStatus FederationInMemory::Status(const std::string& study) {
  auto status = coordinator_->Status(study);
  EXPECT_OK(status);
  return status.value_or(StudyStatus());
}

std::string FederationInMemory::NewestModel(const std::string& study) {
  const auto models = coordinator_->Models(study);
  EXPECT_OK(models);
  return models.ok() ? models->back().digest : "";
}

std::vector<std::string> FederationInMemory::StagedFiles() const {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder() / "uploads")) {
    if (entry.is_regular_file())
      files.push_back(entry.path().lexically_relative(folder()).string());
  }
  return files;
}

}  // namespace isoscan
