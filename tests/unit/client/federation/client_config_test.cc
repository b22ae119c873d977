#include "client/client_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "common/transfer/chunks.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::UnorderedElementsAre;

absl::StatusOr<ClientConfig> Load(const TemporaryDirectory& folder, const std::string& text) {
  const std::filesystem::path path = folder.path() / "client.toml";
  RETURN_IF_ERROR(WriteFileAtomically(path, text));
  return LoadClientConfig(path);
}

TEST(ClientConfig, TakesPathsFromItsOwnFolder) {
  const TemporaryDirectory folder;

  ASSERT_OK_AND_ASSIGN(const ClientConfig config, Load(folder, R"(server = "fl.example.org:8443"
site = "north"
state = "kept"
[checkpoint]
every_steps = 40
[certificate]
key = "/etc/isoscan/site.key"
[[cohort]]
folder = "mri"
)"));

  EXPECT_EQ(config.state, folder.path() / "kept");
  EXPECT_EQ(config.checkpoint.every_steps, 40);
  EXPECT_EQ(config.certificate.authority, folder.path() / "authority.pem");
  EXPECT_EQ(config.certificate.key, "/etc/isoscan/site.key");
  EXPECT_EQ(config.cohorts.at(0).folder, folder.path() / "mri");
}

TEST(ClientConfig, MapsLabelsByValueOrName) {
  const TemporaryDirectory folder;

  ASSERT_OK_AND_ASSIGN(const ClientConfig config, Load(folder, R"(server = "a:1"
site = "north"
[[cohort]]
name = "old scanner"
folder = "a"
layout = "bids"
geometry = "sform"
[cohort.labels]
caudate = [71, 72]
putamen = ["PUT"]
[cohort.channels]
T1w = "MPRAGE"
[[cohort]]
name = "new scanner"
folder = "b"
)"));

  ASSERT_EQ(config.cohorts.size(), 2);
  EXPECT_EQ(config.cohorts[0].layout, CohortFolder::Layout::kBids);
  EXPECT_THAT(config.cohorts[0].labels,
              UnorderedElementsAre(Pair("caudate", ElementsAre("71", "72")),
                                   Pair("putamen", ElementsAre("PUT"))));
  EXPECT_THAT(config.cohorts[0].channels, ElementsAre(Pair("T1w", "MPRAGE")));
  EXPECT_EQ(config.cohorts[1].layout, CohortFolder::Layout::kAuto);
  EXPECT_EQ(config.cohorts[0].geometry, GeometrySource::kSform);
  EXPECT_EQ(config.cohorts[1].geometry, GeometrySource::kAgreed);
}

TEST(ClientConfig, RefusesByFileAndLine) {
  const TemporaryDirectory folder;
  const auto refused = [&](const std::string& text, const std::string& line,
                           const std::string& words) {
    EXPECT_THAT(Load(folder, text),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("client.toml:" + line), HasSubstr(words))));
  };
  refused("server = \"fl.example.org\"\nsite = \"north\"\n", "1", "HOST:PORT");
  refused("server = \"a:70000\"\nsite = \"north\"\n", "1", "HOST:PORT");
  refused("server = \"a:1\"\nsite = \"North Wing\"\n", "2", "lower-case");
  refused("server = \"a:1\"\nsite = \"north\"\nstaet = \"x\"\n", "3", "state");
  refused("server = \"a:1\"\nsite = \"north\"\n[device]\nthreads = -1\n", "4", "threads");
  refused("server = \"a:1\"\nsite = \"north\"\n[device]\nname = \"gpu\"\n", "4", "cuda:N");
  refused("server = \"a:1\"\nsite = \"north\"\n[device]\nname = \"cuda:x\"\n", "4", "cuda:N");
  refused(
      "server = \"a:1\"\nsite = \"north\"\n[[cohort]]\nfolder = \"a\"\n[[cohort]]\nfolder = "
      "\"b\"\n",
      "6", "name of its own");
}

TEST(ClientConfig, SaysWhichFileEnrolmentMakes) {
  const TemporaryDirectory folder;

  ASSERT_OK_AND_ASSIGN(const ClientConfig config,
                       Load(folder, "server = \"a:1\"\nsite = \"north\"\n"));

  EXPECT_THAT(LoadTlsFiles(config.certificate),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("authority.pem"), HasSubstr("isoscan-client enrol"))));
}

TEST(ClientConfig, NamesTheFileThatIsNoCertificate) {
  const TemporaryDirectory folder;
  ASSERT_OK(WriteFileAtomically(folder.path() / "authority.pem", "junk"));

  ASSERT_OK_AND_ASSIGN(const ClientConfig config,
                       Load(folder, "server = \"a:1\"\nsite = \"north\"\n"));

  EXPECT_THAT(LoadTlsFiles(config.certificate),
              StatusIs(absl::StatusCode::kDataLoss,
                       AllOf(HasSubstr("authority.pem"), HasSubstr("certificate.authority"))));
}

TEST(ClientConfig, ReadsWhatEnrolmentWrites) {
  const TemporaryDirectory folder;

  ASSERT_OK_AND_ASSIGN(const ClientConfig config, Load(folder, NewClientConfig("a:1", "north")));

  EXPECT_EQ(config.server, "a:1");
  EXPECT_EQ(config.site, "north");
  EXPECT_THAT(config.cohorts, IsEmpty());
}

TEST(ClientConfig, ReadsTheExampleOfEveryKey) {
  ASSERT_OK_AND_ASSIGN(const ClientConfig config,
                       LoadClientConfig(SOURCE_ROOT "/deploy/config/client.toml"));

  EXPECT_EQ(config.cohorts.size(), 2);
}

}  // namespace
}  // namespace isoscan
