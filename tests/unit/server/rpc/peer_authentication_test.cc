#include "server/rpc/peer_authentication.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "common/version.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_authority.h"
#include "tests/unit/server/rpc/running_server.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using FederationStub = v1::Federation::Stub;
using OperationsStub = v1::Operations::Stub;

v1::HelloRequest Greeting() {
  v1::HelloRequest request;
  request.set_protocol_version(kProtocolVersion);
  request.set_program_version(kVersion);
  return request;
}

absl::Status Hello(const RunningServer& server, const TlsFiles& files) {
  return Call(*server.Federation(files), &FederationStub::Hello, Greeting()).status();
}

/// Every call of the site's service that needs a certificate, with an empty request.
std::map<std::string, absl::Status> CallAllOfFederation(FederationStub& stub) {
  TestContext context;
  v1::UploadResponse response;
  const auto upload = stub.Upload(&context, &response);
  upload->WritesDone();
  return {
      {"Hello", Call(stub, &FederationStub::Hello, v1::HelloRequest()).status()},
      {"ListStudies", Call(stub, &FederationStub::ListStudies, v1::ListStudiesRequest()).status()},
      {"ApproveStudy",
       Call(stub, &FederationStub::ApproveStudy, v1::ApproveStudyRequest()).status()},
      {"WithdrawFromStudy",
       Call(stub, &FederationStub::WithdrawFromStudy, v1::WithdrawRequest()).status()},
      {"WatchAssignments", CallStream(stub, &FederationStub::WatchAssignments, v1::WatchRequest())},
      {"DownloadModel",
       CallStream(stub, &FederationStub::DownloadModel, v1::DownloadModelRequest())},
      {"BeginUpload", Call(stub, &FederationStub::BeginUpload, v1::BeginUploadRequest()).status()},
      {"Upload", FromGrpcStatus(upload->Finish())},
      {"SubmitUpdate",
       Call(stub, &FederationStub::SubmitUpdate, v1::SubmitUpdateRequest()).status()},
      {"SubmitScores",
       Call(stub, &FederationStub::SubmitScores, v1::SubmitScoresRequest()).status()},
      {"ReportProgress",
       Call(stub, &FederationStub::ReportProgress, v1::ProgressRequest()).status()}};
}

std::map<std::string, absl::Status> CallAllOfOperations(OperationsStub& stub) {
  const v1::StudyRequest study;
  return {
      {"InviteSite", Call(stub, &OperationsStub::InviteSite, v1::InviteSiteRequest()).status()},
      {"ListSites", Call(stub, &OperationsStub::ListSites, v1::ListSitesRequest()).status()},
      {"CreateStudy", Call(stub, &OperationsStub::CreateStudy, v1::CreateStudyRequest()).status()},
      {"StartStudy", Call(stub, &OperationsStub::StartStudy, study).status()},
      {"PauseStudy", Call(stub, &OperationsStub::PauseStudy, study).status()},
      {"ResumeStudy", Call(stub, &OperationsStub::ResumeStudy, study).status()},
      {"StopStudy", Call(stub, &OperationsStub::StopStudy, study).status()},
      {"ListOperatorStudies",
       Call(stub, &OperationsStub::ListOperatorStudies, v1::ListOperatorStudiesRequest()).status()},
      {"WatchStudy", CallStream(stub, &OperationsStub::WatchStudy, study)},
      {"GetReport", CallStream(stub, &OperationsStub::GetReport, study)},
      {"ListModels", Call(stub, &OperationsStub::ListModels, study).status()},
      {"DownloadGlobalModel",
       CallStream(stub, &OperationsStub::DownloadGlobalModel, v1::DownloadGlobalModelRequest())}};
}

TEST(PeerAuthentication, LetsNobodyInWithoutACertificateButToEnrol) {
  const RunningServer server;
  auto calls = CallAllOfFederation(*server.Federation(server.Stranger()));
  calls.merge(CallAllOfOperations(*server.Operations(server.Stranger())));

  EXPECT_EQ(calls.size(), 23U);
  for (const auto& [method, status] : calls) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnauthenticated, HasSubstr("certificate")))
        << method;
  }
  EXPECT_THAT(
      Call(*server.Federation(server.Stranger()), &FederationStub::Enrol, v1::EnrolRequest()),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("PKCS#10")));
}

TEST(PeerAuthentication, LetsNoSiteOperate) {
  const RunningServer server;

  for (const auto& [method, status] :
       CallAllOfOperations(*server.Operations(server.Enrol("north")))) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kPermissionDenied,
                                 HasSubstr("site north is no operator")))
        << method;
  }
}

TEST(PeerAuthentication, LetsNoOperatorActAsASite) {
  const RunningServer server;

  for (const auto& [method, status] : CallAllOfFederation(*server.Federation(server.Operator()))) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kPermissionDenied,
                                 HasSubstr("operator coordinator is no site")))
        << method;
  }
}

TEST(PeerAuthentication, EndsTheHandshakeOfAnotherAuthoritysCertificate) {
  const RunningServer server;
  const TestAuthority other;
  TlsFiles files = other.Site("north");
  files.authority = server.authority().certificate_pem();

  EXPECT_THAT(Hello(server, files), StatusIs(absl::StatusCode::kUnavailable));
}

TEST(PeerAuthentication, TellsASiteWhoItIs) {
  const RunningServer server;
  const auto stub = server.Federation(server.Enrol("north"));

  ASSERT_OK_AND_ASSIGN(const v1::HelloResponse response,
                       Call(*stub, &FederationStub::Hello, Greeting()));

  EXPECT_EQ(response.site(), "north");
  EXPECT_EQ(response.program_version(), kVersion);
  EXPECT_EQ(response.protocol_version(), kProtocolVersion);
}

TEST(PeerAuthentication, RefusesACertificateOfItsAuthorityThatItNeverGaveOut) {
  const RunningServer server;
  const TlsFiles north = server.Enrol("north");
  const auto signed_for = [&](const std::string& site) {
    TlsFiles files = server.Stranger();
    files.private_key = *CreatePrivateKey();
    const std::string request =
        *CreateSigningRequest(files.private_key, {Identity::Role::kSite, site});
    files.certificate = server.authority().SignSite(request, site, SystemClock().Now())->pem;
    return files;
  };

  EXPECT_THAT(Hello(server, signed_for("nowhere")),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("nowhere is no site")));
  EXPECT_THAT(Hello(server, signed_for("north")),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("another certificate")));
  EXPECT_OK(Hello(server, north));
}

TEST(PeerAuthentication, RefusesAnInvitedSiteThatHasNotEnrolled) {
  const RunningServer server;
  server.Invite("north");
  TlsFiles files = server.Stranger();
  files.private_key = *CreatePrivateKey();
  const std::string request =
      *CreateSigningRequest(files.private_key, {Identity::Role::kSite, "north"});
  files.certificate = server.authority().SignSite(request, "north", SystemClock().Now())->pem;

  EXPECT_THAT(Hello(server, files),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("has not enrolled")));
}

TEST(ProtocolVersion, AnotherOneIsRefusedWithWhomToUpdate) {
  const RunningServer server;
  const auto stub = server.Federation(server.Enrol("north"));
  v1::HelloRequest newer;
  newer.set_protocol_version(kProtocolVersion + 1);
  newer.set_program_version("9.9.9");
  v1::WatchRequest older;
  older.set_protocol_version(kProtocolVersion - 1);

  EXPECT_THAT(
      Call(*stub, &FederationStub::Hello, newer),
      StatusIs(absl::StatusCode::kUnimplemented,
               AllOf(HasSubstr("9.9.9"), HasSubstr(kVersion), HasSubstr("update the server"))));
  EXPECT_THAT(CallStream(*stub, &FederationStub::WatchAssignments, older),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("update the client")));
}

}  // namespace
}  // namespace isoscan
