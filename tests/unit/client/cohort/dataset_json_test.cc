#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
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
using testing::UnorderedElementsAre;

constexpr char kHippocampus[] = R"({
  "modality": {"0": "MRI"},
  "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
  "training": [{"image": "./imagesTr/h_002.nii.gz", "label": "./labelsTr/h_002.nii.gz"},
               {"image": "./imagesTr/h_001.nii.gz", "label": "./labelsTr/h_001.nii.gz"}]})";

constexpr char kProstate[] = R"({
  "channel_names": {"0": "T2", "1": "ADC"},
  "labels": {"background": 0, "PZ": 1, "TZ": 2, "gland": [1, 2], "ignore": 3},
  "file_ending": ".nii.gz", "numTraining": 2})";

class DatasetJson : public testing::Test {
 protected:
  void WriteDecathlon() const {
    cohort_.Text("dataset.json", kHippocampus);
    for (const char* name : {"h_001", "h_002"}) {
      cohort_.Touch(std::string("imagesTr/") + name + ".nii.gz");
      cohort_.Touch(std::string("labelsTr/") + name + ".nii.gz");
      cohort_.Touch(std::string("imagesTr/._") + name + ".nii.gz");
    }
  }
  void WriteNnunet() const {
    cohort_.Text("dataset.json", kProstate);
    for (const std::string name : {"p1", "p2"}) {
      cohort_.Touch("imagesTr/" + name + "_0000.nii.gz");
      cohort_.Touch("imagesTr/" + name + "_0001.nii.gz");
      cohort_.Touch("labelsTr/" + name + ".nii.gz");
      cohort_.Touch("labelsTr/._" + name + ".nii.gz");
    }
  }

  CohortOnDisk cohort_;
  CohortFolder folder_ = cohort_.folder();
};

TEST_F(DatasetJson, OfDecathlonNamesCasesAndLabels) {
  WriteDecathlon();

  ASSERT_OK_AND_ASSIGN(const auto cases,
                       ListCases(folder_, StudyOf({"T1w"}, {"posterior", "anterior"})));

  EXPECT_THAT(NamesOf(cases), ElementsAre("h_001", "h_002"));
  EXPECT_THAT(cases[0].labels[0].values, ElementsAre(Pair(0, 0), Pair(1, 2), Pair(2, 1)));
  EXPECT_EQ(cases[1].images[0], cohort_.path() / "imagesTr/h_002.nii.gz");
}

TEST_F(DatasetJson, TurnsLabelsThatTheStudyDoesNotUseIntoBackground) {
  WriteDecathlon();

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, StudyOf({"T1w"}, {"anterior"})));

  EXPECT_THAT(cases[0].labels[0].values, ElementsAre(Pair(0, 0), Pair(1, 1), Pair(2, 0)));
}

TEST_F(DatasetJson, JoinsSeveralValuesInOneLabel) {
  WriteDecathlon();
  folder_.labels = {{"hippocampus", {"Anterior", "2"}}, {"background", {"9"}}};

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, StudyOf({"T1w"}, {"hippocampus"})));

  EXPECT_THAT(cases[0].labels[0].values,
              ElementsAre(Pair(0, 0), Pair(1, 1), Pair(2, 1), Pair(9, 0)));
}

TEST_F(DatasetJson, ListsItsLabelsWhenOneIsMissing) {
  WriteDecathlon();

  EXPECT_THAT(ListCases(folder_, StudyOf({"T1w"}, {"amygdala"})),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("\"Anterior\" = 1, \"Posterior\" = 2"),
                             HasSubstr("set amygdala = [VALUE] under [cohort.labels]"))));
}

TEST_F(DatasetJson, RefusesOneValueUnderTwoLabelsAndTheBackgroundAsALabel) {
  WriteDecathlon();
  folder_.labels = {{"a", {"1"}}, {"b", {"1", "2"}}};
  EXPECT_THAT(
      ListCases(folder_, StudyOf({"T1w"}, {"a", "b"})),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1 belongs to both \"a\" and \"b\"")));

  folder_.labels = {{"a", {"0"}}};
  EXPECT_THAT(ListCases(folder_, StudyOf({"T1w"}, {"a"})),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("always background")));
}

TEST_F(DatasetJson, LeavesOutAListedCaseWithoutItsFile) {
  WriteDecathlon();
  std::filesystem::remove(cohort_.path() / "labelsTr/h_001.nii.gz");
  std::vector<std::string> left_out;

  ASSERT_OK_AND_ASSIGN(const auto cases,
                       ListCases(folder_, StudyOf({"T1w"}, {"anterior"}), &left_out));

  EXPECT_THAT(NamesOf(cases), ElementsAre("h_002"));
  EXPECT_THAT(left_out, ElementsAre(HasSubstr("h_001")));
}

TEST_F(DatasetJson, RefusesSeveralChannelsInOneFile) {
  cohort_.Text("dataset.json", R"({"modality": {"0": "T2", "1": "ADC"}, "labels": {"1": "PZ"},
    "training": [{"image": "imagesTr/p.nii.gz", "label": "labelsTr/p.nii.gz"}]})");

  EXPECT_THAT(ListCases(folder_, StudyOf({"T2"}, {"PZ"})),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("4D"), HasSubstr("nnUNetv2_convert_MSD_dataset"))));
}

TEST_F(DatasetJson, OfNnunetFindsTheNumberedChannels) {
  WriteNnunet();

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, StudyOf({"adc", "T2"}, {"tz", "pz"})));

  EXPECT_THAT(NamesOf(cases), ElementsAre("p1", "p2"));
  EXPECT_THAT(cases[0].images, ElementsAre(cohort_.path() / "imagesTr/p1_0001.nii.gz",
                                           cohort_.path() / "imagesTr/p1_0000.nii.gz"));
  EXPECT_THAT(cases[0].labels[0].values, ElementsAre(Pair(0, 0), Pair(1, 2), Pair(2, 1)));
}

TEST_F(DatasetJson, OfNnunetMayNameRegions) {
  WriteNnunet();

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, StudyOf({"T2"}, {"gland"})));

  EXPECT_THAT(cases[0].labels[0].values, ElementsAre(Pair(0, 0), Pair(1, 1), Pair(2, 1)));
}

TEST_F(DatasetJson, NamesTheChannelsThatItHas) {
  WriteNnunet();

  EXPECT_THAT(ListCases(folder_, StudyOf({"FLAIR"}, {"PZ"})),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("\"T2\", \"ADC\""), HasSubstr("[cohort.channels]"))));
}

TEST_F(DatasetJson, OfNnunetsFirstVersionIsFoundByItsFiles) {
  cohort_.Text("dataset.json", kHippocampus);
  for (const std::string name : {"h_001", "h_002"}) {
    cohort_.Touch("imagesTr/" + name + "_0000.nii.gz");
    cohort_.Touch("labelsTr/" + name + ".nii.gz");
  }

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, StudyOf({"T1w"}, {"anterior"})));

  EXPECT_EQ(cases[0].images[0].filename(), "h_001_0000.nii.gz");
}

TEST_F(DatasetJson, MayNotNameFilesOutsideItsFolder) {
  for (const std::string outside :
       {"../h_002.nii.gz", "/data/h_002.nii.gz", "imagesTr/../../h.nii", ""}) {
    WriteDecathlon();
    std::string text = kHippocampus;
    const std::string inside = "./labelsTr/h_002.nii.gz";
    text.replace(text.find(inside), inside.size(), outside);
    cohort_.Text("dataset.json", text);

    EXPECT_THAT(ListCases(folder_, StudyOf({"T1w"}, {"anterior"})),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr(outside), HasSubstr("not in its folder"))));
  }
}

TEST_F(DatasetJson, ThatIsAFolderIsNoReasonToCrash) {
  WriteDecathlon();
  std::filesystem::remove(cohort_.path() / "dataset.json");
  std::filesystem::create_directory(cohort_.path() / "dataset.json");

  EXPECT_THAT(ListCases(folder_, StudyOf({"T1w"}, {"anterior"})),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("dataset.json")));
}

TEST_F(DatasetJson, ThatIsNoJsonIsNamedWithThePlace) {
  cohort_.Text("dataset.json", "{\"labels\": ");

  EXPECT_THAT(ListCases(folder_, StudyOf({"T1w"}, {"a"})),
              StatusIs(absl::StatusCode::kDataLoss,
                       AllOf(HasSubstr("dataset.json is not JSON"), HasSubstr("line 1"))));
}

TEST_F(DatasetJson, WithValuesOfAnotherTypeBreaksNothing) {
  for (const char* text : {"[]", "3", "{\"labels\": 3, \"training\": 4, \"modality\": []}",
                           "{\"labels\": {\"x\": null, \"y\": [\"z\"]}, \"training\": [1, {}]}"}) {
    cohort_.Text("dataset.json", text);
    EXPECT_FALSE(ListCases(folder_, StudyOf({"T1w"}, {"a"})).ok()) << text;
  }
}

}  // namespace
}  // namespace isoscan
