#pragma once

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/approved_studies.h"
#include "client/hospital_client.h"
#include "client/imaging/image_file.h"
#include "client/state_folder.h"
#include "common/study/exchanged_tensors.h"
#include "common/study/initial_weights.h"
#include "common/transfer/chunks.h"
#include "common/weights/safetensors.h"
#include "common/weights/sha256.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/federation/fake_federation_session.h"

namespace isoscan {

inline constexpr char kStudyText[] = R"(name = "blobs"
channels = ["T1w"]
labels = ["blob"]
[held_out]
rule = "every"
every = 3
[network]
features = [2, 4]
strides = [[1, 1, 1], [2, 2, 2]]
[training]
patch_size = [8, 8, 8]
batch_size = 2
steps_per_round = 3
[evaluation]
local_only = true
[rounds]
rounds = 2
)";

/// Adds 1 to every weight and finds what is there; a test may do something in between.
class FakeTrainer final : public StudyTrainer {
 public:
  struct Record {
    std::vector<TrainingTask> tasks;
    std::vector<NamedTensors> weights;  ///< That training began with.
    std::vector<std::size_t> training_cases;
    float highest = 0;  ///< Intensity of the last training cases, as harmonised.
    int predictions = 0;
    int scores = 0;  ///< Predictions of a certificate.
    std::chrono::milliseconds scores_take{0};
    absl::Status scores_answer;
    int alive = 0;
    int most_alive = 0;
    std::function<void()> on_train = [] {};
    bool until_stopped = false;
    std::int64_t memory_bytes = 0;
  };
  explicit FakeTrainer(Record& record) : record_(record) {
    record_.most_alive = std::max(record_.most_alive, ++record_.alive);
  }
  ~FakeTrainer() override { --record_.alive; }

  absl::StatusOr<TrainingResult> Train(const NamedTensors& weights,
                                       std::span<const PreparedCase> cases,
                                       const TrainingTask& task, std::stop_token stop,
                                       const StepObserver& observe) override {
    record_.tasks.push_back(task);
    record_.weights.push_back(weights);
    record_.training_cases.push_back(cases.size());
    record_.highest = 0;
    for (const PreparedCase& prepared : cases) {
      record_.highest = std::max(record_.highest, *std::ranges::max_element(prepared.image));
    }
    record_.on_train();
    if (record_.until_stopped) {
      std::mutex mutex;
      std::unique_lock lock(mutex);
      std::condition_variable_any stopped;
      stopped.wait(lock, stop, [] { return false; });
      return absl::CancelledError("stopped");
    }
    TrainingResult result{.weights = weights, .mean_loss = 0.5, .steps = task.steps};
    if (task.loss_steps > 0) result.loss_before = 0.75;
    for (auto& [name, tensor] : result.weights) {
      for (float& value : tensor.values) value += 1;
    }
    for (std::int64_t step = 0; step < task.steps; ++step) observe(task.first_step + step, 0.5);
    return result;
  }
  absl::StatusOr<LabelMap> Predict(const NamedTensors&, const PreparedCase& prepared) override {
    ++record_.predictions;
    return prepared.Reference();
  }
  /// Background everywhere but where the harmonised intensity is high.
  absl::StatusOr<std::vector<float>> Scores(const NamedTensors&,
                                            const PreparedCase& prepared) override {
    ++record_.scores;
    std::this_thread::sleep_for(record_.scores_take);
    if (!record_.scores_answer.ok()) return record_.scores_answer;
    std::vector<float> scores(prepared.image.size(), 0.5F);
    scores.insert(scores.end(), prepared.image.begin(), prepared.image.end());
    return scores;
  }
  std::string device_name() const override { return "CPU, 1 thread"; }
  std::int64_t memory_bytes() const override { return record_.memory_bytes; }

 private:
  Record& record_;
};

inline Volume Ramp(std::int64_t edge) {
  Volume volume;
  volume.geometry.size = {edge, edge, edge};
  for (std::int64_t voxel = 0; voxel < volume.geometry.voxels(); ++voxel) {
    volume.voxels.push_back(static_cast<float>(voxel % 97));
  }
  return volume;
}

/// Six cases in nnU-Net's layout; cases 0 and 3 are held out.
inline void WriteCohort(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder / "imagesTr");
  std::filesystem::create_directories(folder / "labelsTr");
  ASSERT_OK(WriteFileAtomically(folder / "dataset.json",
                                R"({"channel_names": {"0": "T1w"}, "numTraining": 6,
                                    "labels": {"background": 0, "blob": 1},
                                    "file_ending": ".nii.gz"})"));
  for (int number = 0; number < 6; ++number) {
    const Volume image = Ramp(8);
    LabelMap labels{.geometry = image.geometry, .voxels = std::vector<std::uint8_t>(512)};
    for (std::size_t voxel = 100; voxel < 140; ++voxel) labels.voxels[voxel] = 1;
    ASSERT_OK(WriteVolume(folder / "imagesTr" / fmt::format("case_{}_0000.nii.gz", number), image));
    ASSERT_OK(WriteLabelMap(folder / "labelsTr" / fmt::format("case_{}.nii.gz", number), labels));
  }
}

class HospitalClientTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(WriteCohort(folder_.path() / "cohort"));
    config_.server = "localhost:1";
    config_.site = "north";
    config_.state = folder_.path() / "state";
    CohortFolder cohort;
    cohort.folder = folder_.path() / "cohort";
    config_.cohorts = {cohort};
    ASSERT_NO_FATAL_FAILURE(Approve(kStudyText));
    // Where a test says nothing else, the study is over after the first update or scores.
    session_.on_update = [this](const RoundUpdate&) {
      session_.Ask({Ended()});
      return absl::OkStatus();
    };
    session_.on_scores = [this] { session_.Ask({Ended()}); };
  }

  void Approve(const std::string& text) {
    ASSERT_OK_AND_ASSIGN(study_, ParseStudy(text, "study.toml"));
    ASSERT_OK(ApprovedStudies(SiteStateFolder(config_.state).approved()).Add(study_));
    NamedTensors weights = InitialWeights(study_);
    TakeLocal(study_.network, weights);
    model_ = Offer(weights);
    OfferedStudy offered;
    offered.name = study_.name;
    offered.digest = study_.digest;
    offered.phase = OfferedStudy::Phase::kRunning;
    offered.approved = true;
    session_.studies = {offered};
  }
  /// The study with a certificate at its end and every n-th case held out.
  static std::string WithCertificate(int every) {
    std::string text = kStudyText;
    text.replace(text.find("every = 3"), 9, fmt::format("every = {}", every));
    return text.insert(text.find("local_only"), "certificate = true\n");
  }

  /// Makes a model that can be downloaded; answers with its digest.
  std::string Offer(const NamedTensors& weights) {
    return Offer(weights, WeightsMetadataOf(study_, /*round=*/0));
  }
  std::string Offer(const NamedTensors& weights, const WeightsMetadata& metadata) {
    const std::string bytes = EncodeSafetensors(weights, metadata);
    const std::string digest = Sha256Of(bytes);
    session_.models[digest] = bytes;
    return digest;
  }
  SiteAssignment Assignment(SiteAssignment::Kind kind, int round) const {
    return {.kind = kind,
            .study = study_.name,
            .study_digest = study_.digest,
            .round = round,
            .model_digest = model_,
            .model_bytes = static_cast<std::int64_t>(session_.models.at(model_).size())};
  }
  SiteAssignment Ended() const {
    return {.kind = SiteAssignment::Kind::kStudyEnded,
            .study = study_.name,
            .study_digest = study_.digest,
            .round = 0,
            .model_digest = "",
            .model_bytes = 0};
  }
  absl::Status Run(std::stop_token stop = {}) {
    HospitalClient client(config_, session_, [this](const Study&) {
      return std::make_unique<FakeTrainer>(training_);
    });
    return client.Run(/*until_ended=*/true, std::move(stop));
  }
  std::size_t FilesIn(const std::string& folder) const {
    const std::filesystem::path path = config_.state / folder / study_.name;
    if (!std::filesystem::exists(path)) return 0;
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(path),
                                                  std::filesystem::directory_iterator()));
  }

  const TemporaryDirectory folder_;
  ClientConfig config_;
  Study study_;
  std::string model_;
  FakeFederationSession session_;
  FakeTrainer::Record training_;
};

}  // namespace isoscan
