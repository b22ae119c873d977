#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "client/cohort/cohort.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/client/cohort/cohort_on_disk.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::SizeIs;

class BidsCohort : public testing::Test {
 protected:
  void Scan(const std::string& name) const {
    const std::string subject = name.substr(0, name.find('_'));
    cohort_.Touch(subject + "/anat/" + name + ".nii.gz");
  }
  void Mask(const std::string& name, const std::string& pipeline = "manual_masks") const {
    const std::string subject = name.substr(0, name.find('_'));
    cohort_.Touch("derivatives/" + pipeline + "/" + subject + "/anat/" + name + ".nii.gz");
  }

  CohortOnDisk cohort_;
  CohortFolder folder_ = cohort_.folder();
  Study study_ = StudyOf({"FLAIR"}, {"tumor"});
};

TEST_F(BidsCohort, IsFoundByItsSubjects) {
  Scan("sub-02_FLAIR");
  Scan("sub-01_FLAIR");
  Mask("sub-01_label-tumor_mask");
  Mask("sub-02_label-tumor_mask");

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, study_));

  EXPECT_THAT(NamesOf(cases), ElementsAre("sub-01", "sub-02"));
  EXPECT_EQ(cases[0].cohort, "ward");
  EXPECT_EQ(cases[0].patient, "sub-01");
  EXPECT_THAT(cases[0].images, ElementsAre(cohort_.path() / "sub-01/anat/sub-01_FLAIR.nii.gz"));
  ASSERT_THAT(cases[0].labels, SizeIs(1));
  EXPECT_TRUE(cases[0].labels[0].any_positive);
  EXPECT_THAT(cases[0].labels[0].values, ElementsAre(Pair(1, 1)));
}

TEST_F(BidsCohort, TellsSessionsAndRunsApart) {
  cohort_.Touch("sub-01/ses-a/anat/sub-01_ses-a_run-1_FLAIR.nii.gz");
  cohort_.Touch("sub-01/ses-a/anat/sub-01_ses-a_run-2_FLAIR.nii.gz");
  cohort_.Touch("sub-01/ses-b/anat/sub-01_ses-b_FLAIR.nii.gz");
  cohort_.Touch("derivatives/m/sub-01/ses-a/anat/sub-01_ses-a_run-2_label-tumor_mask.nii.gz");
  cohort_.Touch("derivatives/m/sub-01/ses-b/anat/sub-01_ses-b_label-tumor_mask.nii.gz");
  std::vector<std::string> left_out;

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, study_, &left_out));

  EXPECT_THAT(NamesOf(cases), ElementsAre("sub-01_ses-a_run-2", "sub-01_ses-b"));
  EXPECT_EQ(cases[0].patient, cases[1].patient);
  EXPECT_THAT(left_out,
              ElementsAre(AllOf(HasSubstr("sub-01_ses-a_run-1"), HasSubstr("\"tumor\""))));
}

TEST_F(BidsCohort, PrefersTheMaskThatNamesTheRun) {
  Scan("sub-01_run-1_FLAIR");
  Scan("sub-01_run-2_FLAIR");
  Mask("sub-01_label-tumor_mask");
  Mask("sub-01_run-2_label-tumor_mask");

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, study_));

  EXPECT_EQ(cases[0].labels[0].path.filename(), "sub-01_label-tumor_mask.nii.gz");
  EXPECT_EQ(cases[1].labels[0].path.filename(), "sub-01_run-2_label-tumor_mask.nii.gz");
}

// The spinal cord toolbox appends to the scan's whole name.
TEST_F(BidsCohort, UnderstandsMasksNamedAfterTheScan) {
  Scan("sub-9_run-1_T2starw");
  Mask("sub-9_run-1_T2starw_seg-manual", "labels");
  Mask("sub-9_run-1_T2starw_gmseg-manual", "labels");
  Scan("sub-8_T2starw");
  Mask("sub-8_T2starw_label-SC_seg", "labels");
  Mask("sub-8_T2starw_gmseg-manual", "labels");
  Study study = StudyOf({"T2starw"}, {"cord", "gm"});
  folder_.labels = {{"cord", {"seg-manual", "SC"}}, {"gm", {"gmseg-manual"}}};

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, study));

  EXPECT_THAT(NamesOf(cases), ElementsAre("sub-8", "sub-9_run-1"));
  EXPECT_EQ(cases[0].labels[0].path.filename(), "sub-8_T2starw_label-SC_seg.nii.gz");
  EXPECT_EQ(cases[1].labels[1].path.filename(), "sub-9_run-1_T2starw_gmseg-manual.nii.gz");
  EXPECT_THAT(cases[1].labels[1].values, ElementsAre(Pair(1, 2)));
}

TEST_F(BidsCohort, IgnoresMasksOfAnotherSpaceAndProbabilities) {
  Scan("sub-01_FLAIR");
  Mask("sub-01_label-tumor_mask");
  Mask("sub-01_space-MNI_label-tumor_mask");
  Mask("sub-01_label-tumor_probseg");

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, study_));

  EXPECT_THAT(cases[0].labels, SizeIs(1));
}

TEST_F(BidsCohort, AsksWhichOfTwoRatersCounts) {
  Scan("sub-01_FLAIR");
  Mask("sub-01_label-tumor_mask", "rater1");
  Mask("sub-01_label-tumor_mask", "rater2");

  EXPECT_THAT(ListCases(folder_, study_),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("2 files"), HasSubstr("tumor = [\"rater1/label-tumor\"]"))));

  folder_.labels = {{"tumor", {"rater2/tumor"}}};
  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, study_));
  EXPECT_THAT(cases[0].labels[0].path.string(), HasSubstr("rater2"));
}

TEST_F(BidsCohort, ReadsDsegByTheNamesOfItsTable) {
  Scan("sub-01_T1w");
  Mask("sub-01_dseg", "freesurfer");
  cohort_.Text("derivatives/freesurfer/dseg.tsv",
               "index\tname\n0\tBackground\n4\tVentricle\n17\tLeft-Hippocampus\n"
               "53\tRight-Hippocampus\n");
  Study study = StudyOf({"T1w"}, {"hippocampus"});
  folder_.labels = {{"hippocampus", {"left-hippocampus", "53"}}};

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, study));

  ASSERT_THAT(cases[0].labels, SizeIs(1));
  EXPECT_FALSE(cases[0].labels[0].any_positive);
  EXPECT_THAT(cases[0].labels[0].values,
              ElementsAre(Pair(0, 0), Pair(4, 0), Pair(17, 1), Pair(53, 1)));
}

TEST_F(BidsCohort, TakesItsOnlyContrastWhateverItsName) {
  Scan("sub-01_T1w");
  Mask("sub-01_label-tumor_mask");

  EXPECT_OK(ListCases(folder_, study_));
}

TEST_F(BidsCohort, NamesTheContrastsThatItHas) {
  Scan("sub-01_T1w");
  Scan("sub-01_T2w");
  Mask("sub-01_label-tumor_mask");

  EXPECT_THAT(ListCases(folder_, study_),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("\"T1w\", \"T2w\""), HasSubstr("FLAIR = \"NAME\""))));
}

TEST_F(BidsCohort, GathersTheChannelsOfASession) {
  Scan("sub-01_T1w");
  Scan("sub-01_acq-fast_FLAIR");
  Mask("sub-01_label-tumor_mask");
  Scan("sub-02_T1w");
  Mask("sub-02_label-tumor_mask");
  Study study = StudyOf({"T1w", "T2-FLAIR"}, {"tumor"});
  folder_.channels = {{"T2-FLAIR", "FLAIR"}};
  std::vector<std::string> left_out;

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, study, &left_out));

  EXPECT_THAT(NamesOf(cases), ElementsAre("sub-01"));
  EXPECT_EQ(cases[0].images[1].filename(), "sub-01_acq-fast_FLAIR.nii.gz");
  EXPECT_THAT(left_out, ElementsAre(HasSubstr("sub-02")));
}

TEST_F(BidsCohort, NamesTheMasksThatItHasWhenOneIsMissing) {
  Scan("sub-01_FLAIR");
  Mask("sub-01_label-lesion_mask");

  EXPECT_THAT(ListCases(folder_, study_),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("it has \"lesion\""), HasSubstr("tumor = [\"NAME\"]"))));
}

TEST_F(BidsCohort, FindsTheBrainMaskThatAStudyNormalisesOver) {
  Scan("sub-01_FLAIR");
  Mask("sub-01_label-tumor_mask");
  Mask("sub-01_desc-brain_mask", "bet");
  Scan("sub-02_FLAIR");
  Mask("sub-02_label-tumor_mask");
  study_.harmonization.mask = HarmonizationPlan::Mask::kGiven;
  std::vector<std::string> left_out;

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, study_, &left_out));

  ASSERT_THAT(cases, SizeIs(1));
  EXPECT_EQ(cases[0].mask.filename(), "sub-01_desc-brain_mask.nii.gz");
  EXPECT_THAT(left_out, ElementsAre(AllOf(HasSubstr("sub-02"), HasSubstr("desc-brain_mask"))));
}

TEST_F(BidsCohort, IsNotMistakenWhenItsParentIsNamed) {
  cohort_.Touch("hospital/sub-01/anat/sub-01_FLAIR.nii.gz");

  EXPECT_THAT(ListCases(folder_, study_),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("hospital/"), HasSubstr("looks like a cohort"))));
}

TEST_F(BidsCohort, SaysWhatAFolderWithoutCasesHolds) {
  EXPECT_THAT(ListCases(folder_, study_),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("it is empty")));

  cohort_.Touch("scan1.nii.gz");
  EXPECT_THAT(ListCases(folder_, study_),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("scan1.nii.gz"), HasSubstr("1 NIfTI files"))));

  folder_.folder = cohort_.path() / "wrong";
  EXPECT_THAT(ListCases(folder_, study_),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("there is no folder"), HasSubstr("client.toml"))));
}

}  // namespace
}  // namespace isoscan
