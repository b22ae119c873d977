#include "server/rpc/federation_service.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include "common/status/status_macros.h"
#include "common/transfer/chunks.h"
#include "common/version.h"
#include "common/weights/block_sums.h"
#include "common/weights/sha256.h"
#include "server/rpc/messages.h"
#include "server/rpc/pulled_stream.h"
#include "server/rpc/refusal.h"
#include "server/rpc/unary_call.h"
#include "server/rpc/upload_stream.h"

namespace isoscan {
namespace {

constexpr std::size_t kLargestSigningRequest = 16 * 1024;

// What takes no time anyway does not wait for what does.
constexpr std::int64_t kLargeDownload = 4 * 1024 * 1024;
constexpr int kLargeDownloadsAtOnce = 3;
constexpr std::chrono::seconds kPatience{1};

/// `program` is empty where the message does not tell it.
absl::Status CheckVersion(int protocol_version, const std::string& program_version) {
  if (protocol_version == kProtocolVersion) return absl::OkStatus();
  return absl::UnimplementedError(fmt::format(
      "isoscan-client{}{} speaks protocol version {}, isoscan-server {} speaks {}: update the {}",
      program_version.empty() ? "" : " ", program_version, protocol_version, kVersion,
      kProtocolVersion, protocol_version < kProtocolVersion ? "client at this site" : "server"));
}

/// The chunks of a model from `offset` on. It is located when the first one is wanted. What does
/// not fit its block sums is not sent: the model has been damaged on this server's disk.
class ModelChunks {
 public:
  struct Located {
    std::string site;
    std::filesystem::path path;
  };
  using Locate = std::function<absl::StatusOr<Located>()>;
  ModelChunks(Coordinator& coordinator, Locate locate, const v1::DownloadModelRequest& request)
      : signs_(coordinator), locate_(std::move(locate)), request_(request) {}

  /// Not all of them are sent yet. Once the first chunk is known.
  std::int64_t missing_bytes() const { return sums_.bytes() - offset_; }

  /// Kept until the stream ends.
  void Hold(TransferGate::Pass pass) { pass_ = std::move(pass); }

  absl::StatusOr<bool> Next(v1::ModelChunk& chunk) {
    if (!file_.has_value()) {
      ASSIGN_OR_RETURN(Located located, locate_());
      absl::StatusOr<BlockSums> sums = BlockSumsOf(located.path, request_.model_digest());
      if (!sums.ok()) return Trouble(sums.status());
      absl::StatusOr<ChunkedFile> file = ChunkedFile::Open(located.path);
      if (!file.ok()) return Trouble(file.status());
      signs_.Begin(std::move(located.site), request_.study());
      file_ = *std::move(file);
      sums_ = *std::move(sums);
      offset_ = request_.offset();
    }
    if (offset_ < 0) {
      return absl::InvalidArgumentError(fmt::format("a model has no byte {}", offset_));
    }
    if (offset_ >= sums_.bytes()) return false;
    // From the start of a block on, where a reader's own offset is within one.
    const std::int64_t skipped = offset_ % BlockSums::kBlockBytes;
    std::string& bytes = *chunk.mutable_data();
    const absl::Status read = file_->Read(offset_ - skipped, bytes);
    if (!read.ok()) return Trouble(read);
    if (bytes.empty() || !sums_.Match(offset_ - skipped, bytes)) {
      return Trouble(
          absl::DataLossError(fmt::format("it is damaged between bytes {} and {}",
                                          offset_ - skipped, offset_ - skipped + kChunkSize)));
    }
    signs_.Note();
    bytes.erase(0, static_cast<std::size_t>(skipped));
    chunk.set_offset(offset_);
    offset_ += static_cast<std::int64_t>(bytes.size());
    return true;
  }

 private:
  static constexpr auto kChunkSize = static_cast<std::int64_t>(kChunkBytes);
  static_assert(kChunkSize % BlockSums::kBlockBytes == 0);

  /// Sites are told to wait; the coordinator's log says what is to be done.
  absl::Status Trouble(const absl::Status& status) const {
    spdlog::error(
        "model damaged study={} model={} reason=\"{}\" action=\"put the file back from a backup; "
        "sites wait for it\"",
        request_.study(), request_.model_digest(), std::string(status.message()));
    return FileTrouble(status);
  }

  TransferSigns signs_;
  Locate locate_;
  const v1::DownloadModelRequest& request_;
  std::optional<ChunkedFile> file_;
  BlockSums sums_;
  std::int64_t offset_ = 0;
  TransferGate::Pass pass_;
};

}  // namespace

FederationService::FederationService(Coordinator& coordinator, SiteRegistry& sites,
                                     const Authority& authority, const Clock& clock,
                                     Executor& executor)
    : coordinator_(coordinator),
      sites_(sites),
      authority_(authority),
      clock_(clock),
      executor_(executor),
      authentication_(sites),
      downloads_(executor, kLargeDownloadsAtOnce, kPatience),
      watches_(executor) {}

void FederationService::EndStreams() {
  watches_.EndAll(absl::UnavailableError("the server is shutting down"));
}

grpc::ServerUnaryReactor* FederationService::Serve(
    const char* method, grpc::CallbackServerContext& context,
    std::function<absl::Status(const std::string& site)> work, Executor::Lane lane) {
  return ServeUnaryCall(
      executor_, method, context,
      [this, &context, work = std::move(work)]() -> absl::Status {
        ASSIGN_OR_RETURN(const std::string site, authentication_.Site(context));
        return work(site);
      },
      lane);
}

grpc::ServerUnaryReactor* FederationService::Enrol(grpc::CallbackServerContext* context,
                                                   const v1::EnrolRequest* request,
                                                   v1::EnrolResponse* response) {
  return ServeUnaryCall(executor_, "Enrol", *context,
                        [this, request, response] { return SignCertificate(*request, *response); });
}

absl::Status FederationService::SignCertificate(const v1::EnrolRequest& request,
                                                v1::EnrolResponse& response) {
  // Anybody may call: no more work for them than a site's own request makes.
  if (request.signing_request_pem().size() > kLargestSigningRequest) {
    return absl::InvalidArgumentError(
        fmt::format("the signing request has {} bytes, at most {} are allowed",
                    request.signing_request_pem().size(), kLargestSigningRequest));
  }
  ASSIGN_OR_RETURN(const Identity identity, RequestedIdentity(request.signing_request_pem()));
  if (identity.role != Identity::Role::kSite) {
    return absl::PermissionDeniedError(
        fmt::format("an invitation is for a site; the signing request is for {}", ToUri(identity)));
  }
  const std::string& site = identity.name;
  const Time now = clock_.Now();
  // Signed first, and handed out last: an error on the way must not use up the invitation. When the
  // answer is lost, the site asks again with the same key and gets another certificate.
  ASSIGN_OR_RETURN(const SignedCertificate certificate,
                   authority_.SignSite(request.signing_request_pem(), site, now));
  const absl::Status redeemed = sites_.Redeem(Sha256Of(request.token()), site,
                                              {.fingerprint = certificate.fingerprint,
                                               .key_sha256 = certificate.key_sha256,
                                               .ends = certificate.ends},
                                              now);
  if (absl::IsPermissionDenied(redeemed)) return redeemed;
  RETURN_IF_ERROR(JournalTrouble(redeemed));
  spdlog::info("site enrolled site={} fingerprint={}", site, certificate.fingerprint);
  response.set_certificate_pem(certificate.pem);
  response.set_authority_pem(authority_.certificate_pem());
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* FederationService::Hello(grpc::CallbackServerContext* context,
                                                   const v1::HelloRequest* request,
                                                   v1::HelloResponse* response) {
  return Serve("Hello", *context, [request, response](const std::string& site) -> absl::Status {
    RETURN_IF_ERROR(CheckVersion(request->protocol_version(), request->program_version()));
    response->set_protocol_version(kProtocolVersion);
    response->set_program_version(kVersion);
    response->set_site(site);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* FederationService::ListStudies(grpc::CallbackServerContext* context,
                                                         const v1::ListStudiesRequest* /*request*/,
                                                         v1::ListStudiesResponse* response) {
  return Serve("ListStudies", *context, [this, response](const std::string& site) {
    for (const StudyStatus& study : coordinator_.StudiesOf(site)) {
      *response->add_studies() = ToMessage(study);
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* FederationService::ApproveStudy(grpc::CallbackServerContext* context,
                                                          const v1::ApproveStudyRequest* request,
                                                          v1::ApproveStudyResponse* /*response*/) {
  return Serve("ApproveStudy", *context, [this, request](const std::string& site) -> absl::Status {
    ASSIGN_OR_RETURN(const SiteRecord cohort, FromMessage(site, request->cohort()));
    return coordinator_.Approve(site, request->study(), request->digest(), cohort);
  });
}

grpc::ServerUnaryReactor* FederationService::WithdrawFromStudy(grpc::CallbackServerContext* context,
                                                               const v1::WithdrawRequest* request,
                                                               v1::WithdrawResponse* /*response*/) {
  return Serve("WithdrawFromStudy", *context, [this, request](const std::string& site) {
    return coordinator_.Withdraw(site, request->study());
  });
}

grpc::ServerWriteReactor<v1::Assignments>* FederationService::WatchAssignments(
    grpc::CallbackServerContext* context, const v1::WatchRequest* request) {
  // Known once the stream is open, and not changed after.
  const auto site = std::make_shared<std::string>();
  return AssignmentStream::Start(
      executor_, "WatchAssignments", *context,
      {.opened = [this, site, context,
                  request](const std::shared_ptr<AssignmentStream>& stream) -> absl::Status {
         ASSIGN_OR_RETURN(*site, authentication_.Site(*context));
         RETURN_IF_ERROR(CheckVersion(request->protocol_version(), ""));
         return Connect(*site, stream);
       },
       .closed = [this](const AssignmentStream* stream) { Disconnect(stream); }},
      [this, site]() -> absl::StatusOr<AssignmentStream::View> {
        return AssignmentStream::View{.message = ToMessage(coordinator_.AssignmentsOf(*site)),
                                      .last = false};
      });
}

absl::Status FederationService::Connect(const std::string& site,
                                        const std::shared_ptr<AssignmentStream>& stream) {
  std::shared_ptr<AssignmentStream> former;
  {
    const absl::MutexLock lock(&connecting_);
    ASSIGN_OR_RETURN(former, watches_.Put(site, stream));
    coordinator_.SetConnected(site, true);
  }
  spdlog::info("site connected site={}", site);
  if (former != nullptr) {
    former->End(absl::AbortedError(fmt::format(
        "{} has opened the assignment stream again: only its latest client is served", site)));
  }
  return absl::OkStatus();
}

void FederationService::Disconnect(const AssignmentStream* stream) {
  std::string site;
  {
    const absl::MutexLock lock(&connecting_);
    site = watches_.Remove(stream);
    if (site.empty()) return;  // A later stream of the site took over, or none was let in.
    coordinator_.SetConnected(site, false);
  }
  spdlog::info("site disconnected site={}", site);
}

grpc::ServerWriteReactor<v1::ModelChunk>* FederationService::DownloadModel(
    grpc::CallbackServerContext* context, const v1::DownloadModelRequest* request) {
  const auto locate = [this, context, request]() -> absl::StatusOr<ModelChunks::Located> {
    ASSIGN_OR_RETURN(std::string site, authentication_.Site(*context));
    ASSIGN_OR_RETURN(std::filesystem::path path,
                     coordinator_.Model(site, request->study(), request->model_digest()));
    return ModelChunks::Located{.site = std::move(site), .path = std::move(path)};
  };
  const auto chunks = std::make_shared<ModelChunks>(coordinator_, locate, *request);
  return PulledStream<v1::ModelChunk>::Start(
      executor_, "DownloadModel", *context,
      [chunks](v1::ModelChunk& chunk) { return chunks->Next(chunk); },
      {.admit = [this, chunks](std::function<void()> go) {
        if (chunks->missing_bytes() < kLargeDownload) return go();
        downloads_.Enter([chunks, go = std::move(go)](TransferGate::Pass pass) {
          chunks->Hold(std::move(pass));
          go();
        });
      }});
}

grpc::ServerUnaryReactor* FederationService::BeginUpload(grpc::CallbackServerContext* context,
                                                         const v1::BeginUploadRequest* request,
                                                         v1::BeginUploadResponse* response) {
  // Of what a killed server had received whole, this goes through the file.
  return Serve(
      "BeginUpload", *context,
      [this, request, response](const std::string& site) -> absl::Status {
        ASSIGN_OR_RETURN(
            const std::filesystem::path path,
            coordinator_.UploadPath(site, request->study(), request->round(),
                                    request->weights_digest(), request->weights_bytes()));
        ASSIGN_OR_RETURN(const std::int64_t offset,
                         uploads_.Announce(site, request->study(), path, request->weights_bytes(),
                                           request->weights_digest()));
        response->set_offset(offset);
        return absl::OkStatus();
      },
      Executor::Lane::kSlow);
}

grpc::ServerReadReactor<v1::UploadChunk>* FederationService::Upload(
    grpc::CallbackServerContext* context, v1::UploadResponse* /*response*/) {
  return UploadStream::Start(executor_, *context, authentication_, uploads_, coordinator_);
}

grpc::ServerUnaryReactor* FederationService::SubmitUpdate(grpc::CallbackServerContext* context,
                                                          const v1::SubmitUpdateRequest* request,
                                                          v1::SubmitUpdateResponse* /*response*/) {
  return Serve(
      "SubmitUpdate", *context,
      [this, request](const std::string& site) {
        return coordinator_.SubmitUpdate(site, FromMessage(*request));
      },
      Executor::Lane::kSlow);
}

grpc::ServerUnaryReactor* FederationService::SubmitScores(grpc::CallbackServerContext* context,
                                                          const v1::SubmitScoresRequest* request,
                                                          v1::SubmitScoresResponse* /*response*/) {
  return Serve("SubmitScores", *context, [this, request](const std::string& site) -> absl::Status {
    ASSIGN_OR_RETURN(const Assignment::Kind kind, ScoredKind(request->kind()));
    std::optional<InvarianceCertificate> certificate;
    if (request->has_certificate()) {
      ASSIGN_OR_RETURN(certificate, FromMessage(request->certificate()));
    }
    return coordinator_.SubmitScores(site, request->study(), kind, FromMessage(request->scores()),
                                     certificate, FromMessage(request->personal()));
  });
}

grpc::ServerUnaryReactor* FederationService::ReportProgress(grpc::CallbackServerContext* context,
                                                            const v1::ProgressRequest* request,
                                                            v1::ProgressResponse* /*response*/) {
  return Serve("ReportProgress", *context, [this, request](const std::string& site) {
    return coordinator_.ReportProgress(site, request->study(), request->round(),
                                       request->activity(), request->step(), request->steps());
  });
}

}  // namespace isoscan
