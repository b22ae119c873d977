#include "server/admin/operator_session.h"

#include <fmt/format.h>
#include <grpc/grpc.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/support/channel_arguments.h>
#include <grpcpp/support/sync_stream.h>

#include <chrono>
#include <cstdint>
#include <utility>

#include "common/status/grpc_status.h"
#include "common/status/status_macros.h"
#include "common/version.h"
#include "common/weights/atomic_file.h"
#include "common/weights/sha256.h"
#include "server/admin/connection_failure.h"

namespace isoscan {
namespace {

constexpr auto kAnswerTime = std::chrono::seconds(60);

std::shared_ptr<grpc::Channel> Dial(const OperatorConfig& config) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // gRPC would take even localhost to the proxy.
  const bool is_loopback =
      config.server.starts_with("localhost:") || config.server.starts_with("127.");
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, is_loopback ? 0 : 1);
  arguments.SetUserAgentPrefix(fmt::format("isoscan-admin/{}", kVersion));
  return grpc::CreateCustomChannel(config.server, ChannelCredentials(config.files), arguments);
}

v1::StudyRequest Named(const std::string& study) {
  v1::StudyRequest request;
  request.set_study(study);
  return request;
}

}  // namespace

OperatorSession::OperatorSession(const OperatorConfig& config, std::stop_token stop)
    : server_(config.server),
      stop_(std::move(stop)),
      stub_(v1::Operations::NewStub(Dial(config))) {}

absl::Status OperatorSession::Outcome(const grpc::Status& status) const {
  if (stop_.stop_requested()) return absl::CancelledError("interrupted");
  return ExplainOperatorConnection(FromGrpcStatus(status), server_);
}

template <typename Request, typename Response>
absl::StatusOr<Response> OperatorSession::Call(Method<Request, Response> method,
                                               const Request& request) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kAnswerTime);
  const std::stop_callback cancel(stop_, [&context] { context.TryCancel(); });
  Response response;
  RETURN_IF_ERROR(Outcome((stub_.get()->*method)(&context, request, &response)));
  return response;
}

absl::StatusOr<v1::InviteSiteResponse> OperatorSession::InviteSite(
    const v1::InviteSiteRequest& request) {
  return Call(&v1::Operations::Stub::InviteSite, request);
}

absl::StatusOr<v1::ListSitesResponse> OperatorSession::ListSites() {
  return Call(&v1::Operations::Stub::ListSites, v1::ListSitesRequest());
}

absl::StatusOr<v1::CreateStudyResponse> OperatorSession::CreateStudy(const std::string& toml) {
  v1::CreateStudyRequest request;
  request.set_toml(toml);
  return Call(&v1::Operations::Stub::CreateStudy, request);
}

absl::StatusOr<v1::StudyState> OperatorSession::PlanStudy(const std::string& study) {
  return Call(&v1::Operations::Stub::PlanStudy, Named(study));
}

absl::StatusOr<v1::StudyState> OperatorSession::StartStudy(const std::string& study) {
  return Call(&v1::Operations::Stub::StartStudy, Named(study));
}

absl::StatusOr<v1::StudyState> OperatorSession::PauseStudy(const std::string& study) {
  return Call(&v1::Operations::Stub::PauseStudy, Named(study));
}

absl::StatusOr<v1::StudyState> OperatorSession::ResumeStudy(const std::string& study) {
  return Call(&v1::Operations::Stub::ResumeStudy, Named(study));
}

absl::StatusOr<v1::StudyState> OperatorSession::StopStudy(const std::string& study) {
  return Call(&v1::Operations::Stub::StopStudy, Named(study));
}

absl::StatusOr<v1::ListOperatorStudiesResponse> OperatorSession::ListStudies() {
  return Call(&v1::Operations::Stub::ListOperatorStudies, v1::ListOperatorStudiesRequest());
}

absl::StatusOr<v1::ListModelsResponse> OperatorSession::ListModels(const std::string& study) {
  return Call(&v1::Operations::Stub::ListModels, Named(study));
}

absl::StatusOr<v1::BestModelResponse> OperatorSession::GetBestModel(const std::string& study) {
  return Call(&v1::Operations::Stub::GetBestModel, Named(study));
}

absl::Status OperatorSession::WatchStudy(const std::string& study,
                                         const std::function<void(const v1::StudyState&)>& seen) {
  grpc::ClientContext context;
  const std::stop_callback cancel(stop_, [&context] { context.TryCancel(); });
  const auto stream = stub_->WatchStudy(&context, Named(study));
  v1::StudyState state;
  while (stream->Read(&state)) seen(state);
  return Outcome(stream->Finish());
}

absl::StatusOr<OperatorSession::Report> OperatorSession::GetReport(const std::string& study) {
  grpc::ClientContext context;
  const std::stop_callback cancel(stop_, [&context] { context.TryCancel(); });
  const auto stream = stub_->GetReport(&context, Named(study));
  Report report;
  v1::ReportPiece piece;
  while (stream->Read(&piece)) {
    report.html += piece.html();
    report.json += piece.json();
  }
  RETURN_IF_ERROR(Outcome(stream->Finish()));
  return report;
}

absl::StatusOr<std::string> OperatorSession::DownloadModel(const std::string& study, int round,
                                                           const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  v1::DownloadGlobalModelRequest request;
  request.set_study(study);
  request.set_round(round);
  grpc::ClientContext context;
  const std::stop_callback cancel(stop_, [&context] { context.TryCancel(); });
  const auto stream = stub_->DownloadGlobalModel(&context, request);
  Sha256 hash;
  std::string announced;
  std::int64_t offset = 0;
  absl::Status written;
  v1::GlobalModelChunk chunk;
  while (written.ok() && stream->Read(&chunk)) {
    if (offset == 0) announced = chunk.digest();
    hash.Update(chunk.data());
    written = file.WriteAt(offset, chunk.data());
    offset += static_cast<std::int64_t>(chunk.data().size());
  }
  if (!written.ok()) {
    context.TryCancel();
    stream->Finish();
    return written;
  }
  RETURN_IF_ERROR(Outcome(stream->Finish()));
  const std::string digest = std::move(hash).Finish();
  if (digest != announced) {
    return absl::DataLossError(
        fmt::format("the model of round {} arrived with SHA-256 {}, the server announced {}; try "
                    "again, and if it stays so run isoscan-server check",
                    round, digest, announced));
  }
  RETURN_IF_ERROR(file.Commit());
  return digest;
}

}  // namespace isoscan
