// Kills real processes at every fault point, and at random: the study goes on without a person and
// ends in the same bits.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/random/philox.h"
#include "tests/faults/fault_fixture.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

TEST_F(FaultTest, KilledAtAHandfulOfPointsEndsInTheSameBits) {
  const Models expected = RunStudy("undisturbed");
  ASSERT_FALSE(HasFatalFailure());
  ASSERT_EQ(expected.size(), kRounds + 1U);
  for (const auto& [victim, fault] :
       std::vector<std::pair<std::string, Fault>>{{"server", "journal.before.take_update:4"},
                                                  {"server", "journal.after.close_round:2"},
                                                  {"server", "model.renamed:2"},
                                                  {"north", "upload.chunk:3"},
                                                  {"north", "work.submitted:2"}}) {
    ASSERT_NO_FATAL_FAILURE(Expect(victim, fault, expected));
  }
}

// What a strategy carries from round to round is closed with the model in one transaction.
TEST_F(FaultTest, KilledBesideTheStateOfAStrategyEndsInTheSameBits) {
  aggregation_ = "fedadam";
  const Models expected = RunStudy("undisturbed");
  ASSERT_FALSE(HasFatalFailure());
  ASSERT_EQ(expected.size(), kRounds + 1U);
  for (const Fault fault : {"close.drafts_written:2", "state.renamed:2", "model.renamed:3",
                            "journal.after.close_round:2"}) {
    ASSERT_NO_FATAL_FAILURE(Expect("server", fault, expected));
  }
}

class SlowFaultTest : public FaultTest {};

TEST_F(SlowFaultTest, KilledAtEveryPointOfAClosingRoundEndsInTheSameBitsWithAState) {
  for (const std::string aggregation : {"fedyogi", "afl", "qfedavg"}) {
    SCOPED_TRACE(aggregation);
    aggregation_ = aggregation;
    log_passages_ = true;
    const Models expected = RunStudy("undisturbed-" + aggregation.substr(0, 3));
    log_passages_ = false;
    ASSERT_FALSE(HasFatalFailure());
    for (const auto& [point, passages] : CountPassages("server")) {
      const bool closes = point.starts_with("close.") || point.starts_with("state.") ||
                          point.starts_with("model.") || point.ends_with(".close_round") ||
                          point.ends_with(".finish_study");
      if (!closes) continue;
      for (const int passage : std::set<int>{1, passages}) {
        ASSERT_NO_FATAL_FAILURE(Expect("server", fmt::format("{}:{}", point, passage), expected));
      }
    }
    fs::remove(PassagesOf("server"));
  }
}

TEST_F(SlowFaultTest, KilledAtEveryPointEndsInTheSameBits) {
  log_passages_ = true;
  const Models expected = RunStudy("undisturbed");
  log_passages_ = false;
  ASSERT_FALSE(HasFatalFailure());
  ASSERT_EQ(expected.size(), kRounds + 1U);

  std::set<std::string> points;
  int runs = 0;
  for (const std::string victim : {"server", "north"}) {
    for (const auto& [point, passages] : CountPassages(victim)) {
      points.insert(victim + "." + point);
      // The first time, half way, and the last time.
      for (const int passage : std::set<int>{1, (passages + 1) / 2, passages}) {
        ++runs;
        ASSERT_NO_FATAL_FAILURE(Expect(victim, fmt::format("{}:{}", point, passage), expected));
      }
    }
  }
  std::cout << points.size() << " points, " << runs << " deaths\n";
  EXPECT_GE(points.size(), 40U);
}

TEST_F(SlowFaultTest, StagedUpdateThatDecaysIsAskedForAgainAlsoByAServerThatDiesOverIt) {
  const Models expected = RunStudy("undisturbed");
  ASSERT_FALSE(HasFatalFailure());
  ASSERT_NO_FATAL_FAILURE(StartServer("close.before_averaging:2"));
  ASSERT_NO_FATAL_FAILURE(Offer("decayed", kRounds));
  std::map<std::string, ChildProcess> running;
  for (const std::string& site : sites_) running.emplace(site, StartSite(site));
  ASSERT_TRUE(federation_.server().WaitFor(kPatience, {}));
  ASSERT_TRUE(WasKilled(federation_.server()));
  // One bit of one weight, which stays a number.
  int damaged = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(
           federation_.server_state() / "uploads" / "south" / "decayed" / "round-2")) {
    if (entry.path().extension() == ".sums") continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(-4, std::ios::end);
    const int byte = file.get();
    file.seekp(-4, std::ios::end);
    file.put(static_cast<char>(byte ^ 1));
    ++damaged;
  }
  ASSERT_EQ(damaged, 1);
  for (const Fault fault : {"journal.before.drop_update:1", "journal.after.drop_update:1"}) {
    ASSERT_NO_FATAL_FAILURE(StartServer(fault));
    ASSERT_TRUE(federation_.server().WaitFor(kPatience, {})) << "it never came to " << fault;
    ASSERT_TRUE(WasKilled(federation_.server()));
  }
  ASSERT_NO_FATAL_FAILURE(StartServer());
  for (auto& [site, process] : running) {
    ASSERT_TRUE(process.WaitFor(kPatience, {})) << site;
    ASSERT_OK(process.Outcome());
  }
  ASSERT_NO_FATAL_FAILURE(StopServer());

  EXPECT_TRUE(ModelsOf("decayed") == expected);
}

TEST_F(SlowFaultTest, KilledAtRandomEndsInTheSameBits) {
  constexpr int kLongRounds = 40;
  const char* const given = std::getenv("ISOSCAN_FAULT_SEED");
  const std::uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::cout << "ISOSCAN_FAULT_SEED=" << seed << "\n";
  RandomStream random(seed, "kills");
  ASSERT_NO_FATAL_FAILURE(StartServer());
  ASSERT_NO_FATAL_FAILURE(Offer("undisturbed", kLongRounds));
  ASSERT_NO_FATAL_FAILURE(Work("", ""));
  ASSERT_NO_FATAL_FAILURE(Offer("killed", kLongRounds));

  int kills = 0;
  auto next = steady_clock::now();
  ASSERT_NO_FATAL_FAILURE(Work("", "", [&](std::map<std::string, ChildProcess>& running) {
    if (steady_clock::now() < next) return;
    next = steady_clock::now() + milliseconds(20 + random.Below(700));
    std::vector<pid_t> victims;
    const std::int64_t choice = random.Below(5);
    if (choice >= 3 && !federation_.server().exit_code().has_value())
      victims.push_back(federation_.server().id());
    std::int64_t index = 0;
    for (const auto& [site, process] : running) {
      const bool ended = process.exit_code().has_value();
      if (!ended && (choice == index || choice == 4)) victims.push_back(process.id());
      ++index;
    }
    for (const pid_t victim : victims) ::kill(victim, SIGKILL);
    kills += static_cast<int>(victims.size());
  }));
  ASSERT_NO_FATAL_FAILURE(StopServer());

  std::cout << kills << " processes were killed\n";
  EXPECT_GE(kills, 10);
  EXPECT_EQ(ModelsOf("killed").size(), kLongRounds + 1U);
  EXPECT_TRUE(ModelsOf("killed") == ModelsOf("undisturbed"));
}

}  // namespace
}  // namespace isoscan
