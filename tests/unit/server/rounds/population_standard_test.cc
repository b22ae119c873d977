// The standard of Nyul and least squares: the mean over the sites' cases, fixed at the start.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "common/weights/safetensors.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/server/rounds/federation_in_memory.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::DoubleEq;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TinyStudy LeastSquares() {
  TinyStudy study;
  study.harmonization = "normalize = \"lsq\"";
  study.quorum = "policy = \"at_least\"\nminimum_sites = 1";
  return study;
}

absl::Status Approve(FederationInMemory& federation, const std::string& site, CaseSum sum) {
  SiteRecord cohort = FederationInMemory::CohortOf(site);
  cohort.standard = std::move(sum);
  return federation.coordinator().Approve(site, "tiny", federation.Status().digest, cohort);
}

class PopulationStandard : public testing::Test {
 protected:
  PopulationStandard() { EXPECT_OK(federation_.coordinator().CreateStudy(LeastSquares().toml())); }
  FederationInMemory federation_;
};

TEST_F(PopulationStandard, IsTheMeanOverTheCasesOfAllSites) {
  ASSERT_OK(Approve(federation_, "berlin", {.sum = {10, 18, 26}, .cases = 10}));
  ASSERT_OK(Approve(federation_, "charite", {.sum = {20, 42, 54.1}, .cases = 20}));
  ASSERT_OK(Approve(federation_, "st-marys", {}));  // Too few cases.
  EXPECT_THAT(federation_.Status().standard, IsEmpty());

  ASSERT_OK(federation_.coordinator().StartStudy("tiny"));

  const auto mean = ElementsAre(DoubleEq(1), DoubleEq(2), DoubleEq(80.1 / 30));
  EXPECT_THAT(federation_.Status().standard, mean);
  EXPECT_THAT(federation_.coordinator().StudiesOf("st-marys").front().standard, mean);
}

TEST_F(PopulationStandard, StaysWhatItWasWhenTheServerRestartsAndSitesComeLater) {
  ASSERT_OK(Approve(federation_, "berlin", {.sum = {10, 18, 26.123456789}, .cases = 10}));
  ASSERT_OK(federation_.coordinator().StartStudy("tiny"));
  const std::vector<double> standard = federation_.Status().standard;

  ASSERT_OK(Approve(federation_, "charite", {.sum = {20, 99, 300}, .cases = 20}));
  federation_.Restart();

  EXPECT_EQ(federation_.Status().standard, standard);
}

TEST_F(PopulationStandard, IsInTheModelsAndAskedOfTheUpdates) {
  ASSERT_OK(Approve(federation_, "berlin", {.sum = {10, 18, 26}, .cases = 10}));
  ASSERT_OK(federation_.coordinator().StartStudy("tiny"));

  // As the initial model has it, which was made before the standard was known.
  EXPECT_THAT(federation_.Train("berlin"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("another harmonisation")));
  federation_.set_standard(federation_.Status().standard);
  ASSERT_OK(federation_.Train("berlin"));
  ASSERT_OK(federation_.coordinator().Advance());

  ASSERT_OK_AND_ASSIGN(const auto path, federation_.coordinator().ModelOfRound("tiny", 1));
  ASSERT_OK_AND_ASSIGN(const SafetensorsFile model, SafetensorsFile::Open(path));
  EXPECT_THAT(model.metadata().at("harmonization"), HasSubstr(R"("standard":[1,1.8,2.6])"));
}

TEST_F(PopulationStandard, IsRefusedWhereNoSiteHasEnoughCases) {
  ASSERT_OK(Approve(federation_, "berlin", {}));

  EXPECT_THAT(federation_.coordinator().StartStudy("tiny"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("none of 1 sites has the 5 cases")));
}

TEST_F(PopulationStandard, RefusesASumThatCannotBe) {
  const auto refuses = [this](CaseSum sum, const std::string& reason) {
    EXPECT_THAT(Approve(federation_, "berlin", std::move(sum)),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("berlin"), HasSubstr(reason))));
  };
  refuses({.sum = {1, 2}, .cases = 10}, "a sum of 2 values, expected 3");
  refuses({.sum = {1, 2, 3}, .cases = 4}, "a sum over 4 cases; fewer than 5");
  refuses({.sum = {1, 2, 3}, .cases = 11}, "a sum over 11 cases, it has 10 training cases");
  refuses({.sum = {}, .cases = 10}, "a sum of 0 values, expected 3");
  refuses({.sum = {1, 2, 3}, .cases = -7}, "a sum over -7 cases");
  refuses({.sum = {1, 2, NAN}, .cases = 10}, "1 of 3 values");
  refuses({.sum = {1, 3, 2}, .cases = 10}, "whose mean descends from 0.3 to 0.2");
  refuses({.sum = {1, 2, 1e300}, .cases = 10}, "whose mean has the number 1e+299");
}

}  // namespace
}  // namespace isoscan
