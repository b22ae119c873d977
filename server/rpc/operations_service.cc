#include "server/rpc/operations_service.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>
#include <utility>

#include "common/status/status_macros.h"
#include "common/transfer/chunks.h"
#include "common/weights/sha256.h"
#include "server/fairness/report.h"
#include "server/rpc/messages.h"
#include "server/rpc/pulled_stream.h"
#include "server/rpc/unary_call.h"
#include "server/trust/invitation_token.h"

namespace isoscan {
namespace {

using StudyStream = WatchStream<v1::StudyState>;

constexpr std::int64_t kLongestInvitationSeconds = std::int64_t{90} * 24 * 3600;

/// The report in pieces: all of the page, then all of its twin.
class ReportPieces {
 public:
  using Render = std::function<absl::StatusOr<RenderedReport>()>;
  explicit ReportPieces(Render render) : render_(std::move(render)) {}

  absl::StatusOr<bool> operator()(v1::ReportPiece& piece) {
    if (!rendered_) {
      ASSIGN_OR_RETURN(report_, render_());
      rendered_ = true;
    }
    if (sent_ < report_.html.size()) {
      piece.set_html(report_.html.substr(sent_, kChunkBytes));
      sent_ += piece.html().size();
      return true;
    }
    const std::size_t sent_of_json = sent_ - report_.html.size();
    if (sent_of_json >= report_.json.size()) return false;
    piece.clear_html();
    piece.set_json(report_.json.substr(sent_of_json, kChunkBytes));
    sent_ += piece.json().size();
    return true;
  }

 private:
  Render render_;
  bool rendered_ = false;
  RenderedReport report_;
  std::size_t sent_ = 0;
};

/// A global model's file in chunks; the first one carries its digest.
class GlobalModelChunks {
 public:
  struct Located {
    std::filesystem::path path;
    std::string digest;
  };
  using Locate = std::function<absl::StatusOr<Located>()>;
  explicit GlobalModelChunks(Locate locate) : locate_(std::move(locate)) {}

  absl::StatusOr<bool> operator()(v1::GlobalModelChunk& chunk) {
    chunk.clear_digest();
    if (file_ == nullptr) {
      ASSIGN_OR_RETURN(const Located model, locate_());
      ASSIGN_OR_RETURN(ChunkedFile file, ChunkedFile::Open(model.path));
      file_ = std::make_shared<const ChunkedFile>(std::move(file));
      chunk.set_digest(model.digest);
    }
    RETURN_IF_ERROR(file_->Read(offset_, *chunk.mutable_data()));
    offset_ += static_cast<std::int64_t>(chunk.data().size());
    return !chunk.data().empty();
  }

 private:
  Locate locate_;
  std::shared_ptr<const ChunkedFile> file_;  // Shared, since a stream's source can be copied.
  std::int64_t offset_ = 0;
};

}  // namespace

OperationsService::OperationsService(Coordinator& coordinator, SiteRegistry& sites,
                                     const FederationService& federation,
                                     const Authority& authority, const Clock& clock,
                                     Executor& executor)
    : coordinator_(coordinator),
      sites_(sites),
      federation_(federation),
      authority_(authority),
      clock_(clock),
      executor_(executor),
      authentication_(sites),
      watches_(executor) {}

void OperationsService::EndStreams() {
  watches_.EndAll(absl::UnavailableError("the server is shutting down"));
}

grpc::ServerUnaryReactor* OperationsService::Serve(
    const char* method, grpc::CallbackServerContext& context,
    std::function<absl::Status(const std::string& name)> work, Executor::Lane lane) {
  return ServeUnaryCall(
      executor_, method, context,
      [this, &context, work = std::move(work)]() -> absl::Status {
        ASSIGN_OR_RETURN(const std::string name, authentication_.Operator(context));
        return work(name);
      },
      lane);
}

grpc::ServerUnaryReactor* OperationsService::InviteSite(grpc::CallbackServerContext* context,
                                                        const v1::InviteSiteRequest* request,
                                                        v1::InviteSiteResponse* response) {
  return Serve(
      "InviteSite", *context, [this, request, response](const std::string& name) -> absl::Status {
        if (request->valid_seconds() < 1 || request->valid_seconds() > kLongestInvitationSeconds) {
          return absl::InvalidArgumentError(
              fmt::format("an invitation may be valid from 1 to {} seconds, not {}",
                          kLongestInvitationSeconds, request->valid_seconds()));
        }
        ASSIGN_OR_RETURN(const std::string token, CreateInvitationToken());
        RETURN_IF_ERROR(
            sites_.Invite(request->site(), Sha256Of(token),
                          clock_.Now() + std::chrono::seconds(request->valid_seconds())));
        spdlog::info("site invited site={} operator={} valid_seconds={}", request->site(), name,
                     request->valid_seconds());
        response->set_token(token);
        response->set_authority_pem(authority_.certificate_pem());
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* OperationsService::ListSites(grpc::CallbackServerContext* context,
                                                       const v1::ListSitesRequest* /*request*/,
                                                       v1::ListSitesResponse* response) {
  return Serve("ListSites", *context, [this, response](const std::string&) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<RegisteredSite> sites, sites_.List());
    for (const RegisteredSite& site : sites) {
      v1::EnrolledSite& entry = *response->add_sites();
      entry.set_site(site.name);
      entry.set_state(WordOf(site.state));
      entry.set_connected(federation_.IsConnected(site.name));
      if (site.certificate_ends.has_value()) {
        entry.set_certificate_ends(
            std::chrono::floor<std::chrono::seconds>(site.certificate_ends->time_since_epoch())
                .count());
      }
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* OperationsService::CreateStudy(grpc::CallbackServerContext* context,
                                                         const v1::CreateStudyRequest* request,
                                                         v1::CreateStudyResponse* response) {
  return Serve(
      "CreateStudy", *context,
      [this, request, response](const std::string&) -> absl::Status {
        ASSIGN_OR_RETURN(const StudyStatus study, coordinator_.CreateStudy(request->toml()));
        response->set_name(study.name);
        response->set_digest(study.digest);
        return absl::OkStatus();
      },
      Executor::Lane::kSlow);
}

grpc::ServerUnaryReactor* OperationsService::Change(const char* method, StudyVerb verb,
                                                    grpc::CallbackServerContext& context,
                                                    const v1::StudyRequest& request,
                                                    v1::StudyState& response) {
  return Serve(
      method, context,
      [this, verb, &request, &response](const std::string&) -> absl::Status {
        ASSIGN_OR_RETURN(const StudyStatus study, (coordinator_.*verb)(request.study()));
        response = ToMessage(study);
        return absl::OkStatus();
      },
      Executor::Lane::kSlow);
}

grpc::ServerUnaryReactor* OperationsService::PlanStudy(grpc::CallbackServerContext* context,
                                                       const v1::StudyRequest* request,
                                                       v1::StudyState* response) {
  return Change("PlanStudy", &Coordinator::PlanStudy, *context, *request, *response);
}

grpc::ServerUnaryReactor* OperationsService::StartStudy(grpc::CallbackServerContext* context,
                                                        const v1::StudyRequest* request,
                                                        v1::StudyState* response) {
  return Change("StartStudy", &Coordinator::StartStudy, *context, *request, *response);
}

grpc::ServerUnaryReactor* OperationsService::PauseStudy(grpc::CallbackServerContext* context,
                                                        const v1::StudyRequest* request,
                                                        v1::StudyState* response) {
  return Change("PauseStudy", &Coordinator::PauseStudy, *context, *request, *response);
}

grpc::ServerUnaryReactor* OperationsService::ResumeStudy(grpc::CallbackServerContext* context,
                                                         const v1::StudyRequest* request,
                                                         v1::StudyState* response) {
  return Change("ResumeStudy", &Coordinator::ResumeStudy, *context, *request, *response);
}

grpc::ServerUnaryReactor* OperationsService::StopStudy(grpc::CallbackServerContext* context,
                                                       const v1::StudyRequest* request,
                                                       v1::StudyState* response) {
  return Change("StopStudy", &Coordinator::StopStudy, *context, *request, *response);
}

grpc::ServerUnaryReactor* OperationsService::ListOperatorStudies(
    grpc::CallbackServerContext* context, const v1::ListOperatorStudiesRequest* /*request*/,
    v1::ListOperatorStudiesResponse* response) {
  return Serve("ListOperatorStudies", *context, [this, response](const std::string&) {
    for (const StudyStatus& study : coordinator_.Studies()) {
      *response->add_studies() = ToMessage(study);
    }
    return absl::OkStatus();
  });
}

grpc::ServerWriteReactor<v1::StudyState>* OperationsService::WatchStudy(
    grpc::CallbackServerContext* context, const v1::StudyRequest* request) {
  return StudyStream::Start(
      executor_, "WatchStudy", *context,
      {.opened = [this, context](const std::shared_ptr<StudyStream>& stream) -> absl::Status {
         RETURN_IF_ERROR(authentication_.Operator(*context).status());
         // Any number of operators may watch: the key only has to be the stream's own.
         return watches_.Put(fmt::format("{}", fmt::ptr(stream.get())), stream).status();
       },
       .closed = [this](const StudyStream* stream) { watches_.Remove(stream); }},
      [this, study = request->study()]() -> absl::StatusOr<StudyStream::View> {
        ASSIGN_OR_RETURN(const StudyStatus status, coordinator_.Status(study));
        return StudyStream::View{.message = ToMessage(status), .last = IsOver(status.phase)};
      });
}

grpc::ServerWriteReactor<v1::ReportPiece>* OperationsService::GetReport(
    grpc::CallbackServerContext* context, const v1::StudyRequest* request) {
  const auto render = [this, context, request]() -> absl::StatusOr<RenderedReport> {
    RETURN_IF_ERROR(authentication_.Operator(*context).status());
    ASSIGN_OR_RETURN(const StudyRecord record, coordinator_.Record(request->study()));
    return RenderReport(record);
  };
  return PulledStream<v1::ReportPiece>::Start(
      executor_, "GetReport", *context, ReportPieces(render), {.lane = Executor::Lane::kSlow});
}

grpc::ServerUnaryReactor* OperationsService::ListModels(grpc::CallbackServerContext* context,
                                                        const v1::StudyRequest* request,
                                                        v1::ListModelsResponse* response) {
  return Serve("ListModels", *context,
               [this, request, response](const std::string&) -> absl::Status {
                 ASSIGN_OR_RETURN(const std::vector<GlobalModelRecord> models,
                                  coordinator_.Models(request->study()));
                 for (const GlobalModelRecord& model : models) {
                   *response->add_models() = ToMessage(model);
                 }
                 return absl::OkStatus();
               });
}

grpc::ServerUnaryReactor* OperationsService::GetBestModel(grpc::CallbackServerContext* context,
                                                          const v1::StudyRequest* request,
                                                          v1::BestModelResponse* response) {
  return Serve(
      "GetBestModel", *context,
      [this, request, response](const std::string&) -> absl::Status {
        ASSIGN_OR_RETURN(const BestModel best, coordinator_.Best(request->study()));
        *response->mutable_model() = ToMessage(best.model);
        response->set_by(std::string(ToString(best.rule)));
        response->set_score(best.score);
        for (const std::string& site : best.ranking.judges) response->add_judges(site);
        response->set_models(static_cast<int>(best.ranking.models.size()));
        return absl::OkStatus();
      },
      Executor::Lane::kSlow);
}

grpc::ServerWriteReactor<v1::GlobalModelChunk>* OperationsService::DownloadGlobalModel(
    grpc::CallbackServerContext* context, const v1::DownloadGlobalModelRequest* request) {
  const auto locate = [this, context, request]() -> absl::StatusOr<GlobalModelChunks::Located> {
    RETURN_IF_ERROR(authentication_.Operator(*context).status());
    GlobalModelChunks::Located model;
    ASSIGN_OR_RETURN(model.path, coordinator_.ModelOfRound(request->study(), request->round()));
    ASSIGN_OR_RETURN(const std::vector<GlobalModelRecord> models,
                     coordinator_.Models(request->study()));
    for (const GlobalModelRecord& record : models) {
      if (record.round == request->round()) model.digest = record.digest;
    }
    return model;
  };
  return PulledStream<v1::GlobalModelChunk>::Start(executor_, "DownloadGlobalModel", *context,
                                                   GlobalModelChunks(locate), {});
}

}  // namespace isoscan
