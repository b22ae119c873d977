#include "common/config/toml_overlay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/config/config_reader.h"
#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kBase[] = R"(name = "study"  # a comment
[network]
features = [16, 32]
norm = "instance"
[harmonization]
normalize = "instance"
)";

ConfigReader Read(const absl::StatusOr<std::string>& text) {
  EXPECT_OK(text);
  return *ConfigReader::Parse(*text, "merged");
}

TEST(TomlOverlay, ReplacesValuesAndKeepsTheirNeighbours) {
  ConfigReader merged = Read(WithOverlay(kBase, "network.norm = \"batch\"\nseed = 7"));

  EXPECT_EQ(merged.Text("name"), "study");
  EXPECT_EQ(merged.Integer("seed", {}), 7);
  EXPECT_EQ(merged.Table("network").Text("norm"), "batch");
  EXPECT_THAT(merged.Table("network").Integers("features", {}), ElementsAre(16, 32));
  EXPECT_EQ(merged.Table("harmonization").Text("normalize"), "instance");
  EXPECT_OK(merged.Finish());
}

TEST(TomlOverlay, AddsTablesThatTheBaseDoesNotHave) {
  ConfigReader merged = Read(WithOverlay(kBase, "harmonization.n4 = { shrink = 2 }"));

  EXPECT_EQ(merged.Table("harmonization").Table("n4").Integer("shrink", {}), 2);
  EXPECT_EQ(merged.Table("harmonization").Text("normalize"), "instance");
}

TEST(TomlOverlay, ReplacesArraysWhole) {
  ConfigReader merged = Read(WithOverlay(kBase, "network.features = [8]"));

  EXPECT_THAT(merged.Table("network").Integers("features", {}), ElementsAre(8));
}

TEST(TomlOverlay, GivesTheSameTextForTheSameContent) {
  EXPECT_EQ(*WithOverlay(kBase, ""), *WithOverlay(*WithOverlay(kBase, ""), ""));
}

TEST(TomlOverlay, SaysWhatIsNotToml) {
  EXPECT_THAT(WithOverlay(kBase, "a = "),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("laid over"), HasSubstr("line 1"))));
  EXPECT_THAT(WithOverlay("\nb = [", ""),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("the text")));
}

TEST(WithoutKey, TakesOneTableOutAndNothingElse) {
  ConfigReader left = Read(WithoutKey(kBase, "network"));

  EXPECT_FALSE(left.Has("network"));
  EXPECT_EQ(left.Text("name"), "study");
  EXPECT_EQ(left.Table("harmonization").Text("normalize"), "instance");
  EXPECT_OK(left.Finish());
  EXPECT_EQ(Read(WithoutKey(kBase, "absent")).Keys().size(), 3U);
}

}  // namespace
}  // namespace isoscan
