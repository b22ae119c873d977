#include "tests/broken_inputs/broken_inputs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "client/cohort/scans.h"
#include "client/intake/cohort_findings.h"
#include "client/intake/intake.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

std::vector<CaseSight> InspectFolder(const std::filesystem::path& folder, int threads) {
  const auto listed = ListScans({.name = "", .folder = folder, .labels = {}, .channels = {}});
  EXPECT_OK(listed);
  if (!listed.ok()) return {};
  const auto ignore = [](std::int64_t, std::int64_t) {};
  auto sights = InspectHeaders(listed->scans, threads, {}, ignore);
  EXPECT_OK(sights);
  EXPECT_OK(
      InspectVoxels(*sights, PlanReading(*sights, threads, std::int64_t{1} << 30), {}, ignore));
  CompareCases(*sights);
  return *std::move(sights);
}

/// The first case whose name begins so.
const CaseSight* Find(const std::vector<CaseSight>& sights, const std::string& name) {
  const auto found = std::find_if(sights.begin(), sights.end(), [&name](const CaseSight& sight) {
    return sight.files.name.starts_with(name);
  });
  return found == sights.end() ? nullptr : &*found;
}

std::string Described(const CaseSight& sight) {
  std::string text = sight.files.name + ":";
  for (const Finding& finding : sight.findings) {
    text += "\n  " + NameOf(finding) + (finding.quarantines ? " quarantines: " : " flags: ") +
            finding.path.string() + ": " + finding.reason;
  }
  return text;
}

void ExpectAllFound(const std::vector<CaseSight>& sights, const BrokenInputs& inputs) {
  for (const BrokenInput& broken : inputs.broken) {
    const CaseSight* const sight = Find(sights, broken.name);
    ASSERT_NE(sight, nullptr) << broken.name << " is not listed";
    const bool told = std::any_of(
        sight->findings.begin(), sight->findings.end(), [&broken](const Finding& finding) {
          return NameOf(finding) == broken.fault && finding.quarantines == broken.quarantined &&
                 (finding.path.string() + finding.reason).find(broken.words) != std::string::npos;
        });
    EXPECT_TRUE(told) << broken.fault << " (" << broken.words << ") of " << Described(*sight);
    EXPECT_EQ(sight->quarantined(), broken.quarantined) << Described(*sight);
  }
  for (const std::string& name : inputs.sound) {
    const CaseSight* const sight = Find(sights, name);
    ASSERT_NE(sight, nullptr) << name << " is not listed";
    EXPECT_THAT(sight->findings, SizeIs(0)) << Described(*sight);
  }
}

TEST(BrokenCohort, HasEachFaultFoundAndNamedAndTheSoundCasesLeftAlone) {
  const TemporaryDirectory folder;
  const BrokenInputs inputs = MakeBrokenCohort(folder.path() / "bids");

  const std::vector<CaseSight> sights = InspectFolder(folder.path() / "bids", /*threads=*/2);

  EXPECT_GE(inputs.broken.size(), 25u);
  EXPECT_THAT(sights, SizeIs(inputs.broken.size() + inputs.sound.size() + 1));
  ExpectAllFound(sights, inputs);
}

TEST(BrokenCohort, IsToldAlikeByOneThreadAndByThree) {
  const TemporaryDirectory folder;
  MakeBrokenCohort(folder.path() / "bids");

  const std::vector<CaseSight> one = InspectFolder(folder.path() / "bids", /*threads=*/1);
  const std::vector<CaseSight> three = InspectFolder(folder.path() / "bids", /*threads=*/3);

  ASSERT_EQ(one.size(), three.size());
  for (std::size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(Described(one[i]), Described(three[i]));
  }
}

TEST(BrokenDicom, HasEachFaultFoundAndNamed) {
  const TemporaryDirectory folder;
  const BrokenInputs inputs = MakeBrokenDicom(folder.path() / "dicom");

  const std::vector<CaseSight> sights = InspectFolder(folder.path() / "dicom", /*threads=*/2);

  ExpectAllFound(sights, inputs);
}

}  // namespace
}  // namespace isoscan
