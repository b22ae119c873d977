#include "client/federation/enrolment.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "common/status/status_macros.h"
#include "common/transfer/chunks.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/test_authority.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class LoadInvitationTest : public testing::Test {
 protected:
  absl::StatusOr<Invitation> Load(const std::string& server, const std::string& site,
                                  const std::string& authority) {
    const std::filesystem::path path = folder_.path() / "north.invitation.toml";
    RETURN_IF_ERROR(
        WriteFileAtomically(path, fmt::format("server = \"{}\"\nsite = \"{}\"\ntoken = \"secret\"\n"
                                              "authority = \"\"\"\n{}\"\"\"\n",
                                              server, site, authority)));
    return LoadInvitation(path);
  }

  const TestAuthority authority_;
  const TemporaryDirectory folder_;
};

TEST_F(LoadInvitationTest, ReadsWhatTheCoordinatorHandsOver) {
  ASSERT_OK_AND_ASSIGN(const Invitation invitation,
                       Load("fl.example.org:8443", "north", authority_.certificate()));

  EXPECT_EQ(invitation.server, "fl.example.org:8443");
  EXPECT_EQ(invitation.site, "north");
  EXPECT_EQ(invitation.token, "secret");
  EXPECT_EQ(invitation.authority, authority_.certificate());
}

// Server and site become a file of this machine, client.toml.
TEST_F(LoadInvitationTest, RefusesWhatIsNoServerSiteOrAuthorityByLine) {
  const auto refused = [this](const std::string& server, const std::string& site,
                              const std::string& authority, const std::string& line,
                              const std::string& words) {
    EXPECT_THAT(Load(server, site, authority),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("invitation.toml:" + line), HasSubstr(words))));
  };
  refused("unix:/run/docker.sock", "north", authority_.certificate(), "1", "HOST:PORT");
  refused(R"(a:1\"\nstate = \"/etc)", "north", authority_.certificate(), "1", "HOST:PORT");
  refused("a:1", "../north", authority_.certificate(), "2", "site");
  refused("a:1", "north", "no certificate", "4", "authority");
}

}  // namespace
}  // namespace isoscan
