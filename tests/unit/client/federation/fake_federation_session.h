#pragma once

#include <condition_variable>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "client/federation/federation_session.h"
#include "common/transfer/chunks.h"

namespace isoscan {

/// A server in memory: the test says what it asks for, and reads what the site handed in.
///
/// Thread safety: all methods from any thread; the public members are for before and after Run().
class FakeFederationSession final : public FederationSession {
 public:
  std::string site = "north";
  std::vector<OfferedStudy> studies;
  std::map<std::string, std::string> models;  ///< Bytes by digest.
  /// Called with each update before it is answered; its answer is the server's.
  std::function<absl::Status(const RoundUpdate&)> on_update = [](const RoundUpdate&) {
    return absl::OkStatus();
  };
  std::function<void()> on_scores = [] {};
  absl::Status scores_answer;  ///< The server's answer to scores.

  std::vector<RoundUpdate> updates;
  std::vector<std::string> uploaded_digests;
  std::vector<std::string> uploads;  ///< Their bytes.
  std::vector<std::pair<SiteAssignment::Kind, std::vector<ScoredCase>>> scores;
  std::vector<ScoredCase> personal;  ///< Of the last scores; so is the next.
  std::optional<InvarianceCertificate> certificate;
  int downloads = 0;

  /// What the site is asked for from now on.
  void Ask(std::vector<SiteAssignment> assignments) {
    {
      const std::lock_guard lock(mutex_);
      lists_.push_back(std::move(assignments));
    }
    changed_.notify_all();
  }

  /// Returns once the site has heard everything that it was asked.
  void WaitUntilHeard() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return lists_.empty() && !observing_; });
  }
  /// What ends the last submission.
  const std::stop_token& submit_stop() const { return submit_stop_; }

  absl::StatusOr<ServerGreeting> Hello(std::stop_token) override {
    return ServerGreeting{.protocol_version = 1, .program_version = "test", .site = site};
  }
  absl::StatusOr<std::vector<OfferedStudy>> Studies(std::stop_token) override { return studies; }
  absl::Status Approve(const std::string&, const std::string&, const CohortDeclaration&,
                       std::stop_token) override {
    return absl::OkStatus();
  }
  absl::Status Withdraw(const std::string&, std::stop_token) override { return absl::OkStatus(); }

  absl::Status Watch(const AssignmentObserver& observe, std::stop_token stop) override {
    std::unique_lock lock(mutex_);
    while (changed_.wait(lock, stop, [this] { return !lists_.empty(); })) {
      std::vector<SiteAssignment> list = std::move(lists_.front());
      lists_.pop_front();
      observing_ = true;
      lock.unlock();
      observe(std::move(list));
      lock.lock();
      observing_ = false;
      changed_.notify_all();
    }
    return absl::CancelledError("interrupted");
  }

  absl::Status DownloadModel(const std::string&, const std::string& digest, std::int64_t,
                             const std::filesystem::path& path, const TransferObserver&,
                             std::stop_token) override {
    const auto model = models.find(digest);
    if (model == models.end()) return absl::NotFoundError("no such model");
    if (std::filesystem::exists(path)) return absl::OkStatus();
    ++downloads;
    return WriteFileAtomically(path, model->second);
  }
  absl::Status UploadWeights(const std::string&, int, const std::string& digest,
                             const std::filesystem::path& path, const TransferObserver&,
                             std::stop_token) override {
    uploaded_digests.push_back(digest);
    std::ostringstream bytes;
    bytes << std::ifstream(path, std::ios::binary).rdbuf();
    uploads.push_back(bytes.str());
    return absl::OkStatus();
  }
  absl::Status SubmitUpdate(const RoundUpdate& update, std::stop_token stop) override {
    submit_stop_ = std::move(stop);
    updates.push_back(update);
    return on_update(update);
  }
  absl::Status SubmitScores(const std::string&, SiteAssignment::Kind kind, const SiteScores& sent,
                            std::stop_token) override {
    scores.emplace_back(kind, sent.cases);
    personal = sent.personal;
    certificate = sent.certificate;
    on_scores();
    return scores_answer;
  }
  absl::Status ReportProgress(const WorkProgress& progress, std::stop_token) override {
    const std::lock_guard lock(mutex_);
    activities_.push_back(progress.activity);
    return absl::OkStatus();
  }

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::vector<SiteAssignment>> lists_;
  bool observing_ = false;
  std::vector<std::string> activities_;
  std::stop_token submit_stop_;
};

}  // namespace isoscan
