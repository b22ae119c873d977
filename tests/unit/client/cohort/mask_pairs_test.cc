#include "client/cohort/mask_pairs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using absl::StatusCode;
using testing::AllOf;
using testing::HasSubstr;

class MaskPairs : public testing::Test {
 protected:
  fs::path Make(const std::string& name) const {
    const fs::path path = folder_.path() / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << "voxels";
    return path;
  }

  const TemporaryDirectory folder_;
  const fs::path found_ = folder_.path() / "found";
  const fs::path expected_ = folder_.path() / "expected";
};

TEST_F(MaskPairs, HaveOnePathWhateverTheirEndings) {
  const fs::path predicted = Make("found/a.nii.gz");
  const fs::path reference = Make("expected/a.nrrd");
  Make("found/b/a.nii");
  Make("expected/b/a.mha");
  Make("expected/dataset.json");
  Make("expected/._a.nii.gz");
  Make("found/.hidden/c.nii.gz");

  ASSERT_OK_AND_ASSIGN(const std::vector<MaskPair> pairs, PairMasks(found_, expected_));

  ASSERT_EQ(pairs.size(), 2u);
  EXPECT_EQ(pairs[0].name, "a");
  EXPECT_EQ(pairs[0].predicted, predicted);
  EXPECT_EQ(pairs[0].reference, reference);
  EXPECT_EQ(pairs[1].name, "b/a");
}

TEST_F(MaskPairs, OfBidsHaveOneSubjectSessionAndRun) {
  Make("found/sub-1/ses-a/anat/sub-1_ses-a_run-2_space-orig_dseg.nii.gz");
  Make("expected/sub-1/ses-a/anat/sub-1_ses-a_run-2_label-tumour_mask.nii.gz");

  ASSERT_OK_AND_ASSIGN(const std::vector<MaskPair> pairs, PairMasks(found_, expected_));

  ASSERT_EQ(pairs.size(), 1u);
  EXPECT_EQ(pairs[0].name, "sub-1_ses-a_run-2");
  EXPECT_FALSE(pairs[0].predicted.empty());
  EXPECT_FALSE(pairs[0].reference.empty());
}

TEST_F(MaskPairs, NameWhatHasNoCounterpart) {
  Make("found/a.nii");
  Make("found/c.nii");
  Make("expected/a.nii");
  Make("expected/b.nii");

  ASSERT_OK_AND_ASSIGN(const std::vector<MaskPair> pairs, PairMasks(found_, expected_));

  ASSERT_EQ(pairs.size(), 3u);
  EXPECT_TRUE(pairs[1].predicted.empty());
  EXPECT_EQ(pairs[1].reference, expected_ / "b.nii");
  EXPECT_TRUE(pairs[2].reference.empty());
}

TEST_F(MaskPairs, OfTwoFilesNeedNoNames) {
  const fs::path predicted = Make("p.nii.gz");
  const fs::path reference = Make("r.mha");

  ASSERT_OK_AND_ASSIGN(const std::vector<MaskPair> pairs, PairMasks(predicted, reference));

  ASSERT_EQ(pairs.size(), 1u);
  EXPECT_EQ(pairs[0].name, "p");
  EXPECT_EQ(pairs[0].reference, reference);
}

TEST_F(MaskPairs, RefuseWhatCannotBePaired) {
  const fs::path file = Make("found/sub-1_dseg.nii.gz");
  Make("found/sub-1_label-brain_mask.nii.gz");
  fs::create_directories(expected_);

  EXPECT_THAT(PairMasks(found_, expected_),
              StatusIs(StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("sub-1_dseg"), HasSubstr("label-brain"))));
  EXPECT_THAT(PairMasks(file, expected_),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("two files or two folders")));
  EXPECT_THAT(PairMasks(expected_, expected_),
              StatusIs(StatusCode::kNotFound, HasSubstr("no NIfTI")));
  EXPECT_THAT(PairMasks(folder_.path() / "typo", expected_),
              StatusIs(StatusCode::kNotFound, HasSubstr("typo")));
}

}  // namespace
}  // namespace isoscan
