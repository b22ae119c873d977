#include <atomic>
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

}  // namespace
}  // namespace isoscan
