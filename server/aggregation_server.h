#pragma once

#include <grpcpp/server.h>

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock/clock.h"
#include "server/round_driver.h"
#include "server/rounds/coordinator.h"
#include "server/rpc/executor.h"
#include "server/rpc/federation_service.h"
#include "server/rpc/operations_service.h"
#include "server/server_config.h"
#include "server/state_folder.h"
#include "server/storage/sqlite_journal.h"
#include "server/trust/authority.h"

namespace isoscan {

/// The whole server: makes its parts, connects them, and ends them in order. It goes on with every
/// study where the journal left it.
class AggregationServer {
 public:
  /// Serves once it returns. `clock` outlives the server.
  ///
  /// Errors: those of StateLock, the authority's files and the journal; FAILED_PRECONDITION when
  ///         `config.listen` cannot be listened on (the message says why).
  static absl::StatusOr<std::unique_ptr<AggregationServer>> Start(const StateFolder& folder,
                                                                  const ServerConfig& config,
                                                                  const Clock& clock);
  /// Stops.
  ~AggregationServer();

  /// Where it listens, with the real port.
  const Endpoint& listening() const { return listening_; }

  /// Ends streams, lets running calls finish for up to ten seconds, and the aggregation that is
  /// running. Whatever was promised is in the journal.
  void Stop();

 private:
  AggregationServer(StateLock lock, Authority authority, const Clock& clock)
      : lock_(std::move(lock)), authority_(std::move(authority)), clock_(clock) {}

  absl::Status Serve(const StateFolder& folder, const ServerConfig& config);

  StateLock lock_;
  const Authority authority_;
  const Clock& clock_;
  Endpoint listening_;
  std::unique_ptr<SqliteJournal> journal_;
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<FederationService> federation_;
  std::unique_ptr<OperationsService> operations_;
  std::unique_ptr<RoundDriver> driver_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace isoscan
