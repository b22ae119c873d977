#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "tests/support/status_matchers.h"
#include "tests/unit/server/rounds/federation_in_memory.h"
#include <sys/stat.h>

namespace isoscan {
namespace {

constexpr int kRounds = 4;

std::string FinalModelOfAnUndisturbedStudy(const TinyStudy& study) {
  FederationInMemory federation;
  federation.CreateAndStart(study);
  for (int round = 1; round <= kRounds; ++round) {
    for (const std::string& site : study.sites) EXPECT_OK(federation.Train(site, study.name));
    EXPECT_OK(federation.coordinator().Advance());
  }
  return federation.NewestModel(study.name);
}

std::ptrdiff_t FilesIn(const std::filesystem::path& folder) {
  return std::distance(std::filesystem::directory_iterator(folder),
                       std::filesystem::directory_iterator());
}

TEST(CoordinatorConcurrency, TakesSubmissionsAndQuestionsWhileItAggregates) {
  const TinyStudy study{.rounds = kRounds};
  FederationInMemory federation;
  federation.CreateAndStart(study);
  std::atomic<bool> finished = false;

  std::vector<std::jthread> sites;
  for (const std::string& site : study.sites) {
    sites.emplace_back([&federation, &finished, site] {
      while (!finished) {
        const std::vector<Assignment> asked = federation.coordinator().AssignmentsOf(site);
        if (asked.empty()) {
          std::this_thread::yield();
          continue;
        }
        if (asked.front().kind == Assignment::Kind::kScore) {
          EXPECT_OK(federation.Score(site));
          return;
        }
        EXPECT_OK(federation.Train(site));
        federation.coordinator().SetConnected(site, true);
      }
    });
  }
  const std::jthread observer([&federation, &finished] {
    while (!finished) EXPECT_OK(federation.coordinator().Record("tiny"));
  });
  while (federation.Status().phase != StudyPhase::kFinished && !testing::Test::HasFailure()) {
    ASSERT_OK(federation.coordinator().Advance());
  }
  finished = true;

  EXPECT_EQ(federation.NewestModel(), FinalModelOfAnUndisturbedStudy(study));
}

TEST(CoordinatorConcurrency, AdvancesTwoStudiesOnTwoThreads) {
  const TinyStudy study{.name = "one", .rounds = kRounds};
  TinyStudy other = study;
  other.name = "two";
  FederationInMemory federation;
  federation.CreateAndStart(study);
  federation.CreateAndStart(other);
  std::atomic<bool> finished = false;
  {
    std::vector<std::jthread> drivers;
    for (int i = 0; i < 2; ++i) {
      drivers.emplace_back([&] {
        while (!finished) EXPECT_OK(federation.coordinator().Advance());
      });
    }
    for (int round = 1; round <= kRounds; ++round) {
      for (const std::string& name : {study.name, other.name}) {
        for (const std::string& site : study.sites) EXPECT_OK(federation.Train(site, name));
      }
      while (federation.Status("one").round == round || federation.Status("two").round == round) {
        std::this_thread::yield();
      }
    }
    finished = true;
  }

  EXPECT_EQ(federation.NewestModel("one"), FinalModelOfAnUndisturbedStudy(study));
  EXPECT_EQ(federation.NewestModel("two"), FinalModelOfAnUndisturbedStudy(other));
}

TEST(CoordinatorConcurrency, CountsNoUpdateThatWasTakenBackWhileItAggregated) {
  for (int trial = 0; trial < 10; ++trial) {
    FederationInMemory federation;
    federation.CreateAndStart({.sites = {"berlin", "charite"}, .rounds = 2});
    ASSERT_OK(federation.Train("berlin"));
    ASSERT_OK(federation.Train("charite"));

    {
      const std::jthread advance([&] { EXPECT_OK(federation.coordinator().Advance()); });
      // The second file in models/ is the mean on its way.
      while (FilesIn(federation.folder() / "models") < 2) std::this_thread::yield();
      ASSERT_OK(federation.coordinator().Withdraw("berlin", "tiny"));
    }
    ASSERT_OK(federation.coordinator().Advance());

    // It withdrew from round 1, and is not in it; or from round 2, and its scores have stayed.
    ASSERT_OK_AND_ASSIGN(const StudyRecord record, federation.coordinator().Record("tiny"));
    ASSERT_EQ(record.rounds.size(), 1U);
    const bool contributed = record.rounds[0].sites[0].weight > 0;
    EXPECT_EQ(record.scores.size(), contributed ? 2U : 1U) << "trial " << trial;
  }
}

// Otherwise one site could keep a round from ever closing.
TEST(CoordinatorConcurrency, LetsNoSiteReplaceAnUpdateThatIsBeingAveraged) {
  FederationInMemory federation;
  federation.CreateAndStart({.sites = {"berlin", "charite"}, .rounds = 2});
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK_AND_ASSIGN(SiteUpdate update, federation.Upload("charite"));
  ASSERT_OK(federation.coordinator().SubmitUpdate("charite", update));
  const auto staged = federation.folder() / [&] {
    const std::vector<std::string> files = federation.StagedFiles();
    return *std::find_if(files.begin(), files.end(), [](const std::string& file) {
      return file.find("berlin") != std::string::npos;
    });
  }();
  // Averaging waits in open() as long as nobody writes into the pipe.
  const auto kept = federation.folder() / "kept";
  const auto gate = federation.folder() / "gate";
  std::filesystem::rename(staged, kept);
  ASSERT_EQ(mkfifo(gate.c_str(), 0600), 0);
  std::filesystem::create_hard_link(gate, staged);
  std::jthread advance([&] { EXPECT_FALSE(federation.coordinator().Advance().ok()); });

  absl::Status replaced;
  float shift = 0;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (replaced.ok() && std::chrono::steady_clock::now() < deadline) {
    shift += 1;
    ASSERT_OK_AND_ASSIGN(update, federation.Upload("charite", "tiny", shift));
    replaced = federation.coordinator().SubmitUpdate("charite", update);
  }
  std::filesystem::rename(kept, staged);
  std::ofstream(gate).close();
  advance.join();

  EXPECT_THAT(replaced, StatusIs(absl::StatusCode::kFailedPrecondition,
                                 testing::HasSubstr("is being closed")));
  EXPECT_OK(federation.coordinator().SubmitUpdate("charite", update)) << "the round did not close";
  federation.clock().Advance(std::chrono::seconds(5));
  ASSERT_OK(federation.coordinator().Advance());
  EXPECT_EQ(federation.Status().round, 2);
}

}  // namespace
}  // namespace isoscan
