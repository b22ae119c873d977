#include "common/statistics/holm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace isoscan {
namespace {

using testing::DoubleEq;
using testing::ElementsAre;
using testing::IsEmpty;

TEST(Holm, MultipliesTheLeastByTheNumberOfHypothesesAndTheNextByOneLess) {
  EXPECT_THAT(Holm(std::vector{0.02, 0.01, 0.4}),
              ElementsAre(DoubleEq(0.04), DoubleEq(0.03), DoubleEq(0.4)));
}

TEST(Holm, NeverOrdersHypothesesAnew) {
  // 0.011 times 2 is less than 0.01 times 3.
  EXPECT_THAT(Holm(std::vector{0.011, 0.01, 0.9}),
              ElementsAre(DoubleEq(0.03), DoubleEq(0.03), DoubleEq(0.9)));
}

TEST(Holm, LeavesASingleHypothesisAlone) {
  EXPECT_THAT(Holm(std::vector{0.02}), ElementsAre(0.02));
  EXPECT_THAT(Holm({}), IsEmpty());
}

TEST(Holm, CountsOnlyWhatCanBeTested) {
  const std::vector<double> adjusted =
      Holm(std::vector{std::numeric_limits<double>::quiet_NaN(), 0.02, 0.5});
  EXPECT_TRUE(std::isnan(adjusted[0]));
  EXPECT_EQ(adjusted[1], 0.04);
  EXPECT_EQ(adjusted[2], 0.5);
}

}  // namespace
}  // namespace isoscan
