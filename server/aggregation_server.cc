#include "server/aggregation_server.h"

#include <fmt/format.h>
#include <grpc/grpc.h>
#include <grpc/support/log.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server_builder.h>
#include <spdlog/spdlog.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <string_view>
#include <utility>

#include "common/status/status_macros.h"
#include "common/tls/credentials.h"
#include "common/tls/keys.h"
#include "common/transfer/chunks.h"
#include "common/version.h"
#include "server/trust/authority_folder.h"
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

namespace isoscan {
namespace {

constexpr auto kDrainTime = std::chrono::seconds(10);
constexpr int kRenewServerCertificateDays = 30;

/// The errno of binding to `endpoint`; 0 when it works now. gRPC does not tell.
int BindError(const Endpoint& endpoint) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (getaddrinfo(endpoint.host.c_str(), std::to_string(endpoint.port).c_str(), &hints, &found) !=
      0) {
    return EADDRNOTAVAIL;
  }
  int error = 0;
  const int descriptor = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  // As gRPC does it: connections of a former server that are about to end do not count.
  const int reuse = 1;
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
  if (descriptor < 0 || bind(descriptor, found->ai_addr, found->ai_addrlen) != 0 ||
      listen(descriptor, 1) != 0) {
    error = errno;
  }
  if (descriptor >= 0) close(descriptor);
  freeaddrinfo(found);
  return error;
}

absl::Status CannotListen(const Endpoint& endpoint) {
  constexpr char kChoose[] = "choose another with --listen";
  const std::string where = ToString(endpoint);
  const int error = BindError(endpoint);
  switch (error) {
    case EADDRINUSE:
      return absl::FailedPreconditionError(
          fmt::format("cannot listen on {}: another program uses this port; {}", where, kChoose));
    case EACCES:
      return absl::FailedPreconditionError(
          fmt::format("cannot listen on {}: ports below 1024 need privileges; {}", where, kChoose));
    case EADDRNOTAVAIL:
      return absl::FailedPreconditionError(
          fmt::format("cannot listen on {}: this machine has no such address; {}", where, kChoose));
    default:
      return absl::FailedPreconditionError(
          fmt::format("cannot listen on {}: {}; {}", where,
                      error == 0 ? "gRPC gives no reason" : std::strerror(error), kChoose));
  }
}

/// The server's certificate and key; new ones when less than a month is left.
absl::StatusOr<TlsFiles> ServerTls(const StateFolder& folder, const Authority& authority,
                                   const Endpoint& address, Time now) {
  TlsFiles files;
  files.authority = authority.certificate_pem();
  ASSIGN_OR_RETURN(files.certificate, ReadPem(folder.tls() / "server.pem"));
  ASSIGN_OR_RETURN(files.private_key, ReadSecret(folder.tls() / "server.key"));
  ASSIGN_OR_RETURN(const int days, DaysUntilExpiry(files.certificate));
  if (days >= kRenewServerCertificateDays) return files;
  ASSIGN_OR_RETURN(KeyedCertificate renewed, authority.IssueServer(address.host, now));
  RETURN_IF_ERROR(WriteSecret(folder.tls() / "server.key", renewed.private_key_pem));
  RETURN_IF_ERROR(WriteFileAtomically(folder.tls() / "server.pem", renewed.certificate.pem));
  spdlog::info("server certificate renewed days_left={} fingerprint={}", days,
               renewed.certificate.fingerprint);
  files.certificate = std::move(renewed.certificate.pem);
  files.private_key = std::move(renewed.private_key_pem);
  return files;
}

/// gRPC's own lines join ours. Of them only a refused handshake tells the coordinator something: a
/// stranger, or a site with another authority's certificate.
void TakeGrpcLog(gpr_log_func_args* line) {
  const std::string_view message = line->message;
  if (message.find("Handshake failed") != message.npos) {
    spdlog::warn("connection refused reason=\"{}\"", message);
  } else {
    spdlog::debug("grpc message=\"{}\"", message);
  }
}

void SetTransport(grpc::ServerBuilder& builder, const ServerConfig::Limits& limits) {
  // Otherwise Linux lets two servers share a port, and each gets half of the sites.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Clients ping each minute, also while they wait, to keep firewalls from forgetting them.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  // A site whose machine was unplugged is noticed within 80 seconds.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 100);
  // Who makes no call, such as a stranger without a certificate, is shown out. A site that waits
  // has its assignment stream open.
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, 600'000);
  grpc::ResourceQuota quota("isoscan-server");
  quota.Resize(static_cast<std::size_t>(limits.transfer_memory_mib) << 20);
  builder.SetResourceQuota(quota);
}

}  // namespace

absl::StatusOr<std::unique_ptr<AggregationServer>> AggregationServer::Start(
    const StateFolder& folder, const ServerConfig& config, const Clock& clock) {
  gpr_set_log_function(TakeGrpcLog);
  ASSIGN_OR_RETURN(StateLock lock, StateLock::Take(folder));
  ASSIGN_OR_RETURN(Authority authority, LoadAuthority(folder.authority()));
  std::unique_ptr<AggregationServer> server(
      new AggregationServer(std::move(lock), std::move(authority), clock));
  ASSIGN_OR_RETURN(server->journal_, SqliteJournal::Open(folder.journal()));
  ASSIGN_OR_RETURN(server->coordinator_,
                   Coordinator::Open(*server->journal_, clock, folder.models(), folder.uploads()));
  RETURN_IF_ERROR(server->Serve(folder, config));
  return server;
}

absl::Status AggregationServer::Serve(const StateFolder& folder, const ServerConfig& config) {
  ASSIGN_OR_RETURN(const TlsFiles tls, ServerTls(folder, authority_, config.address, clock_.Now()));
  executor_ = std::make_unique<Executor>(config.limits.worker_threads, config.limits.waiting_calls);
  federation_ = std::make_unique<FederationService>(*coordinator_, journal_->sites(), authority_,
                                                    clock_, *executor_);
  operations_ = std::make_unique<OperationsService>(*coordinator_, journal_->sites(), *federation_,
                                                    authority_, clock_, *executor_);
  driver_ = std::make_unique<RoundDriver>(*coordinator_, clock_);
  coordinator_->Observe([this] {
    driver_->CoordinatorChanged();
    federation_->CoordinatorChanged();
    operations_->CoordinatorChanged();
  });

  grpc::ServerBuilder builder;
  SetTransport(builder, config.limits);
  builder.RegisterService(federation_.get());
  builder.RegisterService(operations_.get());
  listening_ = config.listen;
  builder.AddListeningPort(ToString(config.listen), ServerCredentials(tls), &listening_.port);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || listening_.port == 0) return CannotListen(config.listen);
  driver_->Start();
  spdlog::info("server listening address={} version={} protocol={}", ToString(listening_), kVersion,
               kProtocolVersion);
  return absl::OkStatus();
}

AggregationServer::~AggregationServer() { Stop(); }

void AggregationServer::Stop() {
  if (server_ != nullptr) {
    federation_->EndStreams();
    operations_->EndStreams();
    server_->Shutdown(std::chrono::system_clock::now() + kDrainTime);
  }
  // The driver's last round tells the services, which use the executor: it ends last.
  if (driver_ != nullptr) driver_->Stop();
  if (executor_ != nullptr) executor_->Stop();
  server_ = nullptr;
}

}  // namespace isoscan
