#include "common/study/population_standard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using testing::HasSubstr;
using Plan = HarmonizationPlan;

TEST(TakeStandard, ReadsBackTheSitesMeanExactly) {
  Plan used;
  used.normalize = Plan::Normalizer::kLsq;
  used.standard = {2.6e-7, 1.0 / 3, 1};
  Plan declared = used;
  declared.standard.clear();

  TakeStandard(HarmonizationMetadata(used), 1, declared);

  EXPECT_EQ(declared.standard, used.standard);
  EXPECT_OK(CheckHarmonization("the model", HarmonizationMetadata(used), declared));
}

TEST(TakeStandard, LeavesWhatCannotBeAStandard) {
  for (const char* broken :
       {"", R"("standard":[)", R"("standard":[1,)", R"("standard":[x])", R"("standard":[1,2])",
        R"("standard":[1,2,3,4])", R"("standard":[1,2,nan])", R"("standard":[1,3,2])",
        R"("standard":"population")"}) {
    Plan plan;
    plan.normalize = Plan::Normalizer::kLsq;
    TakeStandard({{"harmonization", broken}}, 1, plan);
    EXPECT_THAT(plan.standard, testing::IsEmpty()) << broken;
  }
}

TEST(StandardFault, NamesWhatIsWrong) {
  const auto fault = [](const std::vector<double>& standard) {
    return StandardFault(standard, Plan::Normalizer::kLsq, 2);
  };
  EXPECT_EQ(fault({1, 2, 2, -1, 0, 1e6}), "");
  EXPECT_EQ(fault({1, 2, 3}), "has 3 numbers, expected 6");
  EXPECT_EQ(fault({1, 2, 3, 1, 3, 2}), "descends from 3 to 2");
  EXPECT_THAT(fault({1, 2, NAN, 1, 2, 3}), HasSubstr("has the number nan"));
  EXPECT_THAT(fault({1, 2, 3, 1, 2, 1e7}), HasSubstr("has the number 10000000, allowed"));
  EXPECT_EQ(StandardFault({}, Plan::Normalizer::kInstance, 3), "");
}

}  // namespace
}  // namespace isoscan
