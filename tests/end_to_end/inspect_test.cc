/// The real program on a folder in which nearly everything is wrong.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "client/imaging/image_file.h"
#include "deploy/sandbox/child_process.h"
#include "tests/broken_inputs/broken_inputs.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class Inspect : public testing::Test {
 protected:
  /// Ends with `code`; its output, and what it says besides, lie in log().
  void Run(std::vector<std::string> arguments, int code) {
    arguments.insert(arguments.begin(),
                     {std::string(ISOSCAN_PROGRAMS) + "/isoscan-client", "inspect"});
    auto child = ChildProcess::Start(
        {.title = "inspect", .arguments = arguments, .log = log(), .environment = {}});
    ASSERT_OK(child);
    ASSERT_TRUE(child->WaitFor(std::chrono::minutes(2), {})) << "inspect hangs";
    EXPECT_EQ(child->exit_code(), code) << Log();
  }

  std::filesystem::path log() const { return folder_.path() / "log"; }
  std::string Log() const {
    std::ifstream file(log());
    return {std::istreambuf_iterator<char>(file), {}};
  }
  /// Standard output, behind the lines on standard error.
  json Report() const {
    const std::string text = Log();
    return json::parse(text.substr(text.find("{\n")), nullptr, /*allow_exceptions=*/false);
  }

  TemporaryDirectory folder_;
};

void ExpectAllNamed(const json& report, const BrokenInputs& inputs) {
  ASSERT_TRUE(report.is_object());
  for (const BrokenInput& broken : inputs.broken) {
    const json& list = report[broken.quarantined ? "quarantined" : "flagged"];
    EXPECT_TRUE(std::any_of(list.begin(), list.end(),
                            [&broken](const json& finding) {
                              return finding["case"].get<std::string>().starts_with(broken.name) &&
                                     finding["fault"] == broken.fault &&
                                     !finding["path"].get<std::string>().empty() &&
                                     !finding["reason"].get<std::string>().empty();
                            }))
        << broken.name << " " << broken.fault;
  }
  std::set<std::string> told;
  for (const char* list : {"quarantined", "flagged"}) {
    for (const json& finding : report[list]) told.insert(finding["case"].get<std::string>());
  }
  for (const std::string& sound : inputs.sound) EXPECT_FALSE(told.contains(sound)) << sound;
}

TEST_F(Inspect, NamesEachFaultOfABrokenCohort) {
  const BrokenInputs inputs = MakeBrokenCohort(folder_.path() / "bids");

  Run({(folder_.path() / "bids").string(), "--json"}, 0);

  const json report = Report();
  ExpectAllNamed(report, inputs);
  EXPECT_LE(report["summary"]["peak_bytes"], report["summary"]["budget_bytes"]);
}

TEST_F(Inspect, NamesEachFaultOfBrokenDicom) {
  const BrokenInputs inputs = MakeBrokenDicom(folder_.path() / "dicom");

  Run({(folder_.path() / "dicom").string(), "--json"}, 0);

  ExpectAllNamed(Report(), inputs);
}

TEST_F(Inspect, ReadsNoVoxelForHeaders) {
  const BrokenInputs inputs = MakeBrokenCohort(folder_.path() / "bids");

  Run({(folder_.path() / "bids").string(), "--json", "--headers"}, 0);

  const json report = Report();
  ASSERT_TRUE(report.is_object());
  EXPECT_EQ(report["summary"]["cases"], inputs.broken.size() + inputs.sound.size() + 1);
  EXPECT_EQ(report["summary"]["budget_bytes"], 0);
  EXPECT_TRUE(report["summary"]["faults"].contains("grid"));
  EXPECT_FALSE(report["summary"]["faults"].contains("not_finite"));
}

/// One case cannot be split in two sides: said, but only behind the table.
TEST_F(Inspect, PrintsItsTableWhereTheStudysRuleHoldsNothingOut) {
  const std::filesystem::path anat = folder_.path() / "bids/sub-1/anat";
  const std::filesystem::path masks = folder_.path() / "bids/derivatives/m/sub-1/anat";
  std::filesystem::create_directories(anat);
  std::filesystem::create_directories(masks);
  Volume image{.geometry = {.size = {8, 8, 8}}, .voxels = {}};
  LabelMap labels{.geometry = image.geometry, .voxels = {}};
  for (int i = 0; i < 512; ++i) {
    image.voxels.push_back(static_cast<float>(i % 97));
    labels.voxels.push_back(i == 300 ? 1 : 0);
  }
  ASSERT_OK(WriteVolume(anat / "sub-1_T1w.nii.gz", image));
  ASSERT_OK(WriteLabelMap(masks / "sub-1_label-blob_mask.nii.gz", labels));
  std::ofstream(folder_.path() / "study.toml")
      << "name = \"blob\"\nchannels = [\"T1w\"]\nlabels = [\"blob\"]\n[held_out]\nrule = "
         "\"every\"\n[network]\nfeatures = [2, 4]\nstrides = [[1, 1, 1], [2, 2, 2]]\n"
         "[training]\npatch_size = [8, 8, 8]\n";

  Run({(folder_.path() / "bids").string(), "--study", (folder_.path() / "study.toml").string()}, 2);

  EXPECT_THAT(Log(), testing::AllOf(HasSubstr("0  sub-1  training"), HasSubstr("8 8 8"),
                                    HasSubstr("1 cases")));
}

TEST_F(Inspect, EndsWithTheCodeOfDataWhereNothingCanBeUsed) {
  std::filesystem::create_directory(folder_.path() / "none");
  Run({(folder_.path() / "none").string()}, 3);
  EXPECT_THAT(Log(), HasSubstr("it is empty"));

  std::ofstream(folder_.path() / "none/x.nii.gz") << "no image";
  Run({(folder_.path() / "none").string()}, 3);
  EXPECT_THAT(Log(), HasSubstr("no case can be used"));
}

}  // namespace
}  // namespace isoscan
