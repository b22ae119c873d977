// Links that are slow, cut, stalled or that change bits: the study goes on without a person and
// ends in the same bits.

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "tests/faults/fault_fixture.h"
#include "tests/support/fault_proxy.h"
#include "tests/support/file_content.h"

namespace isoscan {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

/// An upload takes long enough to be cut.
constexpr BadLink kSlow{.delay = milliseconds(10), .bytes_per_second = 1'500'000};

class NetworkFaultTest : public FaultTest {
 protected:
  void SetUp() override {
    features_ = "[32, 64]";  // A model of several chunks.
    ASSERT_NO_FATAL_FAILURE(FaultTest::SetUp());
    const std::string& address = federation_.address();
    proxy_ = std::make_unique<FaultProxy>(std::stoi(address.substr(address.rfind(':') + 1)));
    expected_ = RunStudy("undisturbed");
    ASSERT_FALSE(HasFatalFailure());
    ASSERT_EQ(expected_.size(), kRounds + 1U);
    for (const std::string& site : sites_) ASSERT_NO_FATAL_FAILURE(PutBehindTheProxy(site));
  }

  void PutBehindTheProxy(const std::string& site) {
    const std::filesystem::path file = federation_.site_folder(site) / "client.toml";
    std::string config = TextOf(file);
    const std::size_t at = config.find(federation_.address());
    ASSERT_NE(at, std::string::npos);
    config.replace(at, federation_.address().size(), fmt::format("127.0.0.1:{}", proxy_->port()));
    ASSERT_OK(WriteFileAtomically(file, config));
  }

  /// Bytes of a global model, or of an update.
  std::int64_t ModelBytes() const {
    for (const auto& entry :
         std::filesystem::directory_iterator(federation_.server_state() / "models")) {
      if (entry.path().extension() == ".safetensors") {
        return static_cast<std::int64_t>(entry.file_size());
      }
    }
    return 0;
  }

  /// From the creation on; `between` as in Work().
  void RunBehindTheProxy(
      const std::string& study,
      const std::function<void(std::map<std::string, ChildProcess>&)>& between = {}) {
    ASSERT_NO_FATAL_FAILURE(StartServer());
    ASSERT_NO_FATAL_FAILURE(Offer(study, kRounds));
    ASSERT_NO_FATAL_FAILURE(Work("", "", between));
    ASSERT_NO_FATAL_FAILURE(StopServer());
    EXPECT_TRUE(ModelsOf(study) == expected_);
  }

  /// What all sites send and fetch in a study where nothing goes wrong, and a little.
  std::int64_t ExpectedBytes(int models) const {
    return static_cast<std::int64_t>(sites_.size()) * models * ModelBytes() + 300'000;
  }

  std::unique_ptr<FaultProxy> proxy_;
  Models expected_;
};

/// As of a hospital behind a line of 4 Mbit/s.
TEST_F(NetworkFaultTest, SlowAndDistantLinkOnlyTakesLonger) {
  proxy_->SetLink({.delay = milliseconds(60), .bytes_per_second = 500'000});
  ASSERT_NO_FATAL_FAILURE(RunBehindTheProxy("slow"));
  EXPECT_EQ(proxy_->faults(), 0);
  EXPECT_LT(proxy_->bytes_to_target(), ExpectedBytes(kRounds));
  EXPECT_LT(proxy_->bytes_from_target(), ExpectedBytes(kRounds + 1));
}

TEST_F(NetworkFaultTest, LinkThatBreaksAgainAndAgainSendsNothingTwice) {
  proxy_->SetLink({.reset_after = ModelBytes() * 5 / 4});
  ASSERT_NO_FATAL_FAILURE(RunBehindTheProxy("reset"));
  // Each site meets it in every round.
  EXPECT_GE(proxy_->faults(), kRounds * 3);
  // What is lost is what was under way: less than one chunk each time.
  constexpr std::int64_t kChunk = 256 * 1024;
  EXPECT_LT(proxy_->bytes_to_target(), ExpectedBytes(kRounds) + proxy_->faults() * kChunk);
  EXPECT_LT(proxy_->bytes_from_target(), ExpectedBytes(kRounds + 1) + proxy_->faults() * kChunk);
}

TEST_F(NetworkFaultTest, WrongBitNeverGetsThrough) {
  proxy_->SetLink({.flip_after = ModelBytes() * 9 / 8});
  ASSERT_NO_FATAL_FAILURE(RunBehindTheProxy("flipped"));
  EXPECT_GE(proxy_->faults(), kRounds);
}

TEST_F(NetworkFaultTest, UploadGoesOnWhereALongCutEndedIt) {
  proxy_->SetLink(kSlow);
  enum class Act { kWait, kCut, kMended } act = Act::kWait;
  steady_clock::time_point mend;
  ASSERT_NO_FATAL_FAILURE(RunBehindTheProxy("cut", [&](auto&) {
    // Half of what the sites send in round 1 is on its way.
    if (act == Act::kWait && proxy_->bytes_to_target() > 3 * ModelBytes() / 2) {
      proxy_->Cut();
      mend = steady_clock::now() + seconds(4);
      act = Act::kCut;
    } else if (act == Act::kCut && steady_clock::now() > mend) {
      proxy_->Mend();
      act = Act::kMended;
    }
  }));
  EXPECT_EQ(act, Act::kMended);
  EXPECT_LT(proxy_->bytes_to_target(), ExpectedBytes(kRounds) + ModelBytes());
}

TEST_F(NetworkFaultTest, ServerThatIsToldToEndAndStartedAgainGoesOn) {
  proxy_->SetLink(kSlow);
  int restarts = 0;
  std::int64_t next = ModelBytes();
  ASSERT_NO_FATAL_FAILURE(RunBehindTheProxy("ended", [&](auto&) {
    if (restarts == 3 || proxy_->bytes_to_target() < next) return;
    ASSERT_NO_FATAL_FAILURE(StopServer());
    EXPECT_OK(federation_.server().Outcome());  // In good order: not killed.
    ASSERT_NO_FATAL_FAILURE(StartServer());
    ++restarts;
    next = proxy_->bytes_to_target() + ModelBytes() * 5 / 4;
  }));
  EXPECT_EQ(restarts, 3);
}

/// Hours ahead and behind, by Debian's libfaketime.
TEST_F(NetworkFaultTest, ClientWhoseClockIsAnHourWrongTakesPart) {
  const std::filesystem::path library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
  if (!std::filesystem::exists(library)) GTEST_SKIP() << "needs Debian's package faketime";
  ASSERT_NO_FATAL_FAILURE(StartServer());
  ASSERT_NO_FATAL_FAILURE(Offer("clocks", kRounds));
  std::map<std::string, ChildProcess> running;
  for (const auto& [site, clock] :
       std::map<std::string, std::string>{{"north", "+1h"}, {"south", "-1h"}, {"west", "+0"}}) {
    Command command = Site(site, {"run"});
    command.environment["LD_PRELOAD"] = library.string();
    command.environment["FAKETIME"] = clock;
    command.environment["FAKETIME_DONT_FAKE_MONOTONIC"] = "1";
    auto process = ChildProcess::Start(command);
    ASSERT_OK(process);
    running.emplace(site, *std::move(process));
  }
  for (auto& [site, process] : running) {
    ASSERT_TRUE(process.WaitFor(kPatience, {})) << site;
    EXPECT_OK(process.Outcome());
  }
  ASSERT_NO_FATAL_FAILURE(StopServer());
  EXPECT_TRUE(ModelsOf("clocks") == expected_);
}

class SlowNetworkFaultTest : public NetworkFaultTest {};

/// No packet and no end of the connection, as when a firewall forgets it: only a ping that nobody
/// answers tells.
TEST_F(SlowNetworkFaultTest, LinkThatFallsSilentIsFoundOut) {
  proxy_->SetLink(kSlow);
  enum class Act { kWait, kStalled, kMended } act = Act::kWait;
  steady_clock::time_point mend;
  ASSERT_NO_FATAL_FAILURE(RunBehindTheProxy("silent", [&](auto&) {
    if (act == Act::kWait && proxy_->bytes_to_target() > 3 * ModelBytes() / 2) {
      proxy_->Stall();
      mend = steady_clock::now() + seconds(100);  // The pings take 80 seconds.
      act = Act::kStalled;
    } else if (act == Act::kStalled && steady_clock::now() > mend) {
      proxy_->Mend();
      act = Act::kMended;
    }
  }));
  EXPECT_EQ(act, Act::kMended);
}

}  // namespace
}  // namespace isoscan
