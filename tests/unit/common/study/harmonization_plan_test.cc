#include "common/study/harmonization_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "common/weights/sha256.h"
#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::HasSubstr;
using Plan = HarmonizationPlan;

Plan Complete() {
  Plan plan;
  plan.n4 = N4Plan();
  plan.mask = Plan::Mask::kThreshold;
  plan.normalize = Plan::Normalizer::kKde;
  plan.contrasts = {Plan::Contrast::kT1w, Plan::Contrast::kFlair};
  plan.spacing_mm = {0, 2, 0.9375};
  return plan;
}

// Published: other programs compute the digest from this text, and models carry it.
TEST(CanonicalText, IsOneLineOfSortedJson) {
  EXPECT_EQ(CanonicalText(Plan()), R"([{"orientation":"LPS","step":"geometry"},)"
                                   R"({"kind":"whole","outside":"keep","step":"mask"},)"
                                   R"({"method":"instance","step":"normalize"},)"
                                   R"({"spacing_mm":[0,0,0],"step":"resample"}])");
  EXPECT_EQ(CanonicalText(Complete()),
            R"([{"orientation":"LPS","step":"geometry"},)"
            R"({"control_points":4,"convergence":0.001,"iterations":50,"levels":4,"shrink":4,)"
            R"("step":"n4"},)"
            R"({"kind":"threshold","outside":"keep","step":"mask","threshold":0.1},)"
            R"({"bandwidth":"package","contrasts":["T1w","FLAIR"],"method":"kde",)"
            R"("step":"normalize"},)"
            R"({"interpolation":"linear","spacing_mm":[0,2,0.9375],"step":"resample"}])");
}

TEST(CanonicalText, HasTheStandardOrSaysThatThePopulationsIsMeant) {
  Plan plan;
  plan.normalize = Plan::Normalizer::kLsq;
  EXPECT_THAT(CanonicalText(plan), HasSubstr(R"("standard":"population")"));
  plan.standard = {1, 1.9, 2.6};
  EXPECT_THAT(CanonicalText(plan), HasSubstr(R"("standard":[1,1.9,2.6])"));
}

TEST(CanonicalText, LeavesOutWhatNoStepUses) {
  Plan plan;
  plan.threshold = 0.7;
  plan.tissue = Plan::Tissue::kCsf;
  plan.bandwidth = Plan::Bandwidth::kScott;
  plan.standard = {1, 2, 3};
  plan.contrasts = {Plan::Contrast::kT2w};
  plan.interpolation = Plan::Interpolation::kBSpline;

  EXPECT_EQ(CanonicalText(plan), CanonicalText(Plan()));
}

TEST(HarmonizationDigest, ChangesWithEveryParameterThatIsUsed) {
  std::vector<Plan> plans(17, Complete());
  plans[1].n4.reset();
  plans[2].n4->shrink = 3;
  plans[3].n4->levels = 3;
  plans[4].n4->iterations = 49;
  plans[5].n4->convergence = 1e-4;
  plans[6].n4->control_points = 5;
  plans[7].mask = Plan::Mask::kOtsu;
  plans[8].threshold = 0.1000000001;
  plans[9].normalize = Plan::Normalizer::kLsq;
  plans[10].contrasts[1] = Plan::Contrast::kPdw;
  plans[11].bandwidth = Plan::Bandwidth::kScott;
  plans[12].spacing_mm[0] = 1;
  plans[13].interpolation = Plan::Interpolation::kBSpline;
  plans[14].normalize = Plan::Normalizer::kFcm;
  plans[15].normalize = Plan::Normalizer::kFcm;
  plans[15].tissue = Plan::Tissue::kGreyMatter;
  plans[16].normalize = Plan::Normalizer::kLsq;
  plans[16].standard = {1, 1.9, 2.6};
  std::set<std::string> digests;
  for (const Plan& plan : plans) digests.insert(HarmonizationDigest(plan));

  EXPECT_EQ(digests.size(), plans.size());
  EXPECT_EQ(HarmonizationDigest(Plan()), Sha256Of(CanonicalText(Plan())));
}

TEST(CheckHarmonization, TakesTheMetadataOfThePlanAndNoOther) {
  Plan other;
  other.mask = Plan::Mask::kOtsu;

  EXPECT_OK(CheckHarmonization("north's update", HarmonizationMetadata(Plan()), Plan()));
  EXPECT_THAT(CheckHarmonization("north's update", HarmonizationMetadata(other), Plan()),
              StatusIs(StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("north's update"), HasSubstr(HarmonizationDigest(other)),
                             HasSubstr(HarmonizationDigest(Plan())))));
}

TEST(CheckHarmonization, RefusesMetadataThatSaysNothingOrContradictsItself) {
  EXPECT_THAT(CheckHarmonization("north's update", {{"study", "x"}}, Plan()),
              StatusIs(StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("does not say"), HasSubstr(HarmonizationDigest(Plan())))));

  auto metadata = HarmonizationMetadata(Plan());
  metadata.at("harmonization") = CanonicalText(Complete());
  EXPECT_THAT(CheckHarmonization("north's update", metadata, Plan()),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr(HarmonizationDigest(Complete()))));
}

TEST(CheckHarmonization, NeverPrintsWhatCouldForgeALogLine) {
  auto metadata = HarmonizationMetadata(Plan());
  metadata.at("harmonization_sha256") = "x\nupdate taken" + std::string(1000, 'x');
  const absl::Status refused = CheckHarmonization("north's update", metadata, Plan());

  EXPECT_THAT(refused, StatusIs(StatusCode::kInvalidArgument, HasSubstr("x?update taken")));
  EXPECT_LT(refused.message().size(), 500);
}

TEST(ContrastOf, KnowsTheNamesThatCohortsUse) {
  EXPECT_EQ(ContrastOf("T1w"), Plan::Contrast::kT1w);
  EXPECT_EQ(ContrastOf("t1"), Plan::Contrast::kT1w);
  EXPECT_EQ(ContrastOf("T2w"), Plan::Contrast::kT2w);
  EXPECT_EQ(ContrastOf("flair"), Plan::Contrast::kFlair);
  EXPECT_EQ(ContrastOf("PD"), Plan::Contrast::kPdw);
  for (const char* unknown : {"MRI", "", "w", "T1wx", "T"}) {
    EXPECT_EQ(ContrastOf(unknown), std::nullopt) << unknown;
  }
}

TEST(InWords, SaysWhatIsDone) {
  EXPECT_EQ(InWords(Plan()), "instance normalisation over the whole volume");
  Plan plan;
  plan.n4 = N4Plan();
  plan.mask = Plan::Mask::kOtsu;
  EXPECT_EQ(InWords(plan), "N4, then instance normalisation over Otsu's foreground");
}

}  // namespace
}  // namespace isoscan
