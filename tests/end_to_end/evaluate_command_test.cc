/// `isoscan-client evaluate` of masks in files, as a process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "client/imaging/image_file.h"
#include "deploy/sandbox/child_process.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/evaluation/masks.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

std::string TextOf(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class EvaluateCommand : public testing::Test {
 protected:
  void Write(const std::string& name, const LabelMap& labels) const {
    fs::create_directories((folder_.path() / name).parent_path());
    ASSERT_OK(WriteLabelMap(folder_.path() / name, labels));
  }

  // Ends with `code`; what it printed.
  std::string Run(const std::vector<std::string>& more, int code) const {
    std::vector<std::string> arguments{std::string(ISOSCAN_PROGRAMS) + "/isoscan-client",
                                       "evaluate"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const fs::path log = folder_.path() / "log";
    fs::remove(log);
    auto child = ChildProcess::Start(
        {.title = "evaluate", .arguments = std::move(arguments), .log = log, .environment = {}});
    EXPECT_OK(child);
    EXPECT_TRUE(child->WaitFor(std::chrono::minutes(2), {})) << "evaluate hangs";
    EXPECT_EQ(child->exit_code(), code) << TextOf(log);
    return TextOf(log);
  }

  std::string Path(const std::string& name) const { return (folder_.path() / name).string(); }

  const TemporaryDirectory folder_;
};

TEST_F(EvaluateCommand, ScoresFilesWithoutAStudyAndNamesWhatItRefuses) {
  LabelMap reference = EmptyMap({20, 20, 20});
  Fill(reference, {4, 4, 4}, {10, 10, 10}, 1);
  Fill(reference, {12, 12, 12}, {14, 14, 14}, 3);
  LabelMap predicted = EmptyMap({20, 20, 20});
  Fill(predicted, {4, 4, 4}, {11, 10, 10}, 1);
  for (const char* name : {"right", "wrong_grid", "lonely"}) {
    Write("expected/" + std::string(name) + ".nii.gz", reference);
  }
  Write("found/right.nii.gz", predicted);
  Write("found/wrong_grid.nii.gz", EmptyMap({20, 20, 19}));

  const std::string printed =
      Run({"--predictions", Path("found"), "--references", Path("expected"), "--labels",
           "1=organ,3=tumour", "--tolerance-mm", "0.5,1", "--definition", "voxels", "--out",
           Path("out.json"), "--csv", Path("out.csv")},
          /*code=*/3);

  EXPECT_THAT(printed, AllOf(HasSubstr("lonely.nii.gz has no counterpart"),
                             HasSubstr("wrong_grid.nii.gz does not lie on the grid"),
                             HasSubstr("NSD 0.5 mm"), HasSubstr("miss"),
                             HasSubstr("1 cases scored, 2 refused")));
  const json result = json::parse(TextOf(Path("out.json")));
  EXPECT_EQ(result["surface"], "voxels");
  ASSERT_EQ(result["cases"].size(), 1u);
  const json& organ = result["cases"][0]["labels"]["organ"];
  EXPECT_EQ(organ["outcome"], "scored");
  EXPECT_NEAR(organ["dice"].get<double>(), 2 * 216.0 / (216 + 252), 1e-12);
  EXPECT_EQ(organ["hd_mm"], 1);
  EXPECT_EQ(organ["nsd"][1], 1);
  EXPECT_NEAR(organ["relative_volume_error"].get<double>(), 1.0 / 6, 1e-12);
  EXPECT_EQ(result["labels"]["tumour"]["misses"], 1);
  EXPECT_EQ(result["labels"]["tumour"]["dice"]["mean"], 0);
  EXPECT_GT(result["labels"]["tumour"]["hd95_mm"]["mean"], 34);
  EXPECT_EQ(result["refused"].size(), 2u);
  const std::string csv = TextOf(Path("out.csv"));
  EXPECT_THAT(csv,
              AllOf(HasSubstr("nsd_0.5mm,nsd_1mm"), HasSubstr(",right,organ,scored,0.92307692"),
                    HasSubstr(",right,tumour,miss,0,")));
  // Every row has as many cells as the head; those with quotes may hold commas in them.
  std::istringstream lines(csv);
  std::string line;
  std::size_t commas = 0;
  while (std::getline(lines, line)) {
    const auto here = static_cast<std::size_t>(std::count(line.begin(), line.end(), ','));
    if (line.find('"') != std::string::npos) continue;
    if (line.starts_with("cohort,")) commas = here;
    EXPECT_EQ(here, commas) << line;
  }
}

TEST_F(EvaluateCommand, ScoresTwoFilesWithTheLabelsThatAreInThem) {
  LabelMap labels = EmptyMap({12, 12, 12});
  Fill(labels, {2, 2, 2}, {6, 6, 6}, 5);
  Write("p.nii.gz", labels);
  Write("r.nii.gz", labels);

  const json result = json::parse(
      Run({"--predictions", Path("p.nii.gz"), "--references", Path("r.nii.gz"), "--json"}, 0));

  EXPECT_EQ(result["surface"], "surface");
  EXPECT_EQ(result["dice"]["mean"], 1);
  EXPECT_EQ(result["labels"]["5"]["hd95_mm"]["median"], 0);
}

TEST_F(EvaluateCommand, TellsWhichOptionsBelongTogether) {
  EXPECT_THAT(Run({}, 2), HasSubstr("--model, or --predictions and --references"));
  EXPECT_THAT(Run({"--predictions", Path("p")}, 2), HasSubstr("--references"));
  EXPECT_THAT(Run({"--predictions", Path("p"), "--references", Path("r"), "--model", "m"}, 2),
              HasSubstr("excludes"));
  EXPECT_THAT(Run({"--predictions", Path("p"), "--references", Path("r"), "--labels", "0"}, 2),
              HasSubstr("--labels 0"));
  EXPECT_THAT(Run({"--model", "m", "--study", Path("no.toml"), "--tolerance-mm", "1,2", "."}, 3),
              HasSubstr("no.toml"));
  EXPECT_THAT(Run({"--predictions", Path("p"), "--references", Path("r")}, 3),
              HasSubstr("cannot open"));
}

}  // namespace
}  // namespace isoscan
