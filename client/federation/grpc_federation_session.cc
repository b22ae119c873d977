#include "client/federation/grpc_federation_session.h"

#include <fmt/format.h>
#include <grpcpp/client_context.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <random>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "client/federation/channel.h"
#include "client/federation/connection_failure.h"
#include "client/federation/messages.h"
#include "common/process/fault_point.h"
#include "common/status/grpc_status.h"
#include "common/status/printable.h"
#include "common/status/status_macros.h"
#include "common/transfer/chunks.h"
#include "common/version.h"
#include "proto/federation.grpc.pb.h"

namespace isoscan {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr seconds kAnswerLimit{60};
/// The server screens every number of an update before it answers.
constexpr seconds kSubmitLimit{600};
constexpr int kBrokenTransfers = 3;

/// One call under way, which `stop` ends. Without a limit it lasts as long as the connection, whose
/// death the keepalive finds out.
class Call {
 public:
  Call(const std::stop_token& stop, std::optional<seconds> limit)
      : cancel_(stop, Cancel{&context_}) {
    if (limit.has_value()) context_.set_deadline(std::chrono::system_clock::now() + *limit);
  }

  grpc::ClientContext* context() { return &context_; }

 private:
  struct Cancel {
    grpc::ClientContext* context;
    void operator()() const { context->TryCancel(); }
  };
  grpc::ClientContext context_;
  std::stop_callback<Cancel> cancel_;
};

class GrpcFederationSession final : public FederationSession {
 public:
  GrpcFederationSession(std::string server, const TlsFiles& files, const RetryPolicy& policy)
      : server_(std::move(server)),
        policy_(policy),
        channel_(DialServer(server_, files)),
        stub_(v1::Federation::NewStub(channel_)) {}

  absl::StatusOr<ServerGreeting> Hello(std::stop_token stop) override {
    v1::HelloRequest request;
    request.set_protocol_version(kProtocolVersion);
    request.set_program_version(kVersion);
    v1::HelloResponse response;
    RETURN_IF_ERROR(Ask(&v1::Federation::Stub::Hello, request, &response, stop));
    if (response.protocol_version() != kProtocolVersion) {
      return absl::UnimplementedError(fmt::format(
          "server {} is isoscan {} with protocol {}, this client is {} with protocol {}; update {}",
          server_, Printable(response.program_version()), response.protocol_version(), kVersion,
          kProtocolVersion,
          response.protocol_version() > kProtocolVersion ? "isoscan-client" : "isoscan-server"));
    }
    return ServerGreeting{.protocol_version = response.protocol_version(),
                          .program_version = Printable(response.program_version()),
                          .site = Printable(response.site())};
  }

  absl::StatusOr<std::vector<OfferedStudy>> Studies(std::stop_token stop) override {
    v1::ListStudiesResponse response;
    RETURN_IF_ERROR(
        Ask(&v1::Federation::Stub::ListStudies, v1::ListStudiesRequest(), &response, stop));
    std::vector<OfferedStudy> studies;
    for (const v1::StudyState& study : response.studies())
      studies.push_back(OfferedStudyFrom(study));
    return studies;
  }

  absl::Status Approve(const std::string& study, const std::string& digest,
                       const CohortDeclaration& cohort, std::stop_token stop) override {
    v1::ApproveStudyRequest request;
    request.set_study(study);
    request.set_digest(digest);
    *request.mutable_cohort() = ToMessage(cohort);
    v1::ApproveStudyResponse response;
    return Ask(&v1::Federation::Stub::ApproveStudy, request, &response, stop);
  }

  absl::Status Withdraw(const std::string& study, std::stop_token stop) override {
    v1::WithdrawRequest request;
    request.set_study(study);
    v1::WithdrawResponse response;
    return Ask(&v1::Federation::Stub::WithdrawFromStudy, request, &response, stop);
  }

  absl::Status Watch(const AssignmentObserver& observe, std::stop_token stop) override {
    RandomStream random(std::random_device{}(), "watch");
    while (true) {
      absl::Status ended;
      bool heard = false;
      // A stream that worked before it broke starts the series of tries afresh, and ABORTED
      // (another client of this site) is the one passing error that a new try would bring back.
      RETURN_IF_ERROR(Retry(
          policy_, stop,
          [&] {
            ended = WatchOnce(observe, stop, &heard);
            return heard || absl::IsAborted(ended) ? absl::OkStatus() : ended;
          },
          [this](const absl::Status& outcome) {
            if (!outcome.ok()) Note(outcome);
          },
          pause_));
      if (absl::IsAborted(ended)) {
        return absl::AbortedError(
            "another client of this site has connected to the server, which serves one only; stop "
            "one of the two");
      }
      if (policy_.tries.has_value()) return ended;
      if (!pause_(DelayAfter(policy_, 1, random), stop)) {
        return absl::CancelledError("interrupted");
      }
    }
  }

  absl::Status DownloadModel(const std::string& study, const std::string& digest,
                             std::int64_t bytes, const std::filesystem::path& path,
                             const TransferObserver& observe, std::stop_token stop) override {
    absl::Status local;
    RETURN_IF_ERROR(Try(stop, [&] {
      // What goes wrong on this site's disk is not for the retry policy.
      return DownloadOnce(study, digest, bytes, path, observe, stop, &local);
    }));
    // NOT_FOUND is the server's word for a model that it does not have.
    return absl::IsNotFound(local) ? absl::DataLossError(local.message()) : local;
  }

  absl::Status UploadWeights(const std::string& study, int round, const std::string& digest,
                             const std::filesystem::path& path, const TransferObserver& observe,
                             std::stop_token stop) override {
    std::error_code error;
    const std::uintmax_t bytes = std::filesystem::file_size(path, error);
    if (error) {
      return absl::NotFoundError(fmt::format("{}: {}", path.string(), error.message()));
    }
    v1::BeginUploadRequest announcement;
    announcement.set_study(study);
    announcement.set_round(round);
    announcement.set_weights_digest(digest);
    announcement.set_weights_bytes(static_cast<std::int64_t>(bytes));
    absl::Status outcome;
    for (int broken = 0; broken < kBrokenTransfers; ++broken) {
      absl::Status local;
      outcome = Try(stop, [&] { return UploadOnce(announcement, path, observe, stop, &local); });
      RETURN_IF_ERROR(local);
      if (!absl::IsDataLoss(outcome)) return outcome;
    }
    return outcome;
  }

  absl::Status SubmitUpdate(const RoundUpdate& update, std::stop_token stop) override {
    v1::SubmitUpdateResponse response;
    return Ask(&v1::Federation::Stub::SubmitUpdate, ToMessage(update), &response, stop,
               kSubmitLimit);
  }

  absl::Status SubmitScores(const std::string& study, SiteAssignment::Kind kind,
                            const SiteScores& scores, std::stop_token stop) override {
    v1::SubmitScoresRequest request;
    request.set_study(study);
    request.set_kind(ToMessage(kind));
    *request.mutable_scores() = ToMessage(scores.cases);
    if (!scores.personal.empty()) *request.mutable_personal() = ToMessage(scores.personal);
    if (scores.certificate.has_value()) {
      *request.mutable_certificate() = ToMessage(*scores.certificate);
    }
    v1::SubmitScoresResponse response;
    return Ask(&v1::Federation::Stub::SubmitScores, request, &response, stop);
  }

  absl::Status ReportProgress(const WorkProgress& progress, std::stop_token stop) override {
    v1::ProgressRequest request;
    request.set_study(progress.study);
    request.set_round(progress.round);
    request.set_activity(progress.activity);
    request.set_step(progress.step);
    request.set_steps(progress.steps);
    v1::ProgressResponse response;
    Call call(stop, seconds(10));
    return Outcome(stub_->ReportProgress(call.context(), request, &response), stop);
  }

 private:
  template <typename Request, typename Response>
  using Method = grpc::Status (v1::Federation::Stub::*)(grpc::ClientContext*, const Request&,
                                                        Response*);

  template <typename Request, typename Response>
  absl::Status Ask(Method<Request, Response> method, const Request& request, Response* response,
                   const std::stop_token& stop, seconds limit = kAnswerLimit) {
    return Try(stop, [&] {
      Call call(stop, limit);
      return Outcome((*stub_.*method)(call.context(), request, response), stop);
    });
  }

  absl::Status Try(const std::stop_token& stop, const std::function<absl::Status()>& attempt) {
    return Retry(
        policy_, stop, attempt, [this](const absl::Status& outcome) { Note(outcome); }, pause_);
  }

  /// Waits, but no longer than until a lost connection is back. gRPC 1.51 moves a handshake on only
  /// while something waits on the channel (or every five seconds, and gives it up after ten): a
  /// pause that merely slept could go on for ever beside a server that has long been back.
  bool PauseUntilConnected(std::chrono::milliseconds delay, const std::stop_token& stop) const {
    constexpr std::chrono::milliseconds kStopLatency{100};
    const auto end = steady_clock::now() + delay;
    grpc_connectivity_state state = channel_->GetState(/*try_to_connect=*/true);
    // The server itself asked for patience.
    if (state == GRPC_CHANNEL_READY) return WaitFor(delay, stop);
    // A peer that takes the connection and drops each call must not be tried without a pause.
    if (!WaitFor(std::min(delay, kStopLatency), stop)) return false;
    while (state != GRPC_CHANNEL_READY && !stop.stop_requested() && steady_clock::now() < end) {
      channel_->WaitForStateChange(state, std::chrono::system_clock::now() + kStopLatency);
      state = channel_->GetState(/*try_to_connect=*/true);
    }
    return !stop.stop_requested();
  }

  /// gRPC's answer as the rest of the client understands it.
  absl::Status Outcome(const grpc::Status& answer, const std::stop_token& stop) const {
    absl::Status status = FromGrpcStatus(answer);
    const std::string_view words(status.message().data(), status.message().size());
    // A server that shuts down cancels its calls, and a broken stream shows as a reset: neither was
    // asked for from here, and both pass.
    const bool cut = (absl::IsCancelled(status) && !stop.stop_requested()) ||
                     words.find("RST_STREAM") != std::string_view::npos ||
                     words.find("Stream removed") != std::string_view::npos;
    if (cut) {
      return absl::UnavailableError(fmt::format("server {} ended the call: {}", server_, words));
    }
    return ExplainConnectionFailure(status, server_);
  }

  absl::Status WatchOnce(const AssignmentObserver& observe, const std::stop_token& stop,
                         bool* heard) {
    Call call(stop, std::nullopt);
    v1::WatchRequest request;
    request.set_protocol_version(kProtocolVersion);
    const auto stream = stub_->WatchAssignments(call.context(), request);
    absl::Status misunderstood;
    v1::Assignments message;
    while (misunderstood.ok() && stream->Read(&message)) {
      *heard = true;
      Note(absl::OkStatus());
      std::vector<SiteAssignment> assignments;
      for (const v1::Assignment& entry : message.assignments()) {
        absl::StatusOr<SiteAssignment> assignment = SiteAssignmentFrom(entry);
        if (!assignment.ok()) {
          misunderstood = assignment.status();
          *heard = false;
          call.context()->TryCancel();
          break;
        }
        assignments.push_back(*std::move(assignment));
      }
      if (misunderstood.ok()) observe(std::move(assignments));
    }
    absl::Status ended = Outcome(stream->Finish(), stop);
    if (!misunderstood.ok()) return misunderstood;
    if (ended.ok()) {
      ended = absl::UnavailableError(fmt::format("server {} ended the stream", server_));
    }
    if (*heard && !stop.stop_requested()) Note(ended);
    return ended;
  }

  absl::Status DownloadOnce(const std::string& study, const std::string& digest, std::int64_t bytes,
                            const std::filesystem::path& path, const TransferObserver& observe,
                            const std::stop_token& stop, absl::Status* local) {
    // It can be fetched again: whoever uses it checks the digest, and nobody waits for the disk.
    absl::StatusOr<PartialFile> file = PartialFile::Open(path, bytes, digest, {.durable = false});
    *local = file.status();
    if (!local->ok()) return absl::OkStatus();
    if (file->offset() < bytes) {
      Call call(stop, std::nullopt);
      v1::DownloadModelRequest request;
      request.set_study(study);
      request.set_model_digest(digest);
      request.set_offset(file->offset());
      const auto stream = stub_->DownloadModel(call.context(), request);
      v1::ModelChunk chunk;
      ISOSCAN_FAULT_POINT("download.asked");
      while (local->ok() && stream->Read(&chunk)) {
        ISOSCAN_FAULT_POINT("download.chunk");
        *local = file->Append(chunk.offset(), chunk.data());
        observe(file->offset(), bytes);
      }
      if (!local->ok()) call.context()->TryCancel();
      const absl::Status ended = Outcome(stream->Finish(), stop);
      if (!local->ok()) return absl::OkStatus();
      RETURN_IF_ERROR(ended);
      if (file->offset() < bytes) {
        return absl::UnavailableError(fmt::format("server {} sent {} of {} bytes of a model",
                                                  server_, file->offset(), bytes));
      }
    }
    *local = file->Finish();
    if (!absl::IsDataLoss(*local)) return absl::OkStatus();
    // Nothing of it was kept. The coordinator can mend it, and meanwhile there is nothing to do
    // here.
    const absl::Status damaged = absl::UnavailableError(
        fmt::format("server {} has a damaged model for study {}: {}; tell the coordinator", server_,
                    study, std::string(local->message())));
    *local = absl::OkStatus();
    return damaged;
  }

  absl::Status UploadOnce(const v1::BeginUploadRequest& announcement,
                          const std::filesystem::path& path, const TransferObserver& observe,
                          const std::stop_token& stop, absl::Status* local) {
    v1::BeginUploadResponse wanted;
    {
      Call call(stop, kAnswerLimit);
      RETURN_IF_ERROR(Outcome(stub_->BeginUpload(call.context(), announcement, &wanted), stop));
    }
    ISOSCAN_FAULT_POINT("upload.announced");
    if (wanted.offset() >= announcement.weights_bytes()) return absl::OkStatus();
    const absl::StatusOr<ChunkedFile> file = ChunkedFile::Open(path);
    *local = file.status();
    if (!local->ok()) return absl::OkStatus();
    Call call(stop, std::nullopt);
    v1::UploadResponse response;
    const auto stream = stub_->Upload(call.context(), &response);
    v1::UploadChunk chunk;
    chunk.set_study(announcement.study());
    chunk.set_weights_digest(announcement.weights_digest());
    for (std::int64_t offset = wanted.offset(); offset < announcement.weights_bytes();) {
      *local = file->Read(offset, *chunk.mutable_data());
      if (local->ok() && chunk.data().empty()) {
        *local =
            absl::DataLossError(fmt::format("{} became shorter while it was sent", path.string()));
      }
      if (!local->ok()) {
        call.context()->TryCancel();
        break;
      }
      chunk.set_offset(offset);
      offset += static_cast<std::int64_t>(chunk.data().size());
      if (!stream->Write(chunk)) break;  // Finish() tells why.
      chunk.clear_study();
      chunk.clear_weights_digest();
      observe(offset, announcement.weights_bytes());
      ISOSCAN_FAULT_POINT("upload.chunk");
    }
    stream->WritesDone();
    const absl::Status ended = Outcome(stream->Finish(), stop);
    ISOSCAN_FAULT_POINT("upload.ended");
    return local->ok() ? ended : absl::OkStatus();
  }

  /// One log line per change between connected and not.
  void Note(const absl::Status& outcome) ABSL_LOCKS_EXCLUDED(mutex_) {
    // Any other answer of the server's own shows that it can be reached, and works.
    const bool lost = absl::IsUnavailable(outcome) || absl::IsDeadlineExceeded(outcome) ||
                      absl::IsResourceExhausted(outcome);
    // A command that tries once reports the error itself.
    if (policy_.tries.has_value()) return;
    const absl::MutexLock lock(&mutex_);
    if (lost == lost_since_.has_value()) return;
    const steady_clock::time_point now = steady_clock::now();
    if (lost) {
      lost_since_ = now;
      spdlog::warn("server_lost reason=\"{}\" action=\"trying again until it is back\"",
                   std::string(outcome.message()));
      return;
    }
    const auto away = std::chrono::duration_cast<seconds>(now - *lost_since_);
    lost_since_.reset();
    spdlog::info("server_back seconds={}", away.count());
  }

  const std::string server_;
  const RetryPolicy policy_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Federation::Stub> stub_;
  const Pause pause_ = [this](std::chrono::milliseconds delay, const std::stop_token& stop) {
    return PauseUntilConnected(delay, stop);
  };
  absl::Mutex mutex_;
  std::optional<steady_clock::time_point> lost_since_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<FederationSession> ConnectOverGrpc(const std::string& server, const TlsFiles& files,
                                                   const RetryPolicy& policy) {
  return std::make_unique<GrpcFederationSession>(server, files, policy);
}

}  // namespace isoscan
