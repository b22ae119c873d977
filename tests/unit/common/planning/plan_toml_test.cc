#include "common/planning/plan_toml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "common/config/toml_overlay.h"
#include "common/study/study.h"
#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kHead[] =
    "name = \"prostate\"\nchannels = [\"T2w\", \"ADC\"]\nlabels = [\"a\", \"b\"]\n";

CohortPlan PlanOf(const std::array<double, 3>& spacing_mm, const Triple& size, PlanPreset preset) {
  Fingerprint fingerprint = Fingerprint::Empty(2, 3);
  for (int i = 0; i < 32; ++i) {
    EXPECT_OK(
        fingerprint.AddCase({.spacing_mm = spacing_mm, .size = size, .foreground = {{}, {}}}));
  }
  absl::StatusOr<CohortPlan> plan = PlanNetwork(fingerprint, preset, DefaultMemoryGb(preset));
  EXPECT_OK(plan);
  return *plan;
}

CohortPlan Prostate() { return PlanOf({3.6, 0.625, 0.625}, {20, 320, 319}, PlanPreset::kPlain); }

void ExpectPlan(const Study& study, const GridPlan& grid) {
  EXPECT_EQ(study.network.features, grid.features);
  EXPECT_EQ(study.network.strides, grid.strides);
  EXPECT_EQ(study.network.kernels, grid.kernels);
  EXPECT_EQ(study.network.convolutions_per_stage, grid.decoder_convolutions.front());
  EXPECT_EQ(study.training.patch_size, grid.patch_size);
  EXPECT_EQ(study.training.batch_size, grid.batch_size);
  EXPECT_EQ(study.harmonization.spacing_mm, grid.spacing_mm);
}

TEST(PlanToml, CompletesAStudy) {
  const CohortPlan plan = Prostate();
  const std::string toml = PlanToml(plan);
  EXPECT_THAT(toml, HasSubstr("spacing_mm = [3.6, 0.625, 0.625]\n"));

  ASSERT_OK_AND_ASSIGN(const Study study, ParseStudy(kHead + toml, "study.toml"));

  ExpectPlan(study, plan.full_resolution);
}

TEST(PlanToml, LiesOverAStudyAndLeavesTheRest) {
  const CohortPlan plan = PlanOf({1, 1, 1}, {36, 50, 35}, PlanPreset::kPlain);
  const std::string toml = PlanToml(plan);
  const std::string base = std::string(kHead) + R"(
[harmonization]
mask = "otsu"
spacing_mm = [2, 2, 2]
[network]
features = [8, 16]
strides = [[1,1,1],[2,2,2]]
norm = "group"
[training]
patch_size = [10, 10, 10]
steps_per_round = 7
)";

  ASSERT_OK_AND_ASSIGN(const std::string merged, WithOverlay(base, toml));
  ASSERT_OK_AND_ASSIGN(const Study study, ParseStudy(merged, "study.toml"));

  ExpectPlan(study, plan.full_resolution);
  EXPECT_EQ(study.training.steps_per_round, 7);
  EXPECT_EQ(study.network.norm, NetworkPlan::Norm::kGroup);
  EXPECT_EQ(study.harmonization.mask, HarmonizationPlan::Mask::kOtsu);
  EXPECT_THAT(study.harmonization.spacing_mm, ElementsAre(1, 1, 1));
}

TEST(PlanToml, DeclaresAResidualEncoder) {
  for (const PlanPreset preset : {PlanPreset::kResidualM, PlanPreset::kResidualL}) {
    const CohortPlan plan = PlanOf({1, 1, 1}, {138, 169, 138}, preset);
    ASSERT_OK_AND_ASSIGN(const Study study, ParseStudy(kHead + PlanToml(plan), "study.toml"));

    ExpectPlan(study, plan.full_resolution);
    EXPECT_EQ(study.network.kind, NetworkPlan::Kind::kResidual);
    EXPECT_THAT(study.network.blocks_per_stage, ElementsAre(1, 3, 4, 6, 6, 6));
    EXPECT_EQ(study.network.convolutions_per_stage, 1);
  }
}

}  // namespace
}  // namespace isoscan
