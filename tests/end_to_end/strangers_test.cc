#include "common/process/exit_code.h"
#include "tests/end_to_end/federation_fixture.h"

namespace isoscan {
namespace {

using ::testing::HasSubstr;
using StrangersTest = FederationTest;

/// Exit code of a program that is expected to fail by itself.
int ExitCodeOf(const Command& command) {
  auto child = ChildProcess::Start(command);
  EXPECT_OK(child);
  EXPECT_TRUE(child->WaitFor(std::chrono::minutes(1), {})) << command.title << " hangs";
  return child->exit_code().value_or(-1);
}

TEST_F(StrangersTest, CertificateOfAnotherAuthorityIsRefused) {
  ASSERT_OK(federation_.InitServer({}));
  LocalFederation other(Programs(), folder_.path() / "other", folder_.path() / "other-logs");
  ASSERT_OK(other.InitServer({}));
  ASSERT_OK(federation_.Enrol("north", {}));
  ASSERT_OK(other.Enrol("north", {}));
  ASSERT_OK(federation_.Configure({.name = "north", .cohorts = {}}, "cpu", 1));
  EXPECT_EQ(ExitCodeOf(Client("north", {"study", "list"})), 0);

  // The server's authority is known to the stranger; only its own certificate is foreign.
  for (const char* const file : {"site.pem", "site.key"}) {
    std::filesystem::copy_file(other.site_folder("north") / file,
                               federation_.site_folder("north") / file,
                               std::filesystem::copy_options::overwrite_existing);
  }
  const int code = ExitCodeOf(Client("north", {"study", "list"}));

  EXPECT_TRUE(code == static_cast<int>(ExitCode::kUnreachable) ||
              code == static_cast<int>(ExitCode::kRefused))
      << code;
  EXPECT_THAT(TextOf(federation_.log("north")), HasSubstr("certificate"));
}

TEST_F(StrangersTest, SiteIsNoOperator) {
  ASSERT_OK(federation_.InitServer({}));
  ASSERT_OK(federation_.Enrol("north", {}));
  const std::filesystem::path operator_folder = federation_.server_state() / "operator";
  for (const auto& [from, to] :
       {std::pair("site.pem", "operator.pem"), std::pair("site.key", "operator.key")}) {
    std::filesystem::copy_file(federation_.site_folder("north") / from, operator_folder / to,
                               std::filesystem::copy_options::overwrite_existing);
  }

  EXPECT_EQ(ExitCodeOf(federation_.Admin({"site", "list"})), static_cast<int>(ExitCode::kRefused));
}

TEST_F(StrangersTest, SiteCannotEnrolUnderAnothersName) {
  ASSERT_OK(federation_.InitServer({}));
  const std::filesystem::path invitation = folder_.path() / "north.invitation";
  ASSERT_OK(RunToEnd(federation_.Admin({"site", "invite", "north", "--out", invitation.string(),
                                        "--address", federation_.address()}),
                     {}));
  std::string text = TextOf(invitation);
  const std::size_t name = text.find("\"north\"");
  ASSERT_NE(name, std::string::npos);
  text.replace(name, 7, "\"south\"");
  ASSERT_OK(WriteFileAtomically(invitation, text));

  const int code = ExitCodeOf(federation_.Client(
      "south", {"enrol", invitation.string(), "--folder", (folder_.path() / "south").string()}));

  EXPECT_EQ(code, static_cast<int>(ExitCode::kRefused));
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "south" / "site.pem"));
}

TEST_F(StrangersTest, InvitationIsGoodForOneSite) {
  ASSERT_OK(federation_.InitServer({}));
  ASSERT_OK(federation_.Enrol("north", {}));
  const std::string used = (folder_.path() / "state" / "north.invitation").string();

  EXPECT_EQ(ExitCodeOf(federation_.Client(
                "thief", {"enrol", used, "--folder", (folder_.path() / "thief").string()})),
            static_cast<int>(ExitCode::kRefused));
}

TEST_F(StrangersTest, OldTlsIsRefused) {
  ASSERT_OK(federation_.InitServer({}));
  const auto connect = [&](const std::string& version) {
    return Command{.title = "openssl",
                   .arguments = {"/bin/sh", "-c",
                                 "openssl s_client -connect " + federation_.address() + " " +
                                     version + " -alpn h2 </dev/null"},
                   .log = folder_.path() / "openssl.log",
                   .environment = {}};
  };

  EXPECT_EQ(ExitCodeOf(connect("-tls1_3")), 0);
  EXPECT_NE(ExitCodeOf(connect("-tls1_2")), 0);
}

TEST_F(StrangersTest, PortInUseIsSaidPlainly) {
  ASSERT_OK(federation_.InitServer({}));
  LocalFederation second(Programs(), folder_.path() / "second", folder_.path() / "second-logs");
  ASSERT_OK(second.InitServer({}));
  const Command clash{.title = "isoscan-server",
                      .arguments = {(Programs() / "isoscan-server").string(), "run", "--state",
                                    (folder_.path() / "second" / "server").string(), "--listen",
                                    federation_.address()},
                      .log = folder_.path() / "clash.log",
                      .environment = {}};
  second.server().Interrupt();
  ASSERT_TRUE(second.server().WaitFor(kPatience, {}));

  EXPECT_NE(ExitCodeOf(clash), 0);
  EXPECT_THAT(TextOf(folder_.path() / "clash.log"), HasSubstr(federation_.address()));
}

}  // namespace
}  // namespace isoscan
