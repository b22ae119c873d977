#include "client/cohort/prepared_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "client/imaging/orientation.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/cohort/cohort_on_disk.h"
#include <sys/resource.h>

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class PreparedCacheTest : public testing::Test {
 protected:
  void SetUp() override {
    const Geometry geometry = ObliqueGeometry({13, 9, 6});
    cohort_.Image("image.nii.gz", SmoothVolume(geometry));
    cohort_.Labels("labels.nii.gz", BoxLabels(geometry));
    files_.name = "sub-01";
    files_.cohort = "ward";
    files_.images = {cohort_.path() / "image.nii.gz"};
    files_.labels = {{.path = cohort_.path() / "labels.nii.gz", .values = {{1, 2}, {2, 1}}}};
  }

  CachedCase Prepare() const {
    CachedCase cached;
    const absl::StatusOr<LoadedCase> loaded = LoadCase(files_, study_);
    EXPECT_OK(loaded);
    absl::StatusOr<PreparedCase> prepared = PrepareCase(*loaded, files_, study_);
    EXPECT_OK(prepared);
    cached.prepared = *std::move(prepared);
    cached.stored_sample = {1, 2.5F, -3};
    return cached;
  }

  /// As after a restart.
  PreparedCache Cache() {
    return PreparedCache(cache_, spare_bytes_, [this](const absl::Status& trouble) {
      troubles_.push_back(trouble.ToString());
    });
  }

  std::vector<fs::path> Kept() const {
    std::vector<fs::path> files;
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(cache_, ignored)) files.push_back(entry.path());
    return files;
  }

  CohortOnDisk cohort_;
  TemporaryDirectory folder_;
  fs::path cache_ = folder_.path() / "prepared" / "study";
  CaseFiles files_;
  Study study_ = StudyOf({"T1w"}, {"right", "left"});
  std::int64_t spare_bytes_ = 0;
  std::vector<std::string> troubles_;
};

TEST_F(PreparedCacheTest, GivesTheCaseAsItWasPrepared) {
  for (const double spacing_mm : {0.0, 1.3}) {
    study_.harmonization.spacing_mm = {spacing_mm, spacing_mm, spacing_mm};
    const CachedCase cached = Prepare();
    EXPECT_FALSE(Cache().Find(files_, study_).has_value());

    Cache().Keep(files_, study_, cached);
    files_.cohort = "renamed";
    const std::optional<CachedCase> found = Cache().Find(files_, study_);

    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->prepared.image, cached.prepared.image);
    EXPECT_EQ(found->prepared.labels, cached.prepared.labels);
    EXPECT_EQ(found->prepared.grid, cached.prepared.grid);
    EXPECT_EQ(found->prepared.reference_labels, cached.prepared.reference_labels);
    EXPECT_EQ(found->prepared.reference_grid, cached.prepared.reference_grid);
    EXPECT_EQ(found->prepared.digest, TrainingDigest(cached.prepared));
    EXPECT_EQ(found->prepared.cohort, "renamed");
    EXPECT_EQ(found->stored_sample, cached.stored_sample);
  }
  EXPECT_THAT(troubles_, IsEmpty());
}

TEST_F(PreparedCacheTest, FindsNothingOnceAnythingThatACaseIsMadeOfHasChanged) {
  Cache().Keep(files_, study_, Prepare());
  ASSERT_TRUE(Cache().Find(files_, study_).has_value());

  Study other = study_;
  other.harmonization.spacing_mm = {2, 2, 2};
  EXPECT_FALSE(Cache().Find(files_, other).has_value());
  CaseFiles other_labels = files_;
  other_labels.labels[0].values = {{1, 1}, {2, 2}};
  EXPECT_FALSE(Cache().Find(other_labels, study_).has_value());
  CaseFiles other_geometry = files_;
  other_geometry.geometry = GeometrySource::kSform;
  EXPECT_FALSE(Cache().Find(other_geometry, study_).has_value());
  LabelMap labels = BoxLabels(ObliqueGeometry({13, 9, 6}));
  labels.voxels[0] = 1;
  cohort_.Labels("labels.nii.gz", labels);
  EXPECT_FALSE(Cache().Find(files_, study_).has_value());
  files_.images = {cohort_.path() / "missing.nii.gz"};
  EXPECT_FALSE(Cache().Find(files_, study_).has_value());
  EXPECT_THAT(troubles_, IsEmpty());
}

TEST_F(PreparedCacheTest, NamesAndRemovesADamagedFile) {
  Cache().Keep(files_, study_, Prepare());
  ASSERT_THAT(Kept(), SizeIs(1));
  const fs::path file = Kept().front();
  std::fstream(file, std::ios::in | std::ios::out | std::ios::binary).seekp(-3, std::ios::end)
      << 'x';

  EXPECT_FALSE(Cache().Find(files_, study_).has_value());

  EXPECT_THAT(troubles_, ElementsAre(HasSubstr(file.filename().string() + " is damaged")));
  EXPECT_THAT(Kept(), IsEmpty());
}

TEST_F(PreparedCacheTest, RemovesWhatNoCaseNeedsAnyMore) {
  Cache().Keep(files_, study_, Prepare());
  std::ofstream(cache_ / "half.safetensors.tmp-01234567") << "killed while writing";
  study_.harmonization.spacing_mm = {2, 2, 2};
  PreparedCache cache = Cache();
  cache.Keep(files_, study_, Prepare());
  ASSERT_THAT(Kept(), SizeIs(3));

  cache.RemoveOthers();

  EXPECT_THAT(Kept(), SizeIs(1));
  EXPECT_TRUE(Cache().Find(files_, study_).has_value());
}

/// What this process holds that no file has, in bytes.
std::int64_t MemoryOfItsOwn() {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("RssAnon:")) return std::stoll(line.substr(8)) * 1024;
  }
  return 0;
}

TEST_F(PreparedCacheTest, CasesTakeNoMemoryHoweverManyThereAre) {
  constexpr std::int64_t kEdge = 96;
  constexpr std::size_t kCases = 20;
  CachedCase cached;
  cached.prepared.grid.size = {kEdge, kEdge, kEdge};
  cached.prepared.reference_grid = cached.prepared.grid;
  cached.prepared.image = std::vector<float>(kEdge * kEdge * kEdge, 0.5F);
  cached.prepared.labels = std::vector<std::uint8_t>(kEdge * kEdge * kEdge, 1);
  cached.prepared.reference_labels = cached.prepared.labels;
  const std::int64_t case_bytes = kEdge * kEdge * kEdge * 5;
  Cache().Keep(files_, study_, cached);
  PreparedCache cache = Cache();
  const std::int64_t before = MemoryOfItsOwn();

  std::vector<CachedCase> cohort;
  for (std::size_t i = 0; i < kCases; ++i) cohort.push_back(*cache.Find(files_, study_));
  double sum = 0;
  for (const CachedCase& found : cohort) {
    for (const float value : found.prepared.image) sum += value;
    for (const std::uint8_t label : found.prepared.reference_labels) sum += label;
  }

  EXPECT_EQ(sum, kCases * kEdge * kEdge * kEdge * 1.5);
  EXPECT_LT(MemoryOfItsOwn() - before, 3 * case_bytes) << "of " << kCases * case_bytes;
}

TEST_F(PreparedCacheTest, HoldsMoreCasesThanAProcessMayOpenFiles) {
  Cache().Keep(files_, study_, Prepare());
  PreparedCache cache = Cache();
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit few{.rlim_cur = 32, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);

  std::vector<std::optional<CachedCase>> cohort;
  for (int i = 0; i < 100; ++i) cohort.push_back(cache.Find(files_, study_));

  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  for (const std::optional<CachedCase>& found : cohort) EXPECT_TRUE(found.has_value());
  EXPECT_THAT(troubles_, IsEmpty());
}

TEST_F(PreparedCacheTest, GivesWhatItHasJustKeptFromItsFileAndTheCaseItselfWhereItCannot) {
  const CachedCase cached = Prepare();
  PreparedCache cache = Cache();

  const CachedCase kept = cache.Keep(files_, study_, cached);

  EXPECT_EQ(kept.prepared.image, cached.prepared.image);
  EXPECT_NE(kept.prepared.image.data(), cached.prepared.image.data());
  EXPECT_EQ(kept.prepared.cohort, cached.prepared.cohort);
  EXPECT_FALSE(cache.full());
}

/// Prepared cases that took the whole disk left no room for the models: no round could begin.
TEST_F(PreparedCacheTest, LeavesRoomOnTheDiskForOtherFiles) {
  spare_bytes_ = static_cast<std::int64_t>(fs::space(folder_.path()).capacity);
  const CachedCase cached = Prepare();
  PreparedCache cache = Cache();

  const CachedCase kept = cache.Keep(files_, study_, cached);

  EXPECT_EQ(kept.prepared.image.data(), cached.prepared.image.data());
  EXPECT_TRUE(cache.full());
  EXPECT_THAT(troubles_, ElementsAre(AllOf(HasSubstr("RESOURCE_EXHAUSTED"), HasSubstr(" MB free"),
                                           HasSubstr("stay in memory"))));
  EXPECT_THAT(Kept(), IsEmpty());
}

TEST_F(PreparedCacheTest, WarnsOnceWhenTheDiskIsFull) {
  const CachedCase cached = Prepare();
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{.rlim_cur = 1024, .rlim_max = before.rlim_max};
  const auto on_excess = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  PreparedCache cache = Cache();

  cache.Keep(files_, study_, cached);
  cache.Keep(files_, study_, cached);

  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, on_excess);
  EXPECT_THAT(troubles_, ElementsAre(HasSubstr("RESOURCE_EXHAUSTED")));
  EXPECT_THAT(Kept(), IsEmpty()) << "half a file was left";
}

}  // namespace
}  // namespace isoscan
