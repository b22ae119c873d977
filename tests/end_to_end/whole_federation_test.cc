#include <nlohmann/json.hpp>

#include "tests/end_to_end/federation_fixture.h"

namespace isoscan {
namespace {

using WholeFederationTest = FederationTest;
using nlohmann::json;

TEST_F(WholeFederationTest, TwoHospitalsOfOtherScaleAndBiasTrainOneModel) {
  ASSERT_OK(federation_.InitServer({}));
  EnrolWithCohort("north", 1, 0);
  EnrolWithCohort("south", 40, 1000);
  CreateStudy(SmallStudy(3));
  ApproveAll({"north", "south"});
  ASSERT_OK(RunToEnd(federation_.Admin({"study", "start", "ball"}), {}));

  ChildProcess north = StartClient("north");
  ChildProcess south = StartClient("south");
  ASSERT_OK(RunToEnd(federation_.Admin({"study", "watch", "ball"}), {}));
  ASSERT_TRUE(north.WaitFor(kPatience, {}));
  ASSERT_TRUE(south.WaitFor(kPatience, {}));

  EXPECT_OK(north.Outcome());
  EXPECT_OK(south.Outcome());
  const json report = json::parse(Report());
  ASSERT_EQ(report.at("sites").size(), 2U);
  for (const json& site : report.at("sites")) {
    EXPECT_EQ(site.at("held_out_cases"), 2);
    EXPECT_GT(site.at("dice").at("mean").get<double>(), 0.7) << site;
  }
}

/// The study goes on without a hospital that dies in the middle of its training, and the hospital
/// is asked again once it is back.
TEST_F(WholeFederationTest, KilledHospitalIsMissedAccordingToTheQuorumAndComesBack) {
  ASSERT_OK(federation_.InitServer({}));
  EnrolWithCohort("north", 1, 0);
  EnrolWithCohort("south", 3, 100);
  CreateStudy(SmallStudy(400,
                         "no_progress_minutes = 0.05\n[rounds.quorum]\npolicy = "
                         "\"at_least\"\nminimum_sites = 1\n"));
  ApproveAll({"north", "south"});
  ASSERT_OK(RunToEnd(federation_.Admin({"study", "start", "ball"}), {}));
  ChildProcess north = StartClient("north");
  ChildProcess south = StartClient("south");
  const auto contributions = [&](const std::string& site) {
    std::map<std::string, int> outcomes;
    const json report = json::parse(Report());
    for (const json& round : report.at("participation")) {
      for (const json& row : round.at("sites")) {
        if (row.at("site") == site) ++outcomes[row.at("outcome").get<std::string>()];
      }
    }
    return outcomes;
  };
  const auto wait_for = [&](const std::string& outcome, int more_than) {
    for (int attempt = 0; attempt < 120; ++attempt) {
      if (contributions("south")[outcome] > more_than) return true;
      north.WaitFor(std::chrono::milliseconds(500), {});
    }
    return false;
  };
  ASSERT_TRUE(wait_for("contributed", 0));

  ASSERT_EQ(::kill(south.id(), SIGKILL), 0);
  ASSERT_TRUE(south.WaitFor(kPatience, {}));
  EXPECT_TRUE(wait_for("left out", 0)) << "the round waited for a hospital that was gone";
  const int before = contributions("south")["contributed"];
  ChildProcess back = StartClient("south");
  EXPECT_TRUE(wait_for("contributed", before)) << "the hospital was not asked again";

  ASSERT_OK(RunToEnd(federation_.Admin({"study", "stop", "ball"}), {}));
  ASSERT_TRUE(north.WaitFor(kPatience, {}));
  ASSERT_TRUE(back.WaitFor(kPatience, {}));
  EXPECT_OK(north.Outcome());
  EXPECT_OK(back.Outcome());
}

TEST_F(WholeFederationTest, ServerThatIsKilledGoesOnWithTheStudy) {
  ASSERT_OK(federation_.InitServer({}));
  EnrolWithCohort("north", 1, 0);
  CreateStudy(SmallStudy(6));
  ApproveAll({"north"});
  ASSERT_OK(RunToEnd(federation_.Admin({"study", "start", "ball"}), {}));
  ChildProcess north = StartClient("north");
  for (int attempt = 0; attempt < 120 && Report().find("\"contributed\"") == std::string::npos;
       ++attempt) {
    north.WaitFor(std::chrono::milliseconds(100), {});
  }

  ASSERT_EQ(::kill(federation_.server().id(), SIGKILL), 0);
  ASSERT_TRUE(federation_.server().WaitFor(kPatience, {}));
  ASSERT_OK(federation_.StartServer({}));

  ASSERT_TRUE(north.WaitFor(kPatience, {}));
  EXPECT_OK(north.Outcome());
  EXPECT_EQ(json::parse(Report()).at("participation").size(), 6U);
}

}  // namespace
}  // namespace isoscan
