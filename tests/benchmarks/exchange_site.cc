// Sites that train nothing, for tests/benchmarks/exchange: site K hands in each model that it gets
// with (K + 1) / 1024 added to every value, so that a round is exchange and aggregation alone. The
// real client's session over mutual TLS; memory of a block, whatever the size of the model.
//
//   exchange_site enrol INVITATION FOLDER
//   exchange_site run SERVER STUDY FOLDERS FIRST COUNT
//
// `run` is COUNT sites in one process: the one of FOLDERS/site-FIRST (site.key, site.pem,
// authority.pem) and so on. It waits until the study is offered, approves it with a cohort that it
// makes up, works until the study has ended, and tells what it does as JSON, a line for each step.

#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "client/federation/enrolment.h"
#include "client/federation/grpc_federation_session.h"
#include "common/log/log.h"
#include "common/process/exit_code.h"
#include "common/process/interrupt.h"
#include "common/process/resources.h"
#include "common/status/status_macros.h"
#include "common/study/study.h"
#include "common/tls/credentials.h"
#include "common/tls/keys.h"
#include "common/weights/safetensors.h"
#include "common/weights/sha256.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;
using Kind = SiteAssignment::Kind;

constexpr std::size_t kBlockValues = 64 * 1024;
constexpr std::int64_t kTrainingCases = 4;

double SecondsSince(steady_clock::time_point start) {
  return std::chrono::duration<double>(steady_clock::now() - start).count();
}

void Print(const std::string& line) {
  std::puts(line.c_str());
  std::fflush(stdout);
}

absl::Status Enrol(const fs::path& invitation_file, const fs::path& folder) {
  ASSIGN_OR_RETURN(const Invitation invitation, LoadInvitation(invitation_file));
  fs::create_directories(folder);
  ASSIGN_OR_RETURN(const std::string key, CreatePrivateKey());
  RETURN_IF_ERROR(WriteSecret(folder / "site.key", key));
  ASSIGN_OR_RETURN(
      const std::string request,
      CreateSigningRequest(key, {.role = Identity::Role::kSite, .name = invitation.site}));
  ASSIGN_OR_RETURN(const std::string issued, RequestCertificate(invitation, request, {}));
  RETURN_IF_ERROR(WriteSecret(folder / "authority.pem", invitation.authority));
  return WriteSecret(folder / "site.pem", issued);
}

// What the server asks for, the latest only.
class Inbox {
 public:
  void Put(std::optional<SiteAssignment> assignment) {
    const absl::MutexLock lock(&mutex_);
    latest_ = std::move(assignment);
  }
  void Close() {
    const absl::MutexLock lock(&mutex_);
    closed_ = true;
  }
  // Another than `done`; nothing when the inbox was closed.
  std::optional<SiteAssignment> WaitForOtherThan(const std::optional<SiteAssignment>& done) {
    const auto other = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return closed_ || (latest_.has_value() && latest_ != done);
    };
    const absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&other));
    return closed_ ? std::nullopt : latest_;
  }

 private:
  absl::Mutex mutex_;
  std::optional<SiteAssignment> latest_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

class Site {
 public:
  Site(const std::string& server, std::string study, const fs::path& folders, int number)
      : server_(server),
        study_name_(std::move(study)),
        name_(fmt::format("site-{}", number)),
        folder_(folders / name_),
        shift_(static_cast<float>(number + 1) / 1024) {}

  absl::Status Run(const std::stop_token& stop) {
    TlsFiles files;
    ASSIGN_OR_RETURN(files.authority, ReadSecret(folder_ / "authority.pem"));
    ASSIGN_OR_RETURN(files.certificate, ReadSecret(folder_ / "site.pem"));
    ASSIGN_OR_RETURN(files.private_key, ReadSecret(folder_ / "site.key"));
    session_ = ConnectOverGrpc(server_, files, RetryPolicy::Forever());
    RETURN_IF_ERROR(session_->Hello(stop).status());
    RETURN_IF_ERROR(Approve(stop));
    Print(fmt::format(R"({{"site": "{}", "approved": true}})", name_));

    absl::Status watched;
    std::jthread watcher([&](const std::stop_token& over) {
      watched = session_->Watch(
          [&](const std::vector<SiteAssignment>& asked) {
            for (const SiteAssignment& assignment : asked) {
              if (assignment.study == study_name_) return inbox_.Put(assignment);
            }
            inbox_.Put(std::nullopt);
          },
          over);
      inbox_.Close();
    });
    const std::stop_callback interrupted(stop, [&] { watcher.request_stop(); });
    const absl::Status worked = Work(stop);
    watcher.request_stop();
    watcher.join();
    if (!worked.ok()) return worked;
    return absl::IsCancelled(watched) ? absl::OkStatus() : watched;
  }

 private:
  absl::Status Approve(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      ASSIGN_OR_RETURN(const std::vector<OfferedStudy> offered, session_->Studies(stop));
      for (const OfferedStudy& entry : offered) {
        if (entry.name != study_name_) continue;
        ASSIGN_OR_RETURN(study_, ParseStudy(entry.toml, study_name_));
        CohortDeclaration cohort;
        cohort.training_cases = kTrainingCases;
        cohort.held_out_cases = 1;
        return session_->Approve(study_name_, study_->digest, cohort, stop);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return absl::CancelledError("interrupted");
  }

  absl::Status Work(const std::stop_token& stop) {
    std::optional<SiteAssignment> done;
    while (true) {
      const std::optional<SiteAssignment> asked = inbox_.WaitForOtherThan(done);
      if (!asked.has_value() || asked->kind == Kind::kStudyEnded) return absl::OkStatus();
      if (asked->kind == Kind::kTrain) {
        RETURN_IF_ERROR(TakeRound(*asked, stop));
      } else {
        ScoredCase scored;
        scored.labels.resize(study_->labels.size(),
                             {.reference_voxels = 2, .predicted_voxels = 2, .common_voxels = 1});
        RETURN_IF_ERROR(
            session_->SubmitScores(study_name_, asked->kind, {.cases = {scored}}, stop));
      }
      done = asked;
    }
  }

  absl::Status TakeRound(const SiteAssignment& asked, const std::stop_token& stop) {
    const auto nobody = [](std::int64_t, std::int64_t) {};
    const fs::path model = folder_ / "model.safetensors";
    const fs::path sent = folder_ / "update.safetensors";
    fs::remove(model);
    const steady_clock::time_point start = steady_clock::now();
    RETURN_IF_ERROR(session_->DownloadModel(study_name_, asked.model_digest, asked.model_bytes,
                                            model, nobody, stop));
    const double downloaded = SecondsSince(start);
    RoundUpdate update;
    update.study = study_name_;
    update.round = asked.round;
    update.training_cases = kTrainingCases;
    update.steps = 1;
    ASSIGN_OR_RETURN(update.weights_digest, WriteShifted(model, sent, asked.round));
    fs::remove(model);  // Before the disk writes what nobody reads again.
    const double calculated = SecondsSince(start);
    absl::Status submitted = absl::DataLossError("not uploaded yet");
    double uploaded = 0;
    while (absl::IsDataLoss(submitted)) {  // Also for a server that has lost them meanwhile.
      RETURN_IF_ERROR(session_->UploadWeights(study_name_, asked.round, update.weights_digest, sent,
                                              nobody, stop));
      uploaded = SecondsSince(start);
      submitted = session_->SubmitUpdate(update, stop);
    }
    RETURN_IF_ERROR(submitted);
    Print(fmt::format(R"({{"site": "{}", "round": {}, "downloaded": {:.4f}, "calculated": {:.4f}, )"
                      R"("uploaded": {:.4f}, "submitted": {:.4f}}})",
                      name_, asked.round, downloaded, calculated, uploaded, SecondsSince(start)));
    return absl::OkStatus();
  }

  // The model plus the shift, block by block. Not synced: a site's training would be worth it, this
  // is not. Answers with the SHA-256.
  absl::StatusOr<std::string> WriteShifted(const fs::path& model, const fs::path& sent,
                                           int round) const {
    ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(model));
    const std::unique_ptr<std::FILE, decltype(&std::fclose)> output(std::fopen(sent.c_str(), "wbe"),
                                                                    &std::fclose);
    if (output == nullptr) return absl::NotFoundError(fmt::format("cannot write {}", name_));
    std::setvbuf(output.get(), nullptr, _IONBF, 0);
    Sha256 sha256;
    bool written = true;
    const auto add = [&](std::string_view bytes) {
      sha256.Update(bytes);
      written = written && std::fwrite(bytes.data(), 1, bytes.size(), output.get()) == bytes.size();
    };
    add(EncodeSafetensorsHeader(file.shapes(), WeightsMetadataOf(*study_, round)));
    std::vector<float> buffer(kBlockValues);
    for (const auto& [name, shape] : file.shapes()) {
      const auto count = static_cast<std::size_t>(ElementCount(shape));
      for (std::size_t first = 0; first < count; first += kBlockValues) {
        const std::span<float> values =
            std::span(buffer).first(std::min(kBlockValues, count - first));
        RETURN_IF_ERROR(file.Read(name, static_cast<std::int64_t>(first), values));
        for (float& value : values) value += shift_;
        add({reinterpret_cast<const char*>(values.data()), values.size_bytes()});
      }
    }
    if (!written) return absl::ResourceExhaustedError(fmt::format("cannot write {}", name_));
    return std::move(sha256).Finish();
  }

  const std::string server_;
  const std::string study_name_;
  const std::string name_;
  const fs::path folder_;
  const float shift_;
  std::unique_ptr<FederationSession> session_;
  std::optional<Study> study_;
  Inbox inbox_;
};

absl::Status RunSites(const std::vector<std::string>& arguments, const std::stop_token& stop) {
  const int first = std::atoi(arguments[4].c_str());
  const int count = std::atoi(arguments[5].c_str());
  std::vector<absl::Status> outcomes(static_cast<std::size_t>(count));
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < count; ++i) {
      threads.emplace_back([&, i] {
        Site site(arguments[1], arguments[2], arguments[3], first + i);
        outcomes[static_cast<std::size_t>(i)] = site.Run(stop);
      });
    }
  }
  for (const absl::Status& outcome : outcomes) RETURN_IF_ERROR(outcome);
  return absl::OkStatus();
}

absl::Status Main(const std::vector<std::string>& arguments, const std::stop_token& stop) {
  if (arguments.size() == 3 && arguments[0] == "enrol") return Enrol(arguments[1], arguments[2]);
  if (arguments.size() == 6 && arguments[0] == "run") return RunSites(arguments, stop);
  return absl::InvalidArgumentError("see the top of exchange_site.cc");
}

}  // namespace
}  // namespace isoscan

int main(int argc, char** argv) {
  isoscan::PrepareForMessages();
  const std::stop_token stop = isoscan::StopOnInterrupt();
  isoscan::RequireTls13();
  isoscan::LogGrpcAsDebug();
  return isoscan::Report(isoscan::Main({argv + 1, argv + argc}, stop));
}
