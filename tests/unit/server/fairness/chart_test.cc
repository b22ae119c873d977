#include "server/fairness/chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace isoscan {
namespace {

using testing::AllOf;
using testing::DoubleNear;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

TEST(Ticks, AreRoundNumbersInsideTheRange) {
  EXPECT_THAT(Ticks(0, 1, 5), ElementsAre(0, DoubleNear(0.2, 1e-12), DoubleNear(0.4, 1e-12),
                                          DoubleNear(0.6, 1e-12), DoubleNear(0.8, 1e-12), 1));
  EXPECT_THAT(Ticks(-3.7, 5.2, 4), ElementsAre(0, 5));
  EXPECT_THAT(Ticks(13, 640, 4), ElementsAre(200, 400, 600));
}

TEST(Ticks, EndForRangesThatLeaveNoRoom) {
  EXPECT_THAT(Ticks(5, 5, 4), ElementsAre(5));
  EXPECT_THAT(Ticks(1e15, 1e15 + 1, 4), SizeIs(testing::Le(9)));
}

TEST(Path, LeavesAGapWhereThereIsNoNumber) {
  const double none = std::numeric_limits<double>::quiet_NaN();

  EXPECT_EQ(PathThrough({{0, 1}, {1, 2.5}, {2, none}, {3, 4}, {4, 4.333}}),
            "M0 1L1 2.5M3 4L4 4.33");
  EXPECT_THAT(PathThrough({{0, none}}), IsEmpty());
}

TEST(Picture, SaysWhatItShowsAndEscapesIt) {
  Picture picture("p", "a <b>", "c & d", Picture::Width::kFixed, 10, 20);
  picture.Text({1, 2}, "start", "tick", "</svg><script>");

  EXPECT_THAT(picture.Svg(),
              AllOf(HasSubstr("<title id=\"p-title\">a &lt;b&gt;</title>"),
                    HasSubstr("<desc id=\"p-description\">c &amp; d</desc>"),
                    HasSubstr("&lt;/svg&gt;&lt;script&gt;"), Not(HasSubstr("<script>"))));
}

TEST(Picture, PlacesMarksInPerCentOfAFluidPage) {
  Picture picture("p", "", "", Picture::Width::kFluid, 0, 20);
  picture.Draw(Mark::kDiamond, {43.25, 5}, 4, "after");

  EXPECT_THAT(picture.Svg(), HasSubstr("x=\"43.25%\" y=\"5\""));
}

}  // namespace
}  // namespace isoscan
