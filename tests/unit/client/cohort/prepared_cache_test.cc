#include "client/cohort/prepared_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <fstream>
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
    return PreparedCache(
        cache_, [this](const absl::Status& trouble) { troubles_.push_back(trouble.ToString()); });
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
    EXPECT_EQ(found->prepared.reference.voxels, cached.prepared.reference.voxels);
    EXPECT_EQ(found->prepared.reference.geometry, cached.prepared.reference.geometry);
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
