// Which study a site works for first, where several ask it.

#include <algorithm>
#include <filesystem>
#include <map>

#include "server/rounds/model_folder.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/server/rounds/federation_in_memory.h"

namespace isoscan {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> OrderFor(FederationInMemory& federation, const std::string& site) {
  std::vector<std::string> studies;
  for (const Assignment& assignment : federation.coordinator().AssignmentsOf(site)) {
    studies.push_back(assignment.study);
  }
  return studies;
}

TinyStudy Named(const std::string& name, int priority = 0) {
  return {.name = name,
          .sites = {"berlin", "charite"},
          .rounds = 5,
          .rounds_table = "priority = " + std::to_string(priority)};
}

TEST(FairnessBetweenStudies, PutsHigherPrioritiesFirst) {
  FederationInMemory federation;
  federation.CreateAndStart(Named("a", -3));
  federation.CreateAndStart(Named("b"));
  federation.CreateAndStart(Named("c", 7));
  federation.CreateAndStart(Named("d"));

  EXPECT_THAT(OrderFor(federation, "berlin"), ElementsAre("c", "b", "d", "a"));
  ASSERT_OK(federation.Train("berlin", "c"));
  EXPECT_THAT(OrderFor(federation, "berlin"), ElementsAre("b", "d", "a"));
  ASSERT_OK(federation.Train("charite", "c"));
  ASSERT_OK(federation.coordinator().Advance());
  EXPECT_THAT(OrderFor(federation, "berlin"), ElementsAre("c", "b", "d", "a"))
      << "however lately it was served";
}

TEST(FairnessBetweenStudies, PutsTheStudyFirstThatTheSiteServedLongestAgo) {
  FederationInMemory federation;
  for (const char* name : {"a", "b", "c"}) federation.CreateAndStart(Named(name));
  const auto next_round = [&](const std::string& study) {
    federation.clock().Advance(std::chrono::seconds(1));
    ASSERT_OK(federation.Train("berlin", study));
    ASSERT_OK(federation.Train("charite", study));
    ASSERT_OK(federation.coordinator().Advance());
  };

  EXPECT_THAT(OrderFor(federation, "berlin"), ElementsAre("a", "b", "c"));
  next_round("a");
  EXPECT_THAT(OrderFor(federation, "berlin"), ElementsAre("b", "c", "a"));
  next_round("c");
  next_round("b");
  EXPECT_THAT(OrderFor(federation, "berlin"), ElementsAre("a", "c", "b"));
  federation.Restart();
  EXPECT_THAT(OrderFor(federation, "berlin"), ElementsAre("a", "c", "b"));
}

TEST(FairnessBetweenStudies, TellsFirstWhatIsOver) {
  FederationInMemory federation;
  federation.CreateAndStart(Named("a", 5));
  federation.CreateAndStart(Named("z", -5));
  ASSERT_OK(federation.coordinator().StopStudy("z"));

  EXPECT_THAT(OrderFor(federation, "berlin"), ElementsAre("z", "a"));
}

// berlin alone keeps `always` going: its rounds close at once. Those of `slow` wait for charite,
// whose work takes ten times as long.
TEST(FairnessBetweenStudies, LetsNeitherAFastNorASlowStudyStarve) {
  FederationInMemory federation;
  federation.CreateAndStart({.name = "always", .sites = {"berlin"}, .rounds = 1000});
  federation.CreateAndStart({.name = "slow", .sites = {"berlin", "charite"}, .rounds = 1000});
  std::map<std::string, int> tasks;
  int waited = 0;  // Tasks of berlin since `slow` asks for it.
  for (int tick = 1; tick <= 200; ++tick) {
    const std::vector<std::string> asked = OrderFor(federation, "berlin");
    ASSERT_FALSE(asked.empty());
    ++tasks[asked.front()];
    ASSERT_OK(federation.Train("berlin", asked.front()));
    if (tick % 10 == 0) {
      ASSERT_OK(federation.Train("charite", "slow"));
    }
    ASSERT_OK(federation.coordinator().Advance());
    const std::vector<std::string> left = OrderFor(federation, "berlin");
    waited = std::count(left.begin(), left.end(), "slow") != 0 ? waited + 1 : 0;
    EXPECT_LE(waited, 1) << "at most the task that berlin was at";
  }

  EXPECT_EQ(tasks["slow"], 20) << "as often as charite lets it";
  EXPECT_EQ(tasks["always"], 180);
}

TEST(FairnessBetweenStudies, TakesWorkForAnotherStudyForASignOfLife) {
  FederationInMemory federation;
  TinyStudy other = Named("other");
  other.quorum = "policy = \"at_least\"";
  federation.CreateAndStart(Named("busy"));
  federation.CreateAndStart(other);
  ASSERT_OK(federation.Train("charite", "other"));
  for (int step = 1; step <= 5; ++step) {
    federation.clock().Advance(std::chrono::minutes(20));
    ASSERT_OK(federation.coordinator().ReportProgress("berlin", "busy", 1, "training", step, 10));
    ASSERT_OK(federation.coordinator().Advance());
  }
  EXPECT_EQ(federation.Status("other").round, 1) << "berlin works, and comes to it";

  federation.clock().Advance(std::chrono::minutes(30));
  ASSERT_OK(federation.coordinator().Advance());

  EXPECT_EQ(federation.Status("other").round, 2);
}

TEST(FairnessBetweenStudies, LetsAStudyThatCannotGoOnHoldUpNoOther) {
  FederationInMemory federation;
  for (const char* name : {"broken", "sound"}) {
    federation.CreateAndStart(Named(name));
    ASSERT_OK(federation.Train("berlin", name));
    ASSERT_OK(federation.Train("charite", name));
  }
  const ModelFolder models(federation.folder() / "models");
  std::filesystem::create_directories(models.DraftOf("broken") / "in the way");

  EXPECT_FALSE(federation.coordinator().Advance().ok());

  EXPECT_EQ(federation.Status("broken").round, 1);
  EXPECT_EQ(federation.Status("sound").round, 2);
  EXPECT_EQ(federation.coordinator().NextDeadline(),
            federation.clock().Now() + std::chrono::seconds(5));
  ASSERT_OK(federation.Train("berlin", "sound"));
  ASSERT_OK(federation.Train("charite", "sound"));
  ASSERT_OK(federation.coordinator().Advance()) << "the broken one is not tried at each change";
  EXPECT_EQ(federation.Status("sound").round, 3);
  std::filesystem::remove_all(models.DraftOf("broken"));
  federation.clock().Advance(std::chrono::seconds(5));
  ASSERT_OK(federation.coordinator().Advance());
  EXPECT_EQ(federation.Status("broken").round, 2);
}

}  // namespace
}  // namespace isoscan
