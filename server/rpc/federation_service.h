#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

#include "common/clock/clock.h"
#include "proto/federation.grpc.pb.h"
#include "server/rounds/coordinator.h"
#include "server/rpc/executor.h"
#include "server/rpc/peer_authentication.h"
#include "server/rpc/transfer_gate.h"
#include "server/rpc/uploads.h"
#include "server/rpc/watch_list.h"
#include "server/storage/site_registry.h"
#include "server/trust/authority.h"

namespace isoscan {

/// The service that hospitals speak (proto/federation.proto): authenticates, converts, hands over.
/// It decides nothing; the coordinator does, and knows no gRPC.
///
/// No reaction blocks: whatever touches the journal or a file runs on the executor.
///
/// Order of its end: EndStreams(), the gRPC server's shutdown, Executor::Stop(), destructor.
class FederationService final : public v1::Federation::CallbackService {
 public:
  /// Everything outlives the service.
  FederationService(Coordinator& coordinator, SiteRegistry& sites, const Authority& authority,
                    const Clock& clock, Executor& executor);

  /// Something has changed: sites whose assignments differ are told. Quick; any thread.
  void CoordinatorChanged() { watches_.RefreshAll(); }

  /// Whether the site holds its assignment stream open. Any thread.
  bool IsConnected(const std::string& site) const { return watches_.Has(site); }

  /// Ends the assignment streams with UNAVAILABLE, so that the sites come back to the next server.
  void EndStreams();

  grpc::ServerUnaryReactor* Enrol(grpc::CallbackServerContext* context,
                                  const v1::EnrolRequest* request,
                                  v1::EnrolResponse* response) override;
  grpc::ServerUnaryReactor* Hello(grpc::CallbackServerContext* context,
                                  const v1::HelloRequest* request,
                                  v1::HelloResponse* response) override;
  grpc::ServerUnaryReactor* ListStudies(grpc::CallbackServerContext* context,
                                        const v1::ListStudiesRequest* request,
                                        v1::ListStudiesResponse* response) override;
  grpc::ServerUnaryReactor* ApproveStudy(grpc::CallbackServerContext* context,
                                         const v1::ApproveStudyRequest* request,
                                         v1::ApproveStudyResponse* response) override;
  grpc::ServerUnaryReactor* WithdrawFromStudy(grpc::CallbackServerContext* context,
                                              const v1::WithdrawRequest* request,
                                              v1::WithdrawResponse* response) override;
  grpc::ServerWriteReactor<v1::Assignments>* WatchAssignments(
      grpc::CallbackServerContext* context, const v1::WatchRequest* request) override;
  grpc::ServerWriteReactor<v1::ModelChunk>* DownloadModel(
      grpc::CallbackServerContext* context, const v1::DownloadModelRequest* request) override;
  grpc::ServerUnaryReactor* BeginUpload(grpc::CallbackServerContext* context,
                                        const v1::BeginUploadRequest* request,
                                        v1::BeginUploadResponse* response) override;
  grpc::ServerReadReactor<v1::UploadChunk>* Upload(grpc::CallbackServerContext* context,
                                                   v1::UploadResponse* response) override;
  grpc::ServerUnaryReactor* SubmitUpdate(grpc::CallbackServerContext* context,
                                         const v1::SubmitUpdateRequest* request,
                                         v1::SubmitUpdateResponse* response) override;
  grpc::ServerUnaryReactor* SubmitScores(grpc::CallbackServerContext* context,
                                         const v1::SubmitScoresRequest* request,
                                         v1::SubmitScoresResponse* response) override;
  grpc::ServerUnaryReactor* ReportProgress(grpc::CallbackServerContext* context,
                                           const v1::ProgressRequest* request,
                                           v1::ProgressResponse* response) override;

 private:
  using AssignmentStream = WatchStream<v1::Assignments>;

  /// A call of a site: authenticated, then `work` with the site's name, on the executor.
  grpc::ServerUnaryReactor* Serve(const char* method, grpc::CallbackServerContext& context,
                                  std::function<absl::Status(const std::string& site)> work,
                                  Executor::Lane lane = Executor::Lane::kQuick);

  absl::Status SignCertificate(const v1::EnrolRequest& request, v1::EnrolResponse& response);
  absl::Status Connect(const std::string& site, const std::shared_ptr<AssignmentStream>& stream);
  void Disconnect(const AssignmentStream* stream);

  Coordinator& coordinator_;
  SiteRegistry& sites_;
  const Authority& authority_;
  const Clock& clock_;
  Executor& executor_;
  const PeerAuthentication authentication_;
  Uploads uploads_;
  TransferGate downloads_;
  WatchList<v1::Assignments> watches_;
  /// Keeps the list of streams and the coordinator's idea of who is connected in step.
  absl::Mutex connecting_;
};

}  // namespace isoscan
