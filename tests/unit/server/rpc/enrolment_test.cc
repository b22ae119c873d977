#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "common/tls/keys.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/server/rpc/running_server.h"

namespace isoscan {
namespace {

using testing::HasSubstr;
using testing::Not;
using FederationStub = v1::Federation::Stub;
using OperationsStub = v1::Operations::Stub;

v1::EnrolRequest RequestOf(const std::string& token, const Identity& identity) {
  v1::EnrolRequest request;
  request.set_token(token);
  request.set_signing_request_pem(*CreateSigningRequest(*CreatePrivateKey(), identity));
  return request;
}

v1::EnrolRequest RequestOf(const std::string& token, const std::string& site) {
  return RequestOf(token, Identity{Identity::Role::kSite, site});
}

absl::StatusOr<v1::EnrolResponse> Enrol(const RunningServer& server,
                                        const v1::EnrolRequest& request) {
  return Call(*server.Federation(server.Stranger()), &FederationStub::Enrol, request);
}

TEST(Enrolment, GivesACertificateAndTheAuthority) {
  const RunningServer server;

  ASSERT_OK_AND_ASSIGN(const v1::EnrolResponse response,
                       Enrol(server, RequestOf(server.Invite("north"), "north")));

  EXPECT_THAT(IdentityOf(response.certificate_pem()),
              IsOkAndHolds(Identity{Identity::Role::kSite, "north"}));
  EXPECT_EQ(response.authority_pem(), server.authority().certificate_pem());
}

TEST(Enrolment, IsRefusedForAnotherNameAndLeavesTheInvitationValid) {
  const RunningServer server;
  const std::string token = server.Invite("north");
  server.Invite("south");

  EXPECT_THAT(Enrol(server, RequestOf(token, "south")),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("south")));
  EXPECT_THAT(Enrol(server, RequestOf(token, Identity{Identity::Role::kOperator, "north"})),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("operator:north")));
  EXPECT_OK(Enrol(server, RequestOf(token, "north")));
}

// The first answer may be lost between the two ends, or in a crash of either.
TEST(Enrolment, IsRepeatedByTheSameSiteAlsoAfterARestart) {
  RunningServer server;
  const std::string key = *CreatePrivateKey();
  v1::EnrolRequest request;
  request.set_token(server.Invite("north"));
  request.set_signing_request_pem(*CreateSigningRequest(key, {Identity::Role::kSite, "north"}));
  ASSERT_OK(Enrol(server, request));
  server.Restart();

  ASSERT_OK_AND_ASSIGN(const v1::EnrolResponse again, Enrol(server, request));

  const TlsFiles north{.authority = again.authority_pem(),
                       .certificate = again.certificate_pem(),
                       .private_key = key};
  EXPECT_OK(
      Call(*server.Federation(north), &FederationStub::ListStudies, v1::ListStudiesRequest()));
}

TEST(Enrolment, RefusesARequestThatIsTooLargeToBeOne) {
  const RunningServer server;
  v1::EnrolRequest request = RequestOf(server.Invite("north"), "north");
  request.mutable_signing_request_pem()->append(20'000, ' ');

  EXPECT_THAT(Enrol(server, request),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("at most 16384")));
}

TEST(Enrolment, TakesATokenForOneKey) {
  const RunningServer server;
  const std::string token = server.Invite("north");
  ASSERT_OK(Enrol(server, RequestOf(token, "north")));

  const auto again = Enrol(server, RequestOf(token, "north"));

  EXPECT_THAT(again, StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("has been used")));
  EXPECT_THAT(std::string(again.status().message()), Not(HasSubstr(token)));
}

TEST(Enrolment, RefusesATokenOfItsOwnMaking) {
  const RunningServer server;
  server.Invite("north");

  EXPECT_THAT(Enrol(server, RequestOf(std::string(64, '0'), "north")),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("no invitation")));
}

TEST(Enrolment, IsSeenByTheOperator) {
  const RunningServer server;
  server.Enrol("north");
  server.Invite("south");

  ASSERT_OK_AND_ASSIGN(const v1::ListSitesResponse sites,
                       Call(*server.Operations(server.Operator()), &OperationsStub::ListSites,
                            v1::ListSitesRequest()));

  ASSERT_EQ(sites.sites_size(), 2);
  EXPECT_EQ(sites.sites(0).site(), "north");
  EXPECT_EQ(sites.sites(0).state(), "enrolled");
  EXPECT_GT(sites.sites(0).certificate_ends(), 0);
  EXPECT_FALSE(sites.sites(0).connected());
  EXPECT_EQ(sites.sites(1).state(), "invited");
}

TEST(Enrolment, InvitesNoSiteTwiceAndNoImpossibleName) {
  const RunningServer server;
  server.Enrol("north");
  const auto stub = server.Operations(server.Operator());
  v1::InviteSiteRequest request;
  request.set_site("north");
  request.set_valid_seconds(60);

  EXPECT_THAT(Call(*stub, &OperationsStub::InviteSite, request),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("north")));
  request.set_site("../north");
  EXPECT_THAT(Call(*stub, &OperationsStub::InviteSite, request),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("../north")));
  request.set_site("south");
  request.set_valid_seconds(0);
  EXPECT_THAT(Call(*stub, &OperationsStub::InviteSite, request),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not 0")));
}

TEST(Enrolment, SurvivesARestart) {
  RunningServer server;
  const TlsFiles north = server.Enrol("north");

  server.Restart();

  EXPECT_OK(
      Call(*server.Federation(north), &FederationStub::ListStudies, v1::ListStudiesRequest()));
}

}  // namespace
}  // namespace isoscan
