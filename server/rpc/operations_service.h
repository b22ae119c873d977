#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock/clock.h"
#include "proto/operations.grpc.pb.h"
#include "server/rounds/coordinator.h"
#include "server/rpc/executor.h"
#include "server/rpc/federation_service.h"
#include "server/rpc/peer_authentication.h"
#include "server/rpc/watch_list.h"
#include "server/storage/site_registry.h"
#include "server/trust/authority.h"

namespace isoscan {

/// The coordinator's service (proto/operations.proto), for operators' certificates only. Like the
/// federation's service it converts and hands over; life and threads are the same.
class OperationsService final : public v1::Operations::CallbackService {
 public:
  /// Everything outlives the service.
  OperationsService(Coordinator& coordinator, SiteRegistry& sites,
                    const FederationService& federation, const Authority& authority,
                    const Clock& clock, Executor& executor);

  /// Something has changed: watching operators are told. Quick; any thread.
  void CoordinatorChanged() { watches_.RefreshAll(); }

  void EndStreams();

  grpc::ServerUnaryReactor* InviteSite(grpc::CallbackServerContext* context,
                                       const v1::InviteSiteRequest* request,
                                       v1::InviteSiteResponse* response) override;
  grpc::ServerUnaryReactor* ListSites(grpc::CallbackServerContext* context,
                                      const v1::ListSitesRequest* request,
                                      v1::ListSitesResponse* response) override;
  grpc::ServerUnaryReactor* CreateStudy(grpc::CallbackServerContext* context,
                                        const v1::CreateStudyRequest* request,
                                        v1::CreateStudyResponse* response) override;
  grpc::ServerUnaryReactor* PlanStudy(grpc::CallbackServerContext* context,
                                      const v1::StudyRequest* request,
                                      v1::StudyState* response) override;
  grpc::ServerUnaryReactor* StartStudy(grpc::CallbackServerContext* context,
                                       const v1::StudyRequest* request,
                                       v1::StudyState* response) override;
  grpc::ServerUnaryReactor* PauseStudy(grpc::CallbackServerContext* context,
                                       const v1::StudyRequest* request,
                                       v1::StudyState* response) override;
  grpc::ServerUnaryReactor* ResumeStudy(grpc::CallbackServerContext* context,
                                        const v1::StudyRequest* request,
                                        v1::StudyState* response) override;
  grpc::ServerUnaryReactor* StopStudy(grpc::CallbackServerContext* context,
                                      const v1::StudyRequest* request,
                                      v1::StudyState* response) override;
  grpc::ServerUnaryReactor* ListOperatorStudies(grpc::CallbackServerContext* context,
                                                const v1::ListOperatorStudiesRequest* request,
                                                v1::ListOperatorStudiesResponse* response) override;
  grpc::ServerWriteReactor<v1::StudyState>* WatchStudy(grpc::CallbackServerContext* context,
                                                       const v1::StudyRequest* request) override;
  grpc::ServerWriteReactor<v1::ReportPiece>* GetReport(grpc::CallbackServerContext* context,
                                                       const v1::StudyRequest* request) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::StudyRequest* request,
                                       v1::ListModelsResponse* response) override;
  grpc::ServerUnaryReactor* GetBestModel(grpc::CallbackServerContext* context,
                                         const v1::StudyRequest* request,
                                         v1::BestModelResponse* response) override;
  grpc::ServerWriteReactor<v1::GlobalModelChunk>* DownloadGlobalModel(
      grpc::CallbackServerContext* context, const v1::DownloadGlobalModelRequest* request) override;

 private:
  /// A call of an operator: authenticated, then `work` with the operator's name, on the executor.
  grpc::ServerUnaryReactor* Serve(const char* method, grpc::CallbackServerContext& context,
                                  std::function<absl::Status(const std::string& name)> work,
                                  Executor::Lane lane = Executor::Lane::kQuick);

  /// Plan, start, pause, resume and stop are one call with five verbs.
  using StudyVerb = absl::StatusOr<StudyStatus> (Coordinator::*)(const std::string& study);
  grpc::ServerUnaryReactor* Change(const char* method, StudyVerb verb,
                                   grpc::CallbackServerContext& context,
                                   const v1::StudyRequest& request, v1::StudyState& response);

  Coordinator& coordinator_;
  SiteRegistry& sites_;
  const FederationService& federation_;
  const Authority& authority_;
  const Clock& clock_;
  Executor& executor_;
  const PeerAuthentication authentication_;
  WatchList<v1::StudyState> watches_;
};

}  // namespace isoscan
