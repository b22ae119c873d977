#include <atomic>
#include <iterator>
#include <thread>

#include "tests/support/status_matchers.h"
#include "tests/unit/server/rounds/federation_in_memory.h"

namespace isoscan {
namespace {

constexpr int kRounds = 4;

std::string FinalModelOfAnUndisturbedStudy(const TinyStudy& study) {
  FederationInMemory federation;
  federation.CreateAndStart(study);
  for (int round = 1; round <= kRounds; ++round) {
    for (const std::string& site : study.sites) EXPECT_OK(federation.Train(site));
    EXPECT_OK(federation.coordinator().Advance());
  }
  return federation.NewestModel();
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

}  // namespace
}  // namespace isoscan
