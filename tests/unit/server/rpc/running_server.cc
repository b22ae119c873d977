#include "tests/unit/server/rpc/running_server.h"

#include <fmt/format.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/support/channel_arguments.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <utility>

#include "common/study/initial_weights.h"
#include "common/study/study.h"
#include "common/tls/keys.h"
#include "common/weights/safetensors.h"
#include "server/trust/authority_folder.h"

namespace isoscan {
namespace {

/// What a test cannot go on without.
template <typename T>
T Need(absl::StatusOr<T> result) {
  if (result.ok()) return *std::move(result);
  std::cerr << result.status() << std::endl;
  std::abort();
}

std::shared_ptr<grpc::Channel> Dial(const std::string& address, const TlsFiles& files) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, ChannelCredentials(files), arguments);
}

}  // namespace

RunningServer::RunningServer() {
  const absl::Status made = InitializeState(folder(), {.host = "127.0.0.1", .port = 0},
                                            {.host = "127.0.0.1", .port = 0}, clock_.Now());
  if (!made.ok()) {
    std::cerr << made << std::endl;
    std::abort();
  }
  Start();
}

void RunningServer::Start() {
  const ServerConfig config = Need(LoadServerConfig(folder().config()));
  server_ = Need(AggregationServer::Start(folder(), config, clock_));
}

void RunningServer::Restart() {
  server_.reset();
  Start();
}

Authority RunningServer::authority() const { return Need(LoadAuthority(folder().authority())); }

std::unique_ptr<v1::Federation::Stub> RunningServer::Federation(const TlsFiles& files) const {
  return v1::Federation::NewStub(Dial(address(), files));
}

std::unique_ptr<v1::Operations::Stub> RunningServer::Operations(const TlsFiles& files) const {
  return v1::Operations::NewStub(Dial(address(), files));
}

TlsFiles RunningServer::Stranger() const {
  return {.authority = authority().certificate_pem(), .certificate = "", .private_key = ""};
}

TlsFiles RunningServer::Operator() const {
  const std::filesystem::path files = folder().operator_files();
  return {.authority = Need(ReadPem(files / "authority.pem")),
          .certificate = Need(ReadPem(files / "operator.pem")),
          .private_key = Need(ReadSecret(files / "operator.key"))};
}

std::string RunningServer::Invite(const std::string& site) const {
  v1::InviteSiteRequest request;
  request.set_site(site);
  request.set_valid_seconds(3600);
  return Need(Call(*Operations(Operator()), &v1::Operations::Stub::InviteSite, request)).token();
}

TlsFiles RunningServer::Enrol(const std::string& site) const {
  TlsFiles files = Stranger();
  files.private_key = Need(CreatePrivateKey());
  v1::EnrolRequest request;
  request.set_token(Invite(site));
  request.set_signing_request_pem(
      Need(CreateSigningRequest(files.private_key, {Identity::Role::kSite, site})));
  files.certificate =
      Need(Call(*Federation(Stranger()), &v1::Federation::Stub::Enrol, request)).certificate_pem();
  return files;
}

std::string TinyStudyToml(int rounds) {
  return fmt::format(R"(name = "tiny"
channels = ["T1w"]
labels = ["left", "right"]
sites = ["north", "south"]

[network]
features = [2, 3]
strides = [[1, 1, 1], [2, 2, 2]]

[training]
patch_size = [8, 8, 8]
batch_size = 1
steps_per_round = 1

[rounds]
rounds = {}
)",
                     rounds);
}

std::string UpdateBytes(const std::string& study_toml, const std::string& site) {
  const Study study = Need(ParseStudy(study_toml, "study.toml"));
  WeightsMetadata metadata = WeightsMetadataOf(study, /*round=*/1);
  metadata["site"] = site;  // No two sites' bytes are alike.
  return EncodeSafetensors(InitialWeights(study), metadata);
}

}  // namespace isoscan
