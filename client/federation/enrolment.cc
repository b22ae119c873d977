#include "client/federation/enrolment.h"

#include <fmt/format.h>
#include <grpcpp/client_context.h>

#include <chrono>

#include "client/federation/channel.h"
#include "client/federation/connection_failure.h"
#include "common/config/address.h"
#include "common/config/config_reader.h"
#include "common/status/grpc_status.h"
#include "common/status/status_macros.h"
#include "common/study/study.h"
#include "common/tls/keys.h"
#include "proto/federation.grpc.pb.h"

namespace isoscan {

absl::StatusOr<Invitation> LoadInvitation(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(ConfigReader reader, ConfigReader::Load(path));
  Invitation invitation{.server = reader.Text("server"),
                        .site = reader.Text("site"),
                        .token = reader.Text("token"),
                        .authority = reader.Text("authority")};
  if (reader.Has("server") && !IsAddress(invitation.server)) {
    reader.Refuse("server", fmt::format("is \"{}\", expected HOST:PORT", invitation.server));
  }
  if (reader.Has("site") && !IsName(invitation.site)) {
    reader.Refuse("site", fmt::format("is \"{}\", expected lower-case letters, digits and hyphens",
                                      invitation.site));
  }
  if (reader.Has("authority") && !DaysUntilExpiry(invitation.authority).ok()) {
    reader.Refuse("authority",
                  "is no certificate: ask the coordinator for the file as it was made");
  }
  RETURN_IF_ERROR(reader.Finish());
  return invitation;
}

absl::StatusOr<std::string> RequestCertificate(const Invitation& invitation,
                                               const std::string& signing_request_pem,
                                               std::stop_token stop) {
  const auto stub = v1::Federation::NewStub(
      DialServer(invitation.server,
                 {.authority = invitation.authority, .certificate = "", .private_key = ""}));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  const std::stop_callback cancel(stop, [&context] { context.TryCancel(); });
  v1::EnrolRequest request;
  request.set_token(invitation.token);
  request.set_signing_request_pem(signing_request_pem);
  v1::EnrolResponse response;
  const absl::Status status = FromGrpcStatus(stub->Enrol(&context, request, &response));
  if (stop.stop_requested()) return absl::CancelledError("interrupted");
  RETURN_IF_ERROR(ExplainConnectionFailure(status, invitation.server));
  const absl::StatusOr<Identity> identity = IdentityOf(response.certificate_pem());
  if (!identity.ok() || *identity != Identity{Identity::Role::kSite, invitation.site}) {
    return absl::DataLossError(
        fmt::format("server {} answered with what is no certificate of {}; tell the coordinator",
                    invitation.server, invitation.site));
  }
  return response.certificate_pem();
}

}  // namespace isoscan
