#include "common/planning/planned_study.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "common/planning/network_planner.h"
#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr char kDraft[] = R"(name = "hippocampus"  # a comment
seed = 5
channels = ["T1w"]
labels = ["anterior", "posterior"]
[planning]
memory_gb = 8
[network]
norm = "group"
[training]
steps_per_round = 7
)";

Study Draft(const std::string& more = "") {
  absl::StatusOr<Study> draft = ParseStudy(kDraft + more, "draft.toml");
  EXPECT_OK(draft);
  return *std::move(draft);
}

// `cases` hippocampi, dealt to the sites in turn.
std::map<std::string, Fingerprint> Sites(std::int64_t sites, std::int64_t cases,
                                         const Triple& size = {36, 50, 35}) {
  std::map<std::string, Fingerprint> federation;
  const std::vector<float> intensities = {1, 2, 3};
  for (std::int64_t i = 0; i < cases; ++i) {
    auto& fingerprint =
        federation.try_emplace(fmt::format("site-{}", i % sites), Fingerprint::Empty(1, 3))
            .first->second;
    EXPECT_OK(fingerprint.AddCase({.spacing_mm = {1, 1, 1},
                                   .size = {size[0] + i % 3 - 1, size[1], size[2]},
                                   .foreground = {intensities}}));
  }
  for (auto& [site, fingerprint] : federation) fingerprint = Disclosed(fingerprint);
  return federation;
}

TEST(PlannedStudy, IsTheDraftWithNnunetsPlan) {
  ASSERT_OK_AND_ASSIGN(const Study planned, PlannedStudy(Draft(), Sites(3, 260)));

  EXPECT_FALSE(planned.planning.has_value());
  EXPECT_EQ(planned.training.patch_size, (Triple{40, 56, 40}));
  EXPECT_EQ(planned.training.batch_size, 9);
  EXPECT_EQ(planned.network.features, (std::vector<std::int64_t>{32, 64, 128, 256}));
  EXPECT_EQ(planned.harmonization.spacing_mm, (std::array<double, 3>{1, 1, 1}));
  EXPECT_EQ(planned.network.norm, NetworkPlan::Norm::kGroup);
  EXPECT_EQ(planned.training.steps_per_round, 7);
  EXPECT_EQ(planned.seed, 5U);
  EXPECT_THAT(planned.toml, AllOf(HasSubstr(Draft().digest), HasSubstr("from 260 training cases"),
                                  HasSubstr("36 x 50 x 35 voxels")));
}

TEST(PlannedStudy, HasTheResidualEncoderThatItsDraftAsksFor) {
  ASSERT_OK_AND_ASSIGN(
      const Study draft,
      ParseStudy("name = \"hippocampus\"\nchannels = [\"T1w\"]\nlabels = [\"a\", \"b\"]\n"
                 "[planning]\npreset = \"residual_m\"\n",
                 "draft.toml"));

  ASSERT_OK_AND_ASSIGN(const Study planned, PlannedStudy(draft, Sites(3, 260)));

  // docs/planning.md: nnU-Net's own plan of the Decathlon's hippocampi.
  EXPECT_EQ(planned.network.kind, NetworkPlan::Kind::kResidual);
  EXPECT_EQ(planned.network.blocks_per_stage, (std::vector<std::int64_t>{1, 3, 4, 6}));
  EXPECT_EQ(planned.training.patch_size, (Triple{40, 56, 40}));
  EXPECT_EQ(planned.training.batch_size, 58);
  EXPECT_THAT(planned.toml, HasSubstr("preset residual_m, 8 GB"));
}

TEST(PlannedStudy, DoesNotDependOnWhoHasWhichCase) {
  ASSERT_OK_AND_ASSIGN(const Study alone, PlannedStudy(Draft(), Sites(1, 90)));

  for (const std::int64_t sites : {2, 3, 7}) {
    ASSERT_OK_AND_ASSIGN(const Study planned, PlannedStudy(Draft(), Sites(sites, 90)));
    EXPECT_EQ(planned.toml, alone.toml) << sites;
  }
}

TEST(PlannedStudy, SaysHowManyCasesAreNotDescribed) {
  std::map<std::string, Fingerprint> sites = Sites(2, 20);
  sites["small"] = Fingerprint::Empty(1, 3);
  sites["small"].cases = 4;

  ASSERT_OK_AND_ASSIGN(const Study planned, PlannedStudy(Draft(), sites));

  EXPECT_THAT(planned.toml, HasSubstr("from 24 training cases, 20 of them described"));
}

TEST(PlannedStudy, KeepsABatchThatTheDraftGives) {
  ASSERT_OK_AND_ASSIGN(const Study planned, PlannedStudy(Draft("batch_size = 4\n"), Sites(3, 260)));

  EXPECT_EQ(planned.training.batch_size, 4);
  EXPECT_EQ(planned.training.patch_size, (Triple{40, 56, 40}));
}

TEST(PlannedStudy, RefusesWhatNoStudyMayHave) {
  EXPECT_THAT(PlannedStudy(Draft(), Sites(3, 9000, {16, 16, 16})),
              StatusIs(StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("the plan for hippocampus"), HasSubstr("batch_size"))));
  EXPECT_OK(PlannedStudy(Draft("batch_size = 256\n"), Sites(3, 9000, {16, 16, 16})).status());
}

TEST(PlannedStudy, RefusesWhatNothingCanBePlannedFrom) {
  EXPECT_THAT(PlannedStudy(Draft(), Sites(3, 12)),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("none of 3 sites has the 5")));
  EXPECT_THAT(PlannedStudy(Draft(), Sites(1, 20, {4, 4, 4})),
              StatusIs(StatusCode::kFailedPrecondition, Not(HasSubstr("none of"))));
}

}  // namespace
}  // namespace isoscan
