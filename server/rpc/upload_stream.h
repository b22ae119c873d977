#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <optional>

#include "absl/status/status.h"

#include "proto/federation.pb.h"
#include "server/rpc/executor.h"
#include "server/rpc/peer_authentication.h"
#include "server/rpc/transfer_signs.h"
#include "server/rpc/uploads.h"

namespace isoscan {

/// One Upload call: each chunk is on disk before the next is read, so that a site sends as fast as
/// the server's disk takes it, and a cut link keeps what came.
class UploadStream final : public grpc::ServerReadReactor<v1::UploadChunk> {
 public:
  /// The stream ends itself.
  static grpc::ServerReadReactor<v1::UploadChunk>* Start(Executor& executor,
                                                         grpc::CallbackServerContext& context,
                                                         const PeerAuthentication& authentication,
                                                         Uploads& uploads,
                                                         Coordinator& coordinator);

  void OnReadDone(bool read) override;
  void OnDone() override { delete this; }

 private:
  UploadStream(Executor& executor, grpc::CallbackServerContext& context,
               const PeerAuthentication& authentication, Uploads& uploads, Coordinator& coordinator)
      : executor_(executor),
        context_(context),
        authentication_(authentication),
        uploads_(uploads),
        signs_(coordinator) {}

  void Step(bool read);
  absl::Status TakeChunk();
  absl::Status TakeEnd();
  void End(const absl::Status& status);

  Executor& executor_;
  grpc::CallbackServerContext& context_;
  const PeerAuthentication& authentication_;
  Uploads& uploads_;
  std::optional<Uploads::Claim> claim_;  // From the first chunk on.
  TransferSigns signs_;
  v1::UploadChunk chunk_;
};

}  // namespace isoscan
