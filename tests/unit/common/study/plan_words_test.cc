#include "common/study/plan_words.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr char kHead[] = "name = \"a\"\nchannels = [\"T1w\"]\nlabels = [\"b\"]\n";

TEST(PlanInWords, SaysEveryNumberOfThePlan) {
  ASSERT_OK_AND_ASSIGN(const Study study, ParseStudy(std::string(kHead) + R"(
[harmonization]
spacing_mm = [3.6, 0.625, 0.625]
[network]
features = [8, 16, 32, 32]
strides = [[1,1,1],[1,2,2],[2,2,2],[2,2,2]]
kernels = [[1,3,3],[3,3,3],[3,3,3],[3,3,3]]
[training]
patch_size = [20, 48, 40]
batch_size = 3
)",
                                                     "study.toml"));

  EXPECT_THAT(
      PlanInWords(study),
      AllOf(HasSubstr("3.6 x 0.625 x 0.625 mm"), HasSubstr("4 levels"), HasSubstr("8, 16, 32, 32"),
            HasSubstr("strides     1 x 1 x 1, 1 x 2 x 2, 2 times 2 x 2 x 2\n"),
            HasSubstr("kernels     1 x 3 x 3, 3 times 3 x 3 x 3\n"),
            HasSubstr("3 patches of 20 x 48 x 40 voxels")));
}

TEST(PlanInWords, SaysWhatApprovingADraftSends) {
  ASSERT_OK_AND_ASSIGN(const Study draft,
                       ParseStudy(std::string(kHead) + "[planning]\n", "draft.toml"));

  EXPECT_THAT(PlanInWords(draft),
              AllOf(HasSubstr("preset plain, 8 GB"), HasSubstr("Approving the draft sends"),
                    HasSubstr("10 rounds of 50 steps")));
}

}  // namespace
}  // namespace isoscan
