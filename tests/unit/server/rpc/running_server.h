#pragma once

#include <grpcpp/client_context.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock/clock.h"
#include "common/status/grpc_status.h"
#include "common/tls/credentials.h"
#include "proto/federation.grpc.pb.h"
#include "proto/operations.grpc.pb.h"
#include "server/aggregation_server.h"
#include "server/state_folder.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {

/// A real server with a new state, on a free port of this machine, and the means to talk to it.
class RunningServer {
 public:
  RunningServer();

  /// Ends the server and starts another one with the same state.
  void Restart();
  void Stop() { server_.reset(); }

  StateFolder folder() const { return {directory_.path() / "state"}; }
  std::string address() const { return ToString(server_->listening()); }
  /// The authority of this server's state.
  Authority authority() const;

  std::unique_ptr<v1::Federation::Stub> Federation(const TlsFiles& files) const;
  std::unique_ptr<v1::Operations::Stub> Operations(const TlsFiles& files) const;

  /// Somebody who has the authority's certificate and none of his own.
  TlsFiles Stranger() const;
  TlsFiles Operator() const;

  /// An invitation's token.
  std::string Invite(const std::string& site) const;
  /// Invites and enrols.
  TlsFiles Enrol(const std::string& site) const;

 private:
  void Start();

  TemporaryDirectory directory_;
  SystemClock clock_;
  std::unique_ptr<AggregationServer> server_;
};

/// Waits at most half a minute: a test that hangs fails instead.
class TestContext : public grpc::ClientContext {
 public:
  TestContext() { set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30)); }
};

/// One unary call: Call(*stub, &v1::Federation::Stub::Hello, request).
template <typename Stub, typename Request, typename Response>
absl::StatusOr<Response> Call(Stub& stub,
                              grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                           Response*),
                              const Request& request) {
  TestContext context;
  Response response;
  const grpc::Status status = (stub.*method)(&context, request, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  return response;
}

/// One call with a stream of answers: what it ended with; `messages` gets what came.
template <typename Stub, typename Request, typename Message>
absl::Status CallStream(Stub& stub,
                        std::unique_ptr<grpc::ClientReader<Message>> (Stub::*method)(
                            grpc::ClientContext*, const Request&),
                        const Request& request, std::vector<Message>* messages = nullptr) {
  TestContext context;
  const auto stream = (stub.*method)(&context, request);
  Message message;
  while (stream->Read(&message)) {
    if (messages != nullptr) messages->push_back(message);
  }
  return FromGrpcStatus(stream->Finish());
}

/// A study of two sites and `rounds` rounds whose network is tiny.
std::string TinyStudyToml(int rounds = 1);

/// What site `site` uploads in the tests: the study's initial weights, marked with the site's name.
std::string UpdateBytes(const std::string& study_toml, const std::string& site);

}  // namespace isoscan
