#include "client/cohort/scans.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "client/intake/case_sight.h"
#include "client/intake/cohort_findings.h"
#include "tests/unit/client/cohort/cohort_on_disk.h"
#include "tests/unit/client/imaging/dicom_files.h"

namespace isoscan {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Optional;
using testing::Pair;
using testing::SizeIs;
using testing::UnorderedElementsAre;

std::vector<std::string> NamesOf(const CohortScans& scans) {
  std::vector<std::string> names;
  for (const ScanFiles& scan : scans.scans) names.push_back(scan.name);
  return names;
}

TEST(ListScans, OfBidsTakesEveryScanWithTheLabelsThatBelongToIt) {
  const CohortOnDisk cohort;
  cohort.Touch("sub-01/anat/sub-01_T1w.nii.gz");
  cohort.Touch("sub-01/anat/sub-01_run-2_T2w.nii.gz");
  cohort.Touch("derivatives/a/sub-01/anat/sub-01_label-tumor_mask.nii.gz");
  cohort.Touch("derivatives/b/sub-01/anat/sub-01_run-2_dseg.nii.gz");
  cohort.Text("derivatives/b/dseg.tsv", "index\tname\n1\tGM\n");

  ASSERT_OK_AND_ASSIGN(const CohortScans found, ListScans(cohort.folder()));

  EXPECT_EQ(found.layout, "BIDS");
  ASSERT_THAT(NamesOf(found), ElementsAre("sub-01_T1w", "sub-01_run-2_T2w"));
  EXPECT_EQ(found.scans[0].images[0].channel, "T1w");
  EXPECT_EQ(found.scans[0].patient, "sub-01");
  ASSERT_THAT(found.scans[0].labels, SizeIs(1));
  EXPECT_TRUE(found.scans[0].labels[0].any_positive);
  EXPECT_THAT(found.scans[0].labels[0].names, ElementsAre(Pair(1, "tumor")));
  ASSERT_THAT(found.scans[1].labels, SizeIs(2));
  EXPECT_THAT(found.scans[1].labels[1].names, ElementsAre(Pair(1, "GM")));
}

TEST(ListScans, OfBidsNamesLabelsThatHaveNoScan) {
  const CohortOnDisk cohort;
  cohort.Touch("sub-01/anat/sub-01_T1w.nii.gz");
  cohort.Touch("derivatives/a/sub-02/anat/sub-02_label-tumor_mask.nii.gz");

  ASSERT_OK_AND_ASSIGN(const CohortScans found, ListScans(cohort.folder()));

  EXPECT_THAT(found.left_out, ElementsAre(HasSubstr("sub-02_label-tumor_mask")));
}

TEST(ListScans, OfDecathlonListsMissingFilesTooAndLeavesOutWhatLeavesTheFolder) {
  const CohortOnDisk cohort;
  cohort.Text("dataset.json", R"({"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "A"},
    "training": [{"image": "imagesTr/x.nii.gz", "label": "labelsTr/x.nii.gz"}, "imagesTr/y.nii.gz",
                 {"image": "../../etc/z.nii.gz", "label": "labelsTr/z.nii.gz"}]})");

  ASSERT_OK_AND_ASSIGN(const CohortScans found, ListScans(cohort.folder()));

  EXPECT_THAT(NamesOf(found), ElementsAre("x"));
  EXPECT_THAT(found.scans[0].labels[0].names, ElementsAre(Pair(1, "A")));
  EXPECT_TRUE(found.scans[0].labels[0].closed);
  EXPECT_THAT(found.left_out,
              UnorderedElementsAre(HasSubstr("names not both"), HasSubstr("not in its folder")));
}

TEST(ListScans, OfNnunetGathersChannelsAndListsImagesWithoutLabels) {
  const CohortOnDisk cohort;
  cohort.Text("dataset.json",
              R"({"channel_names": {"0": "T2", "1": "ADC"}, "file_ending": ".nii.gz",
    "labels": {"background": 0, "gland": [1, 2], "TZ": 2, "ignore": 3}})");
  for (const char* file : {"imagesTr/p1_0000", "imagesTr/p1_0001", "imagesTr/p2_0000",
                           "imagesTr/odd", "labelsTr/p1", "labelsTr/p3"}) {
    cohort.Touch(std::string(file) + ".nii.gz");
  }

  ASSERT_OK_AND_ASSIGN(const CohortScans found, ListScans(cohort.folder()));

  ASSERT_THAT(NamesOf(found), ElementsAre("p1", "p2"));
  EXPECT_EQ(found.scans[0].images[1].channel, "ADC");
  EXPECT_THAT(found.scans[0].labels[0].names, ElementsAre(Pair(1, "gland"), Pair(2, "TZ")));
  EXPECT_THAT(found.scans[1].labels, IsEmpty());
  EXPECT_THAT(found.left_out, UnorderedElementsAre(HasSubstr("odd.nii.gz"), HasSubstr("p3")));
}

TEST(ListScans, TakesLooseFilesAndRefusesAFolderWithoutAScan) {
  const CohortOnDisk cohort;
  EXPECT_THAT(ListScans(cohort.folder()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("empty")));
  cohort.Touch("b.nii.gz");
  cohort.Touch("a.mha");
  cohort.Touch("notes.txt");

  ASSERT_OK_AND_ASSIGN(const CohortScans found, ListScans(cohort.folder()));

  EXPECT_EQ(found.layout, "loose files");
  EXPECT_THAT(NamesOf(found), ElementsAre("a", "b"));
}

/// Two series of one case, the second with thicker slices, and a label file on `label_grid`.
CohortScans TwoSeriesWithALabelOn(const Geometry& label_grid, const Geometry& first,
                                  const Geometry& second, std::vector<CaseSight>& sights) {
  const CohortOnDisk cohort;
  WriteMrSeries(cohort.path() / "p/1", SmoothVolume(first), nullptr, "1");
  WriteMrSeries(cohort.path() / "p/2", SmoothVolume(second), nullptr, "2");
  WriteMrSeries(cohort.path() / "q/1", SmoothVolume(first), nullptr, "3");
  cohort.Labels("labels/p.nii.gz", BoxLabels(label_grid));
  cohort.Labels("labels/q.nii.gz", BoxLabels(first));
  const absl::StatusOr<CohortScans> found = ListScans(cohort.folder());
  EXPECT_OK(found);
  if (!found.ok()) return {};
  for (const ScanFiles& scan : found->scans) {
    CaseSight& sight = sights.emplace_back(LookAtHeaders(scan));
    LookAtVoxels(sight);
  }
  CompareCases(sights);
  return *found;
}

TEST(ListScans, OfDicomGivesALabelToTheSeriesOnWhoseGridItLies) {
  const Geometry fine = ObliqueGeometry({8, 6, 9});
  const Geometry coarse = ObliqueGeometry({8, 6, 5});
  std::vector<CaseSight> sights;

  const CohortScans found = TwoSeriesWithALabelOn(coarse, fine, coarse, sights);

  ASSERT_THAT(NamesOf(found), ElementsAre("p/1", "p/2", "q/1"));
  EXPECT_THAT(found.scans[0].labels, IsEmpty());
  EXPECT_THAT(found.scans[1].labels, SizeIs(1));
  EXPECT_TRUE(found.scans[0].label_elsewhere);
  EXPECT_FALSE(found.scans[1].label_elsewhere);
  // q repeats the image of p/1, which is another matter.
  for (const CaseSight& sight : {sights[0], sights[1]}) {
    EXPECT_THAT(sight.findings, IsEmpty()) << sight.files.name;
  }
  EXPECT_THAT(sights[1].labels, SizeIs(2));
}

TEST(ListScans, OfDicomGivesALabelToEachSeriesOnItsGridAndToAllWhereItLiesOnNone) {
  const Geometry grid = ObliqueGeometry({8, 6, 5});
  std::vector<CaseSight> sights;
  CohortScans found = TwoSeriesWithALabelOn(grid, grid, grid, sights);
  ASSERT_THAT(found.scans, SizeIs(3));
  EXPECT_THAT(found.scans[0].labels, SizeIs(1));
  EXPECT_THAT(found.scans[1].labels, SizeIs(1));

  sights.clear();
  found =
      TwoSeriesWithALabelOn(ObliqueGeometry({8, 6, 7}), grid, ObliqueGeometry({8, 6, 9}), sights);
  ASSERT_THAT(sights, SizeIs(3));
  for (const CaseSight& sight : {sights[0], sights[1]}) {
    ASSERT_THAT(sight.findings, SizeIs(1)) << sight.files.name;
    EXPECT_EQ(sight.findings[0].fault, Fault::kGrid);
  }
}

// "#2" names the second series of a folder; in a folder's own name it is part of that.
TEST(ListScans, OfDicomTakesAFolderWithANumberSignForACaseOfItsOwn) {
  const Geometry grid = ObliqueGeometry({8, 6, 5});
  const CohortOnDisk cohort;
  for (const char* name : {"p#1", "p#2"}) {
    for (const char* series : {"1", "2"}) {
      const std::string uid = std::string(name).substr(2) + "." + series;
      WriteMrSeries(cohort.path() / name, SmoothVolume(grid), nullptr, uid);
    }
    cohort.Labels("labels/" + std::string(name) + ".nii.gz", BoxLabels(grid));
  }
  WriteMrSeries(
      cohort.path() / "q", SmoothVolume(grid),
      [](std::int64_t, RawDicom& file) { file.Text(0x00100020, "LO", "patient-8"); }, "3");

  ASSERT_OK_AND_ASSIGN(const CohortScans found, ListScans(cohort.folder()));

  ASSERT_THAT(NamesOf(found), ElementsAre("p#1", "p#1#2", "p#2", "p#2#2", "q"));
  std::vector<CaseSight> sights;
  for (const std::size_t scan : {0, 1, 2, 3}) {
    const std::string of_case = scan < 2 ? "p#1" : "p#2";
    EXPECT_EQ(found.scans[scan].dicom_case, of_case);
    ASSERT_THAT(found.scans[scan].labels, SizeIs(1));
    EXPECT_EQ(found.scans[scan].labels[0].path.filename(), of_case + ".nii.gz");
  }
  for (const ScanFiles& scan : found.scans) sights.push_back(LookAtHeaders(scan));
  CompareCases(sights);
  // The two folders show one patient.
  EXPECT_THAT(sights[1].findings, IsEmpty());
  ASSERT_THAT(sights[2].findings, SizeIs(1));
  EXPECT_EQ(sights[2].findings[0].fault, Fault::kSamePatient);
}

TEST(LookAtHeaders, CountsTheProcessThatDecodesCompressedSlices) {
  const Volume volume = SmoothVolume(ObliqueGeometry({8, 6, 5}));
  const CohortOnDisk cohort;
  const auto bytes_of = [&](const std::string& transfer_syntax) {
    for (std::int64_t slice = 0; slice < 5; ++slice) {
      MrSlice(volume, slice)
          .Write(cohort.path() / "p" / (std::to_string(slice) + ".dcm"), transfer_syntax);
    }
    const absl::StatusOr<CohortScans> found = ListScans(cohort.folder());
    return found.ok() ? LookAtHeaders(found->scans.front()).bytes : -1;
  };

  const std::int64_t plain = bytes_of("1.2.840.10008.1.2.1");
  const std::int64_t jpeg_2000 = bytes_of("1.2.840.10008.1.2.4.90");

  EXPECT_GT(plain, 0);
  EXPECT_EQ(jpeg_2000 - plain, (std::int64_t{1} << 28) + 16 * 8 * 6 * 2);
}

TEST(Sidecars, AreInheritedAndTheNearerOneWins) {
  const CohortOnDisk cohort;
  cohort.Text("T1w.json",
              R"({"Manufacturer": "ACME", "MagneticFieldStrength": 1.5, "EchoTime": 0.003})");
  cohort.Text("T2w.json", R"({"Manufacturer": "other"})");
  cohort.Text("sub-01/sub-01_acq-fast_T1w.json", R"({"Manufacturer": "no: another acquisition"})");
  cohort.Text("sub-01/anat/sub-01_run-1_T1w.json", R"({"MagneticFieldStrength": "3"})");
  Sidecars sidecars(cohort.path());

  const Sidecar sidecar = sidecars.Of(cohort.path() / "sub-01/anat/sub-01_run-1_T1w.nii.gz");

  EXPECT_EQ(sidecar.acquisition.manufacturer, "ACME");
  EXPECT_THAT(sidecar.acquisition.field_tesla, Optional(3.0));
  EXPECT_THAT(sidecar.acquisition.echo_ms, Optional(3.0));
  EXPECT_EQ(sidecar.fault, "");
}

TEST(Sidecars, TellAboutAFileThatIsNoJson) {
  const CohortOnDisk cohort;
  cohort.Text("x.json", "[1, 2");
  Sidecars sidecars(cohort.path());

  EXPECT_THAT(sidecars.Of(cohort.path() / "x.nii.gz").fault, HasSubstr("x.json"));
}

}  // namespace
}  // namespace isoscan
