#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "client/simulation/simulated_cohort.h"
#include "common/transfer/chunks.h"
#include "deploy/sandbox/local_federation.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {

/// Real programs on the loopback, with phantom cohorts: a bright ball whose place and shape differ
/// by patient.
class FederationTest : public ::testing::Test {
 protected:
  static constexpr std::chrono::minutes kPatience{3};

  /// A study of one label that a network learns in seconds.
  static std::string SmallStudy(int rounds, const std::string& more = "") {
    return "name = \"ball\"\nchannels = [\"T1w\"]\nlabels = [\"ball\"]\n"
           "[held_out]\nrule = \"every\"\nevery = 3\n"
           "[network]\nfeatures = [4, 8]\nstrides = [[1, 1, 1], [2, 2, 2]]\n"
           "[training]\npatch_size = [16, 16, 16]\nbatch_size = 2\nsteps_per_round = 12\n"
           "optimizer = \"adamw\"\nlearning_rate = 0.01\n"
           "[rounds]\nrounds = " +
           std::to_string(rounds) + "\n" + more;
  }

  static Anatomy Ball() {
    const Geometry grid{.size = {32, 32, 32}};
    Anatomy anatomy{.field_of_view = grid,
                    .labels = {.geometry = grid, .voxels = {}},
                    .image = {.geometry = grid, .voxels = {}},
                    .tissue = {}};
    for (int i = 0; i < 32 * 32 * 32; ++i) {
      const bool inside = std::hypot(i % 32 - 16, i / 32 % 32 - 15, i / 1024 - 17) < 8;
      anatomy.image.voxels.push_back(inside ? 200.0F : 50.0F);
      anatomy.labels.voxels.push_back(inside ? 1 : 0);
    }
    return anatomy;
  }

  static std::filesystem::path Programs() { return ISOSCAN_PROGRAMS; }

  std::filesystem::path MakeCohort(const std::string& site, double scale, double bias,
                                   std::int64_t patients = 6, double spacing_mm = 2) {
    const std::filesystem::path folder = folder_.path() / "cohorts" / site;
    EXPECT_OK(WriteSimulatedCohort(
        folder, Ball(), {{.name = "ball", .values = {1}}},
        {.name = site, .scale = scale, .bias = bias, .noise = 0.03},
        {.patients = patients, .variation = {.displacement_mm = 1.5}, .spacing_mm = spacing_mm}));
    return folder;
  }

  void EnrolWithCohort(const std::string& site, double scale, double bias) {
    ASSERT_OK(federation_.Enrol(site, {}));
    ASSERT_OK(federation_.Configure(
        {.name = site, .cohorts = {{.name = "", .folder = MakeCohort(site, scale, bias)}}}, "cpu",
        1));
  }

  Command Client(const std::string& site, std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(),
                     {"--config", (federation_.site_folder(site) / "client.toml").string()});
    return federation_.Client(site, std::move(arguments));
  }

  void CreateStudy(const std::string& toml) {
    const std::filesystem::path file = folder_.path() / "study.toml";
    ASSERT_OK(WriteFileAtomically(file, toml));
    ASSERT_OK(RunToEnd(federation_.Admin({"study", "create", file.string()}), {}));
  }

  void ApproveAll(const std::vector<std::string>& sites) {
    for (const std::string& site : sites) {
      ASSERT_OK(RunToEnd(Client(site, {"study", "approve", "ball", "--yes"}), {}));
    }
  }

  ChildProcess StartClient(const std::string& site) {
    auto client = ChildProcess::Start(Client(site, {"run", "--until-ended"}));
    EXPECT_OK(client);
    return *std::move(client);
  }

  std::string Report() {
    const std::filesystem::path out = folder_.path() / "report";
    EXPECT_OK(RunToEnd(federation_.Admin({"report", "ball", "--out", out.string()}), {}));
    return TextOf(out / "report.json");
  }

  static std::string TextOf(const std::filesystem::path& file) {
    std::ostringstream text;
    text << std::ifstream(file, std::ios::binary).rdbuf();
    return text.str();
  }

  TemporaryDirectory folder_;
  LocalFederation federation_{Programs(), folder_.path() / "state", folder_.path() / "logs"};
};

}  // namespace isoscan
