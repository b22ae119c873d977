#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "client/cohort/cohort.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/client/cohort/cohort_on_disk.h"
#include "tests/unit/client/imaging/dicom_files.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::SizeIs;
using testing::UnorderedElementsAre;

class DicomCohort : public testing::Test {
 protected:
  /// A T1w series, of patient-7 where nothing else is said.
  void Series(const std::string& folder, const Change& change = nullptr) {
    WriteMrSeries(cohort_.path() / folder, volume_, change, std::to_string(++series_));
  }
  void Labelled(const std::string& name) const {
    cohort_.Labels("labels/" + name + ".nii.gz", BoxLabels(volume_.geometry));
  }
  static Change Patient(const std::string& number) {
    return [number](std::int64_t, RawDicom& file) { file.Text(0x00100020, "LO", number); };
  }
  static void IsT2w(std::int64_t, RawDicom& file) {
    file.Text(0x00180080, "DS", "4000");
    file.Text(0x00180081, "DS", "100");
  }
  static void IsPhase(std::int64_t, RawDicom& file) {
    file.Text(0x00080008, "CS", "ORIGINAL\\PRIMARY\\P\\ND");
  }
  static void IsDerived(std::int64_t, RawDicom& file) {
    file.Text(0x00080008, "CS", "DERIVED\\PRIMARY\\M\\FILTERED");
  }

  CohortOnDisk cohort_;
  CohortFolder folder_ = cohort_.folder();
  const Volume volume_ = NumberedVolume(ObliqueGeometry({8, 6, 5}));
  std::vector<std::string> left_out_;

 private:
  int series_ = 0;
};

TEST_F(DicomCohort, HasACaseForEachFolderWithASeriesAndALabelFile) {
  for (const char* name : {"b", "a", "unlabelled"}) Series(name);
  Series("c/export/0001");
  for (const char* name : {"a", "b", "c"}) Labelled(name);
  folder_.labels = {{"front", {"1"}}, {"back", {"2"}}};

  ASSERT_OK_AND_ASSIGN(const auto cases,
                       ListCases(folder_, StudyOf({"T1w"}, {"back", "front"}), &left_out_));

  EXPECT_THAT(NamesOf(cases), ElementsAre("a", "b", "c"));
  EXPECT_THAT(cases[0].labels.front().values, UnorderedElementsAre(Pair(2, 1), Pair(1, 2)));
  EXPECT_THAT(left_out_, ElementsAre(AllOf(HasSubstr("unlabelled: there is no"),
                                           HasSubstr("labels/unlabelled.nii.gz"))));
}

TEST_F(DicomCohort, IsLoadedWithItsLabelsOnTheSameGrid) {
  Series("a");
  Labelled("a");
  const Study study = StudyOf({"T1w"}, {"box"});

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, study));
  ASSERT_THAT(cases, SizeIs(1));
  ASSERT_OK_AND_ASSIGN(const LoadedCase loaded, LoadCase(cases.front(), study));

  EXPECT_EQ(loaded.channels.front().voxels, volume_.voxels);
  EXPECT_TRUE(SameGrid(loaded.stored, volume_.geometry));
  for (std::size_t i = 0; i < loaded.labels.voxels.size(); ++i) {
    ASSERT_EQ(loaded.labels.voxels[i], BoxLabels(volume_.geometry).voxels[i] > 0 ? 1 : 0);
  }
}

TEST_F(DicomCohort, TakesEachChannelByItsTiming) {
  Series("a");
  Series("a", IsT2w);
  Labelled("a");
  const Study study = StudyOf({"T2w", "T1w"}, {"box"});

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, study));
  ASSERT_THAT(cases, SizeIs(1));
  ASSERT_OK_AND_ASSIGN(const LoadedCase loaded, LoadCase(cases.front(), study));

  EXPECT_THAT(cases.front().images[0].filename().string(), HasSubstr("2-"));
  EXPECT_THAT(cases.front().images[1].filename().string(), HasSubstr("1-"));
  EXPECT_THAT(loaded.channels, SizeIs(2));
}

TEST_F(DicomCohort, TakesAChannelByTheNameOfItsFolderBeforeItsTiming) {
  Series("a/before");
  Series("a/After/0001");
  Labelled("a");
  folder_.channels = {{"T1w", "after"}};

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, StudyOf({"T1w"}, {"box"})));

  EXPECT_THAT(cases.front().images.front().parent_path().string(), HasSubstr("After"));
}

TEST_F(DicomCohort, LeavesOutWhatCouldMeanTwoSeriesAndWhatHasNone) {
  Series("a/1");
  Series("a/2");
  Series("b", IsT2w);
  Series("c");
  Series("d", [](std::int64_t slice, RawDicom& file) {
    if (slice == 2) file.Remove(0x00200032);
  });
  cohort_.Text("e/README", "no image");
  for (const char* name : {"a", "b", "c", "d", "e"}) Labelled(name);

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, StudyOf({"T1w"}, {"box"}), &left_out_));

  EXPECT_THAT(NamesOf(cases), ElementsAre("c"));
  EXPECT_THAT(
      left_out_,
      ElementsAre(HasSubstr("a: 2 series may be \"T1w\" (1 and 2)"),
                  HasSubstr("b: no series for \"T1w\", neither in a folder of that name nor by its "
                            "timing; it has . (T2w)"),
                  AllOf(HasSubstr("d: no series"), HasSubstr("do not say where they lie"),
                        HasSubstr("1 of 5 slices are missing")),
                  HasSubstr("e: no series for \"T1w\", neither in a folder of that name nor by its "
                            "timing; it has no DICOM file")));
}

TEST_F(DicomCohort, TakesAnOriginalBeforeDerivedImagesAndNoPhase) {
  Series("a/x", IsDerived);
  Series("a/y");
  Series("a/z", IsPhase);
  Series("b", IsDerived);
  for (const char* name : {"a", "b"}) Labelled(name);

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, StudyOf({"T1w"}, {"box"})));

  EXPECT_THAT(NamesOf(cases), ElementsAre("a", "b"));
  EXPECT_THAT(cases[0].images.front().parent_path().filename().string(), "y");
}

TEST_F(DicomCohort, TakesAnOnlyChannelsOnlySeriesWhateverItIsCalled) {
  Series("a", IsT2w);
  Labelled("a");

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, StudyOf({"MRI"}, {"box"})));

  EXPECT_THAT(NamesOf(cases), ElementsAre("a"));
}

TEST_F(DicomCohort, HoldsOutAllCasesOfAPatientTogether) {
  Series("a", Patient("p1"));
  Series("b", Patient("p2"));
  Series("c", Patient("p1"));
  Series("d", Patient(""));
  for (const char* name : {"a", "b", "c", "d"}) Labelled(name);

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, StudyOf({"T1w"}, {"box"})));

  std::vector<std::string> patients;
  for (const CaseFiles& files : cases) patients.push_back(files.patient);
  EXPECT_THAT(patients, ElementsAre("a", "b", "a", ""));
}

// The side of a patient hangs on no other case: not on one that sorts first, not on new patients.
TEST_F(DicomCohort, HoldsOutAPatientByTheSameHashWhateverElseArrives) {
  const Study study = StudyOf({"T1w"}, {"box"});
  const auto fractions = [&] {
    std::map<std::string, std::optional<double>> of_case;
    const auto cases = ListCases(folder_, study);
    EXPECT_OK(cases);
    for (const CaseFiles& files : *cases) of_case[files.name] = files.patient_fraction;
    return of_case;
  };
  for (const char* name : {"m", "n", "o"}) {
    Series(name, Patient(name == std::string("o") ? "p2" : "p1"));
    Labelled(name);
  }
  const auto before = fractions();
  for (const char* name : {"a", "b", "z"}) {
    Series(name, Patient(name == std::string("b") ? "p3" : "p1"));
    Labelled(name);
  }
  const auto after = fractions();

  EXPECT_EQ(before.at("m"), before.at("n"));
  EXPECT_NE(before.at("m"), before.at("o"));
  for (const char* name : {"m", "n", "o"}) EXPECT_EQ(before.at(name), after.at(name)) << name;
  for (const char* name : {"a", "z"}) EXPECT_EQ(after.at(name), before.at("m")) << name;
}

// Neither by its folder nor by one file could it be told from the other series.
TEST_F(DicomCohort, ReadsASeriesThatIsSpreadOverFoldersBesideAnother) {
  Series("a/1");
  Series("a/1", IsT2w);
  std::filesystem::create_directories(cohort_.path() / "a/2");
  for (const char* file : {"1-002.dcm", "2-002.dcm"}) {
    std::filesystem::rename(cohort_.path() / "a/1" / file, cohort_.path() / "a/2" / file);
  }
  Labelled("a");
  const Study study = StudyOf({"T1w"}, {"box"});

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, study));
  ASSERT_THAT(cases, SizeIs(1));
  ASSERT_OK_AND_ASSIGN(const LoadedCase loaded, LoadCase(cases.front(), study));

  EXPECT_EQ(loaded.channels.front().voxels, volume_.voxels);
}

TEST_F(DicomCohort, IsListedCaseByCaseUntilSomebodyStopsIt) {
  for (const char* name : {"a", "b", "c"}) {
    Series(name);
    Labelled(name);
  }
  std::stop_source stop;
  std::vector<std::int64_t> told;
  const ListingControl control{.threads = 2,
                               .stop = stop.get_token(),
                               .observe = [&](std::int64_t done, std::int64_t total) {
                                 EXPECT_EQ(total, 3);
                                 told.push_back(done);
                                 if (done == 2) stop.request_stop();
                               }};

  EXPECT_THAT(ListCases(folder_, StudyOf({"T1w"}, {"box"}), &left_out_, control),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT(told, ElementsAre(1, 2));
}

// An anonymiser's number: otherwise nothing could be held out.
TEST_F(DicomCohort, TakesOneNumberInAllFilesForNoPatients) {
  for (const char* name : {"a", "b", "c"}) {
    Series(name, Patient("ANON"));
    Labelled(name);
  }

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, StudyOf({"T1w"}, {"box"})));

  for (const CaseFiles& files : cases) {
    EXPECT_EQ(files.patient, "");
    EXPECT_EQ(files.patient_fraction, std::nullopt);
  }
}

TEST_F(DicomCohort, LeavesOutACaseWithTwoPatients) {
  Series("a", Patient("p1"));
  Series("a", [](std::int64_t slice, RawDicom& file) {
    IsT2w(slice, file);
    file.Text(0x00100020, "LO", "p2");
  });
  Series("b");
  Series("b", IsT2w);
  for (const char* name : {"a", "b"}) Labelled(name);

  ASSERT_OK_AND_ASSIGN(const auto cases,
                       ListCases(folder_, StudyOf({"T1w", "T2w"}, {"box"}), &left_out_));

  EXPECT_THAT(NamesOf(cases), ElementsAre("b"));
  EXPECT_THAT(left_out_, ElementsAre("a: its series show different patients"));
}

TEST_F(DicomCohort, NeedsTheValuesOfSeveralLabels) {
  Series("a");
  Labelled("a");

  EXPECT_THAT(ListCases(folder_, StudyOf({"T1w"}, {"front", "back"})),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("labels has no label \"front\""),
                             HasSubstr("set front = [VALUE] under [cohort.labels]"))));
}

TEST_F(DicomCohort, TakesAGivenMaskFromItsFolder) {
  Series("a");
  Series("b");
  for (const char* name : {"a", "b"}) Labelled(name);
  cohort_.Labels("masks/b.nii.gz", BoxLabels(volume_.geometry));
  Study study = StudyOf({"T1w"}, {"box"});
  study.harmonization.mask = HarmonizationPlan::Mask::kGiven;

  ASSERT_OK_AND_ASSIGN(const auto cases, ListCases(folder_, study, &left_out_));

  EXPECT_THAT(NamesOf(cases), ElementsAre("b"));
  EXPECT_EQ(cases.front().mask, cohort_.path() / "masks/b.nii.gz");
  EXPECT_THAT(left_out_, ElementsAre(HasSubstr("masks/a.nii.gz")));
}

}  // namespace
}  // namespace isoscan
