#include "common/planning/network_planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <array>
#include <cmath>
#include <fstream>
#include <ostream>
#include <string>
#include <vector>

#include "common/planning/plan_toml.h"
#include "common/study/study.h"
#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using absl::StatusCode;
using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

void Add(std::int64_t cases, const std::array<double, 3>& spacing_mm, const Triple& size,
         Fingerprint& fingerprint, double relative_size = 1) {
  const std::vector<std::span<const float>> unlabelled(
      static_cast<std::size_t>(fingerprint.channels));
  for (std::int64_t i = 0; i < cases; ++i) {
    ASSERT_OK(fingerprint.AddCase({.spacing_mm = spacing_mm,
                                   .size = size,
                                   .relative_size = relative_size,
                                   .foreground = unlabelled}));
  }
}

Fingerprint Cohort(std::int64_t cases, const std::array<double, 3>& spacing_mm,
                   const Triple& size) {
  Fingerprint fingerprint = Fingerprint::Empty(1, 2);
  Add(cases, spacing_mm, size, fingerprint);
  return fingerprint;
}

// --- What nnU-Net's own planner answers
// -----------------------------------------------------------

// One cohort and one preset of tests/golden/planning/nnunet_plans.json.
struct Golden {
  json cohort;
  json plan;

  std::string name() const {
    return cohort["name"].get<std::string>() + "_" + plan["preset"].get<std::string>() + "_" +
           std::to_string(plan["memory_gb"].get<int>());
  }
  // Its spacings have more digits than a sketch keeps.
  bool rounded() const { return cohort["name"] == "as_scanned"; }

  Fingerprint ToFingerprint() const {
    Fingerprint fingerprint = Fingerprint::Empty(cohort["channels"], cohort["classes"]);
    for (const json& group : cohort["cases"]) {
      Add(group[0], group[1], group[2], fingerprint, cohort["relative_size"]);
    }
    return fingerprint;
  }
};

std::ostream& operator<<(std::ostream& out, const Golden& golden) { return out << golden.name(); }

std::vector<Golden> AllGolden() {
  std::ifstream file(GOLDEN_FOLDER "/planning/nnunet_plans.json");
  std::vector<Golden> all;
  const json document = json::parse(file);
  for (const json& cohort : document["cohorts"]) {
    for (const json& plan : cohort["plans"]) all.push_back({cohort, plan});
  }
  return all;
}

PlanPreset PresetOf(const std::string& word) {
  for (const PlanPreset preset : {PlanPreset::kResidualM, PlanPreset::kResidualL}) {
    if (ToString(preset) == word) return preset;
  }
  EXPECT_EQ(word, ToString(PlanPreset::kPlain));
  return PlanPreset::kPlain;
}

// nnU-Net writes triples with the coarsest axis first.
template <typename Value>
std::array<Value, 3> Forward(const std::array<Value, 3>& values, const Triple& transpose) {
  std::array<Value, 3> permuted;
  for (std::size_t i = 0; i < 3; ++i) permuted[i] = values[static_cast<std::size_t>(transpose[i])];
  return permuted;
}

std::vector<Triple> Forward(std::vector<Triple> triples, const Triple& transpose) {
  for (Triple& triple : triples) triple = Forward(triple, transpose);
  return triples;
}

void ExpectGrid(const GridPlan& grid, const json& expected, const Triple& transpose, bool rounded) {
  const std::array<double, 3> spacing_mm = Forward(grid.spacing_mm, transpose);
  const std::array<double, 3> median_size = Forward(grid.median_size, transpose);
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const double mm = expected["spacing_mm"][axis];
    EXPECT_NEAR(spacing_mm[axis], mm, mm * (rounded ? 0.5e-3 : 1e-15));
    EXPECT_EQ(median_size[axis], expected["median_size"][axis].get<double>()) << "axis " << axis;
  }
  EXPECT_EQ(Forward(grid.patch_size, transpose), expected["patch_size"].get<Triple>());
  EXPECT_EQ(grid.batch_size, expected["batch_size"].get<std::int64_t>());
  EXPECT_EQ(grid.features, expected["features"].get<std::vector<std::int64_t>>());
  EXPECT_EQ(Forward(grid.strides, transpose), expected["strides"].get<std::vector<Triple>>());
  EXPECT_EQ(Forward(grid.kernels, transpose), expected["kernels"].get<std::vector<Triple>>());
  EXPECT_EQ(grid.encoder_blocks, expected["encoder_blocks"].get<std::vector<std::int64_t>>());
  EXPECT_EQ(grid.decoder_convolutions,
            expected["decoder_convolutions"].get<std::vector<std::int64_t>>());
  EXPECT_EQ(grid.feature_map_numbers, expected["feature_map_numbers"].get<std::int64_t>());
  EXPECT_EQ(grid.batch_dice, expected["batch_dice"].get<bool>());
}

class NnUnet : public testing::TestWithParam<Golden> {};
INSTANTIATE_TEST_SUITE_P(PlanNetwork, NnUnet, testing::ValuesIn(AllGolden()),
                         [](const auto& cohort) { return cohort.param.name(); });

TEST_P(NnUnet, AnswersTheSame) {
  const Golden& golden = GetParam();
  const json& expected = golden.plan;

  ASSERT_OK_AND_ASSIGN(
      const CohortPlan plan,
      PlanNetwork(golden.ToFingerprint(), PresetOf(expected["preset"]), expected["memory_gb"]));

  EXPECT_EQ(plan.transpose_forward, expected["transpose_forward"].get<Triple>());
  EXPECT_EQ(plan.normalize_nonzero, expected["normalize_nonzero"].get<bool>());
  ExpectGrid(plan.full_resolution, expected["full_resolution"], plan.transpose_forward,
             golden.rounded());
  ASSERT_EQ(plan.low_resolution.has_value(), !expected["low_resolution"].is_null());
  if (plan.low_resolution) {
    ExpectGrid(*plan.low_resolution, expected["low_resolution"], plan.transpose_forward,
               golden.rounded());
  }
}

TEST_P(NnUnet, BecomesAStudy) {
  const Golden& golden = GetParam();
  ASSERT_OK_AND_ASSIGN(const CohortPlan plan,
                       PlanNetwork(golden.ToFingerprint(), PresetOf(golden.plan["preset"]),
                                   golden.plan["memory_gb"]));
  const GridPlan& grid = plan.full_resolution;
  if (grid.batch_size > 256) GTEST_SKIP() << "more patches than a study may have in a batch";

  ASSERT_OK_AND_ASSIGN(
      const Study study,
      ParseStudy("name = \"s\"\nchannels = [\"a\"]\nlabels = [\"b\"]\n" + PlanToml(plan),
                 "study.toml"));

  const bool residual = plan.preset != PlanPreset::kPlain;
  EXPECT_EQ(study.network.kind == NetworkPlan::Kind::kResidual, residual);
  EXPECT_EQ(study.network.strides, grid.strides);
  EXPECT_EQ(study.network.blocks_per_stage,
            residual ? grid.encoder_blocks : std::vector<std::int64_t>());
  EXPECT_EQ(study.network.convolutions_per_stage, residual ? 1 : 2);
  EXPECT_EQ(study.training.batch_size, grid.batch_size);
}

// --- What must hold of every plan
// -----------------------------------------------------------------

TEST(PlanNetwork, TurnsWithTheAxes) {
  const Triple size = {40, 260, 300};
  const std::array<double, 3> spacing_mm = {4, 0.8, 0.7};
  ASSERT_OK_AND_ASSIGN(const CohortPlan axial,
                       PlanNetwork(Cohort(50, spacing_mm, size), PlanPreset::kPlain, 8));
  ASSERT_OK_AND_ASSIGN(
      const CohortPlan sagittal,
      PlanNetwork(Cohort(50, {0.8, 0.7, 4}, {260, 300, 40}), PlanPreset::kPlain, 8));

  EXPECT_THAT(axial.transpose_forward, ElementsAre(0, 1, 2));
  EXPECT_THAT(sagittal.transpose_forward, ElementsAre(2, 0, 1));
  const GridPlan& turned = sagittal.full_resolution;
  EXPECT_EQ(Forward(turned.patch_size, {2, 0, 1}), axial.full_resolution.patch_size);
  EXPECT_EQ(Forward(turned.strides, {2, 0, 1}), axial.full_resolution.strides);
  EXPECT_EQ(Forward(turned.kernels, {2, 0, 1}), axial.full_resolution.kernels);
  EXPECT_EQ(turned.batch_size, axial.full_resolution.batch_size);
}

TEST(PlanNetwork, FillsTheMemoryItIsGivenAndNoMore) {
  const Fingerprint cohort = Cohort(400, {1, 1, 1}, {200, 240, 200});
  std::int64_t voxels = 0;
  for (const double memory_gb : {2.0, 4.0, 8.0, 16.0, 32.0}) {
    ASSERT_OK_AND_ASSIGN(const CohortPlan plan, PlanNetwork(cohort, PlanPreset::kPlain, memory_gb));
    const GridPlan& grid = plan.full_resolution;
    EXPECT_LE(static_cast<double>(grid.feature_map_numbers), 70e6 * memory_gb);
    const Triple& patch = grid.patch_size;
    EXPECT_GT(patch[0] * patch[1] * patch[2] * grid.batch_size, voxels);
    voxels = patch[0] * patch[1] * patch[2] * grid.batch_size;
    Triple divisor = {1, 1, 1};
    for (const Triple& stride : grid.strides) {
      for (std::size_t axis = 0; axis < 3; ++axis) divisor[axis] *= stride[axis];
    }
    for (std::size_t axis = 0; axis < 3; ++axis) EXPECT_EQ(patch[axis] % divisor[axis], 0);
  }
}

TEST(PlanNetwork, LeavesSmallSitesCasesOutOfTheGridButNotOutOfTheBatch) {
  Fingerprint cohort = Cohort(21, {1, 1, 1}, {36, 50, 35});
  ASSERT_OK_AND_ASSIGN(const CohortPlan described, PlanNetwork(cohort, PlanPreset::kPlain, 8));
  cohort.cases = 260;
  ASSERT_OK_AND_ASSIGN(const CohortPlan more, PlanNetwork(cohort, PlanPreset::kPlain, 8));

  EXPECT_EQ(described.full_resolution.batch_size, 2);
  EXPECT_EQ(more.full_resolution.batch_size, 9);
  EXPECT_EQ(more.full_resolution.patch_size, described.full_resolution.patch_size);
}

TEST(PlanNetwork, EndsWhateverTheCohort) {
  const std::vector<std::array<double, 3>> spacings = {
      {1e-3, 1e-3, 1e-3}, {1e3, 1e3, 1e3}, {1e3, 1e-3, 1e-3}, {1e-3, 1e3, 1e3}, {1e-3, 1, 1e3}};
  const std::vector<Triple> sizes = {
      {8, 8, 8}, {100'000, 100'000, 100'000}, {100'000, 2, 2}, {2, 100'000, 100'000}};
  for (const std::array<double, 3>& spacing_mm : spacings) {
    for (const Triple& size : sizes) {
      for (const double memory_gb : {0.01, 8.0, 10'000.0}) {
        const absl::StatusOr<CohortPlan> plan =
            PlanNetwork(Cohort(5, spacing_mm, size), PlanPreset::kPlain, memory_gb);
        if (!plan.ok()) {
          EXPECT_THAT(plan, StatusIs(StatusCode::kFailedPrecondition, HasSubstr("two stages")));
          continue;
        }
        for (const std::int64_t edge : plan->full_resolution.patch_size) EXPECT_GE(edge, 1);
        EXPECT_GT(plan->full_resolution.feature_map_numbers, 0);
        EXPECT_GE(plan->full_resolution.batch_size, 2);
      }
    }
  }
}

TEST(PlanNetwork, RefusesWhatHasNoPlan) {
  const auto plan = [](const Fingerprint& cohort, double memory_gb) {
    return PlanNetwork(cohort, PlanPreset::kPlain, memory_gb).status();
  };
  const Fingerprint cohort = Cohort(10, {1, 1, 1}, {64, 64, 64});
  for (const double memory_gb : {0.0, -8.0, std::nan(""), 1e5}) {
    EXPECT_THAT(plan(cohort, memory_gb), StatusIs(StatusCode::kInvalidArgument, HasSubstr(" GB")));
  }
  EXPECT_THAT(plan(Fingerprint::Empty(1, 2), 8),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("no case")));
  EXPECT_THAT(plan(Cohort(10, {5, 1, 1}, {1, 256, 256}), 8),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("single slices")));
  EXPECT_THAT(plan(Cohort(10, {1, 1, 1}, {7, 6, 5}), 8),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("a patch of 7 x 6 x 5")));
  EXPECT_THAT(plan(cohort, 1e-4),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("two stages")));
}

}  // namespace
}  // namespace isoscan
