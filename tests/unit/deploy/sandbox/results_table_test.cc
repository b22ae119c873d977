#include "deploy/sandbox/results_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using ::testing::HasSubstr;

TEST(ResultsTable, AlignsItsColumns) {
  EXPECT_EQ(AlignedTable({{"site", "Dice"}, {"north", "0.9"}}), "site   Dice\nnorth   0.9\n");
}

TEST(ResultsTable, ShowsADashForNoScore) {
  EXPECT_EQ(DiceText(std::nan("")), "-");
  EXPECT_EQ(DiceText(0.8124), "0.812");
}

TEST(ResultsTable, NamesAFileThatIsNoReport) {
  const TemporaryDirectory folder;
  std::ofstream(folder.path() / "report.json") << "{\"sites\": 3}";

  EXPECT_THAT(ReadReport(folder.path() / "report.json"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("report.json")));
  EXPECT_THAT(ReadReport(folder.path() / "other.json"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("other.json")));
}

}  // namespace
}  // namespace isoscan
