#include "server/server_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const std::filesystem::path kShipped =
    std::filesystem::path(ISOSCAN_SOURCE_DIRECTORY) / "deploy/config/server.toml";

std::string TextOf(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

absl::StatusOr<ServerConfig> Load(const std::string& text) {
  const TemporaryDirectory folder;
  std::ofstream(folder.path() / "server.toml") << text;
  return LoadServerConfig(folder.path() / "server.toml");
}

constexpr char kAddresses[] = "address = \"fl.example.org:8443\"\nlisten = \"0.0.0.0:8443\"\n";

TEST(ServerConfig, ShippedFileShowsEveryDefault) {
  ASSERT_OK_AND_ASSIGN(const ServerConfig shipped, LoadServerConfig(kShipped));
  ASSERT_OK_AND_ASSIGN(const ServerConfig bare, Load(kAddresses));

  EXPECT_EQ(shipped.log_level, bare.log_level);
  EXPECT_EQ(shipped.log_file, bare.log_file);
  EXPECT_EQ(shipped.limits.worker_threads, bare.limits.worker_threads);
  EXPECT_EQ(shipped.limits.waiting_calls, bare.limits.waiting_calls);
  EXPECT_EQ(shipped.limits.transfer_memory_mib, bare.limits.transfer_memory_mib);
  const std::string text = TextOf(kShipped);
  for (const char* const key : {"address", "listen", "level", "file", "worker_threads",
                                "waiting_calls", "transfer_memory_mib"}) {
    EXPECT_THAT(text, HasSubstr(std::string("\n") + key + " = "));
  }
}

TEST(ServerConfig, NewOneHasTheAddressesAndTheShippedComments) {
  const std::string text =
      ServerToml({.host = "10.0.0.5", .port = 9000}, {.host = "::", .port = 9001});
  ASSERT_OK_AND_ASSIGN(const ServerConfig config, Load(text));

  EXPECT_EQ(ToString(config.address), "10.0.0.5:9000");
  EXPECT_EQ(ToString(config.listen), "[::]:9001");
  EXPECT_THAT(text, HasSubstr("# What sites dial"));
}

TEST(ServerConfig, ErrorsNameFileLineAndRange) {
  EXPECT_THAT(Load(std::string(kAddresses) + "[limits]\nworker_threads = 0\n"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("server.toml:4"), HasSubstr("1 to 64"))));
  EXPECT_THAT(Load(std::string(kAddresses) + "[limit]\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("limit")));
  EXPECT_THAT(Load("address = \"fl.example.org\"\nlisten = \"0.0.0.0:1\"\n"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("server.toml:1"), HasSubstr("HOST:PORT"))));
  EXPECT_THAT(Load("listen = \"0.0.0.0:1\"\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("address")));
}

TEST(Endpoint, IsHostAndPort) {
  for (const std::string text : {"localhost:1", "10.0.0.1:65535", "[::1]:0", "a.b-c.org:80"}) {
    ASSERT_OK_AND_ASSIGN(const Endpoint endpoint, ParseEndpoint(text));
    EXPECT_EQ(ToString(endpoint), text);
  }
  for (const std::string text : {"", "localhost", ":80", "a:", "a:x", "a:-1", "a:65536", "a:80x",
                                 "::1:80", "a b:80", "a\":80", "[]:80"}) {
    EXPECT_THAT(ParseEndpoint(text),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("HOST:PORT")))
        << text;
  }
}

}  // namespace
}  // namespace isoscan
