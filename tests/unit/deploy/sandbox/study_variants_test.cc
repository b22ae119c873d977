#include "deploy/sandbox/study_variants.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "common/study/study.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kStudy[] = R"(name = "blobs"
seed = 5
channels = ["T1w"]
labels = ["blob"]
[network]
features = [2, 4]
strides = [[1, 1, 1], [2, 2, 2]]
[training]
patch_size = [8, 8, 8]
)";

class StudyVariantsTest : public testing::Test {
 protected:
  absl::StatusOr<std::vector<StudyVariant>> Variants(const std::string& axes) {
    std::ofstream(folder_.path() / "axes.toml") << axes;
    return StudyVariants(kStudy, folder_.path() / "axes.toml");
  }

  const TemporaryDirectory folder_;
};

TEST_F(StudyVariantsTest, AreEveryCombinationOfTheOptions) {
  const auto variants = Variants(R"(
[[axis]]
name = "layers"
[[axis.option]]
name = "instance"
[[axis.option]]
name = "batch"
set.network.norm = "batch"
[[axis]]
name = "steps"
[[axis.option]]
name = "few"
set.training = { steps_per_round = 3, batch_size = 4 }
[[axis.option]]
name = "many"
set.training.steps_per_round = 300
)");

  ASSERT_OK(variants);
  std::vector<std::string> names;
  for (const StudyVariant& variant : *variants) names.push_back(variant.name);
  EXPECT_THAT(names, ElementsAre("instance/few", "instance/many", "batch/few", "batch/many"));
  const Study study = *ParseStudy(variants->at(2).toml, "variant");
  EXPECT_EQ(study.network.norm, NetworkPlan::Norm::kBatch);
  EXPECT_EQ(study.training.steps_per_round, 3);
  EXPECT_EQ(study.training.batch_size, 4);
  EXPECT_EQ(study.training.patch_size, (Triple{8, 8, 8}));
}

TEST_F(StudyVariantsTest, ShareWhatIsSetForAllOfThemUnlessAnOptionSaysOtherwise) {
  const auto variants = Variants(R"(
set.training.steps_per_round = 7
set.rounds.rounds = 2
[[axis]]
name = "steps"
[[axis.option]]
name = "short"
[[axis.option]]
name = "long"
set = { training.steps_per_round = 9 }
)");

  ASSERT_OK(variants);
  const Study first = *ParseStudy(variants->at(0).toml, "variant");
  const Study second = *ParseStudy(variants->at(1).toml, "variant");
  EXPECT_EQ(first.training.steps_per_round, 7);
  EXPECT_EQ(second.training.steps_per_round, 9);
  EXPECT_EQ(first.rounds.rounds, 2);
  EXPECT_EQ(second.rounds.rounds, 2);
}

TEST_F(StudyVariantsTest, AreCheckedBeforeAnyIsRun) {
  EXPECT_THAT(Variants("[[axis]]\nname = \"a\"\n[[axis.option]]\nname = \"good\"\n"
                       "[[axis.option]]\nname = \"bad\"\nset.network.norm = \"bacth\"\n"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("variant bad"), HasSubstr("norm"))));
}

TEST_F(StudyVariantsTest, HaveNamesThatCanBeFolders) {
  EXPECT_THAT(Variants("[[axis]]\nname = \"a\"\n[[axis.option]]\nname = \"../b\"\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("../b")));
  EXPECT_THAT(Variants("[[axis]]\nname = \"a\"\n[[axis.option]]\nname = \"b\"\n"
                       "[[axis.option]]\nname = \"b\"\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("twice")));
}

TEST_F(StudyVariantsTest, SayWhatAnAxesFileLacks) {
  EXPECT_THAT(Variants(""), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("[[axis]]")));
  EXPECT_THAT(Variants("[[axis]]\nname = \"a\"\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("[[axis.option]]")));
  EXPECT_THAT(Variants("[[axis]]\nname = \"a\"\n[[axis.option]]\nname = \"b\"\nsets.x = 1\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("did you mean")));
  EXPECT_THAT(StudyVariants(kStudy, folder_.path() / "none.toml"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none.toml")));
}

TEST(Study, OfThePooledArmHasTheStepsOfAllSites) {
  EXPECT_EQ(ParseStudy(*WithStepsMultiplied(kStudy, 3), "pooled")->training.steps_per_round, 150);
}

TEST(Study, OfAnotherRepetitionDrawsOtherNumbers) {
  EXPECT_EQ(ParseStudy(*WithSeedMoved(kStudy, 2), "third")->seed, 7U);
  EXPECT_EQ(ParseStudy(*WithSeedMoved(kStudy, 0), "first")->seed, 5U);
}

}  // namespace
}  // namespace isoscan
