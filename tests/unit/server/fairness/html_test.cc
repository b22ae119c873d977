#include "server/fairness/html.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>

#include "common/markup/escape.h"

namespace isoscan {
namespace {

using testing::HasSubstr;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

TEST(EscapeMarkup, LeavesNoMarkupAndNoControlCharacter) {
  EXPECT_EQ(EscapeMarkup("<a href=\"x\" b='y'>&"),
            "&lt;a href=&quot;x&quot; b=&#39;y&#39;&gt;&amp;");
  EXPECT_EQ(EscapeMarkup(std::string_view("a\0b\x1b", 4)), "a\uFFFDb\uFFFD");
  EXPECT_EQ(EscapeMarkup("Zürich\n"), "Zürich\n");
}

TEST(Format, ScoresHaveThreeDecimals) {
  EXPECT_EQ(FormatScore(0.81249), "0.812");
  EXPECT_EQ(FormatScore(kNaN), kNoNumber);
}

TEST(Format, DifferencesHaveASignUnlessTheyRoundToZero) {
  EXPECT_EQ(FormatDifference(0.12), "+0.120");
  EXPECT_EQ(FormatDifference(-0.0306), "−0.031");
  EXPECT_EQ(FormatDifference(-0.0001), "0.000");
  EXPECT_EQ(FormatDifference(kNaN), kNoNumber);
}

TEST(Format, CountsAreGroupedByThousands) {
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(1'234'567), "1,234,567");
  EXPECT_EQ(FormatCount(-1234), "-1,234");
  EXPECT_EQ(FormatCount(1, "case"), "1 case");
  EXPECT_EQ(FormatCount(0, "case"), "0 cases");
}

TEST(Format, SecondsNeverReadSixty) {
  EXPECT_EQ(FormatSeconds(0.0042), "4 ms");
  EXPECT_EQ(FormatSeconds(4.25), "4.2 s");
  EXPECT_EQ(FormatSeconds(59.96), "1 min 00 s");
  EXPECT_EQ(FormatSeconds(3599.6), "1 h 00 min");
  EXPECT_EQ(FormatSeconds(7500), "2 h 05 min");
  EXPECT_EQ(FormatSeconds(kNaN), kNoNumber);
}

TEST(Format, TimesAreUtcAndTheEpochMeansNotYet) {
  EXPECT_EQ(FormatTime(Time{std::chrono::seconds(1'767'600'000)}), "2026-01-05 08:00 UTC");
  EXPECT_EQ(FormatTime(Time{}), kNoNumber);
}

TEST(Format, RoundsThatFollowEachOtherAreOneRange) {
  EXPECT_EQ(FormatRanges({1, 2, 3, 7, 9, 10}), "1–3, 7, 9, 10");
  EXPECT_EQ(FormatRanges({}), "");
}

TEST(Table, NamesEveryHeadersScopeAndPointsToTheJson) {
  Table table("t", "What it shows", {"Hospital", "Dice"});
  table.Row("north", {{"0.800", "/sites/0/dice/mean"}});

  const std::string html = table.Html();
  EXPECT_THAT(html, HasSubstr("aria-labelledby=\"t-note\""));
  EXPECT_THAT(html, HasSubstr("<th scope=\"col\">Dice</th>"));
  EXPECT_THAT(html, HasSubstr("<th scope=\"row\">north</th>"));
  EXPECT_THAT(html, HasSubstr("<td data-json=\"/sites/0/dice/mean\">0.800</td>"));
}

}  // namespace
}  // namespace isoscan
