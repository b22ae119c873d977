#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "client/cohort/cohort.h"
#include "client/harmonization/harmonize.h"
#include "client/imaging/orientation.h"
#include "client/imaging/resampling.h"
#include "common/status/status_macros.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/client/cohort/cohort_on_disk.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::Each;
using testing::HasSubstr;
using testing::SizeIs;

/// Stored feet first, front to back: nowhere near canonical.
Geometry StoredGeometry() {
  Geometry geometry = ObliqueGeometry({13, 9, 6});
  for (auto& row : geometry.direction) row = {row[2], -row[0], -row[1]};
  return geometry;
}

class CaseOnDisk : public testing::Test {
 protected:
  void SetUp() override {
    cohort_.Image("image.nii.gz", SmoothVolume(StoredGeometry()));
    cohort_.Labels("labels.nii.gz", BoxLabels(StoredGeometry()));
    files_.name = "sub-01";
    files_.cohort = "ward";
    files_.images = {cohort_.path() / "image.nii.gz"};
    files_.labels = {{.path = cohort_.path() / "labels.nii.gz", .values = {{1, 2}, {2, 1}}}};
  }

  /// A label file of float64 with the given values in its first voxels.
  void WriteValues(const std::vector<double>& values) const {
    RawNifti nifti{.size = {2, 2, 2}, .datatype = 64, .bits = 64};
    for (std::size_t i = 0; i < 8; ++i) nifti.Append(i < values.size() ? values[i] : 0.0);
    nifti.Write(cohort_.path() / "labels.nii");
    RawNifti image{.size = {2, 2, 2}};
    for (int i = 0; i < 8; ++i) image.Append(static_cast<float>(i));
    image.Write(cohort_.path() / "image.nii");
  }

  CohortOnDisk cohort_;
  CaseFiles files_;
  Study study_ = StudyOf({"T1w"}, {"right", "left"});
};

TEST_F(CaseOnDisk, IsLoadedInCanonicalOrientationWithTheStudysLabels) {
  ASSERT_OK_AND_ASSIGN(const LoadedCase loaded, LoadCase(files_, study_));

  const Volume expected = ToCanonical(SmoothVolume(StoredGeometry()));
  EXPECT_TRUE(SameGrid(loaded.stored, StoredGeometry(), 1e-3));
  EXPECT_TRUE(SameGrid(loaded.labels.geometry, expected.geometry, 1e-3));
  EXPECT_EQ(loaded.channels[0].voxels, expected.voxels);
  LabelMap swapped = ToCanonical(BoxLabels(StoredGeometry()));
  for (auto& label : swapped.voxels) {
    label = label == 0 ? std::uint8_t{0} : static_cast<std::uint8_t>(3 - label);
  }
  EXPECT_EQ(loaded.labels.voxels, swapped.voxels);
}

// The trap of a qform and a sform that swap left and right, decided by the cohort's owner.
TEST_F(CaseOnDisk, LiesWhereTheCohortsConfigurationSays) {
  cohort_.Text(
      "dataset.json",
      R"({"channel_names": {"0": "T1w"}, "labels": {"background": 0, "right": 1, "left": 2},
                   "file_ending": ".nii", "numTraining": 1})");
  RawNifti nifti{.size = {3, 3, 3}, .sform_code = 2};
  nifti.sform[0] = {-1, 0, 0, 2};
  for (int i = 0; i < 27; ++i) nifti.Append(static_cast<float>(i % 3));
  for (const char* name : {"imagesTr/a_0000.nii", "labelsTr/a.nii"}) {
    cohort_.Touch(name);
    nifti.Write(cohort_.path() / name);
  }
  const auto first_voxel_of = [this](GeometrySource geometry) -> absl::StatusOr<float> {
    CohortFolder folder = cohort_.folder();
    folder.geometry = geometry;
    ASSIGN_OR_RETURN(const std::vector<CaseFiles> cases, ListCases(folder, study_));
    ASSIGN_OR_RETURN(const LoadedCase loaded, LoadCase(cases.at(0), study_));
    EXPECT_EQ(loaded.labels.voxels[0], static_cast<std::uint8_t>(loaded.channels[0].voxels[0]));
    return loaded.channels[0].voxels[0];
  };

  EXPECT_THAT(first_voxel_of(GeometrySource::kAgreed),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("mirrored")));
  EXPECT_EQ(first_voxel_of(GeometrySource::kQform).value(), 2);
  EXPECT_EQ(first_voxel_of(GeometrySource::kSform).value(), 0);
}

TEST_F(CaseOnDisk, MayStoreLabelsInAnotherOrderOfAxes) {
  cohort_.Labels("labels.nii.gz", ToCanonical(BoxLabels(StoredGeometry())));
  files_.labels[0].values = {{1, 1}, {2, 2}};

  ASSERT_OK_AND_ASSIGN(const LoadedCase loaded, LoadCase(files_, study_));

  EXPECT_EQ(loaded.labels.voxels, ToCanonical(BoxLabels(StoredGeometry())).voxels);
}

TEST_F(CaseOnDisk, IsRefusedWhenTheLabelsHaveAnotherSize) {
  Geometry other = StoredGeometry();
  other.size[0] += 1;
  cohort_.Labels("labels.nii.gz", BoxLabels(other));

  EXPECT_THAT(LoadCase(files_, study_),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("case sub-01"), HasSubstr("9x6x14"), HasSubstr("9x6x13"),
                             HasSubstr("spacing"), HasSubstr("origin"), HasSubstr("Resample"))));
}

TEST_F(CaseOnDisk, IsRefusedWhenTheLabelsLieElsewhere) {
  Geometry other = StoredGeometry();
  other.origin_mm[1] += 4;
  cohort_.Labels("labels.nii.gz", BoxLabels(other));

  EXPECT_THAT(LoadCase(files_, study_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("up to 4 mm apart")));
}

TEST_F(CaseOnDisk, NamesValuesThatNoLabelIsMappedTo) {
  files_.labels[0].values = {{1, 1}};
  LabelMap labels = BoxLabels(StoredGeometry());
  const auto voxels = std::count(labels.voxels.begin(), labels.voxels.end(), 2);

  EXPECT_THAT(LoadCase(files_, study_),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("2 (" + std::to_string(voxels) + " voxels)"),
                             HasSubstr("background = [VALUE]"))));
}

TEST_F(CaseOnDisk, TakesListedButUnusedValuesAsBackground) {
  files_.labels[0].values = {{1, 1}, {2, 0}};

  ASSERT_OK_AND_ASSIGN(const LoadedCase loaded, LoadCase(files_, study_));

  EXPECT_EQ(*std::max_element(loaded.labels.voxels.begin(), loaded.labels.voxels.end()), 1);
}

TEST_F(CaseOnDisk, RefusesFractionsAndNanInALabelMap) {
  files_.images = {cohort_.path() / "image.nii"};
  files_.labels = {{.path = cohort_.path() / "labels.nii", .values = {{1, 1}}}};
  for (const bool any_positive : {false, true}) {
    files_.labels[0].any_positive = any_positive;
    WriteValues({0.5, 1, std::numeric_limits<double>::quiet_NaN(), 0.25});

    EXPECT_THAT(LoadCase(files_, study_),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("3 voxels"), HasSubstr("whole numbers"))));
  }
}

TEST_F(CaseOnDisk, TakesEveryPositiveValueOfAMask) {
  WriteValues({255, 1, 0, 7});
  files_.images = {cohort_.path() / "image.nii"};
  files_.labels = {
      {.path = cohort_.path() / "labels.nii", .values = {{1, 2}}, .any_positive = true}};

  ASSERT_OK_AND_ASSIGN(const LoadedCase loaded, LoadCase(files_, study_));

  EXPECT_EQ(std::count(loaded.labels.voxels.begin(), loaded.labels.voxels.end(), 2), 3);
}

TEST_F(CaseOnDisk, LetsALaterLabelLieOverAnEarlierOne) {
  LabelMap whole = BoxLabels(StoredGeometry());
  for (auto& label : whole.voxels) label = label != 0 ? 1 : 0;
  cohort_.Labels("whole.nii.gz", whole);
  LabelMap part = BoxLabels(StoredGeometry());
  for (auto& label : part.voxels) label = label == 2 ? 1 : 0;
  cohort_.Labels("part.nii.gz", part);
  files_.labels = {
      {.path = cohort_.path() / "whole.nii.gz", .values = {{1, 1}}, .any_positive = true},
      {.path = cohort_.path() / "part.nii.gz", .values = {{1, 2}}, .any_positive = true}};

  ASSERT_OK_AND_ASSIGN(const LoadedCase loaded, LoadCase(files_, study_));

  EXPECT_EQ(loaded.labels.voxels, ToCanonical(BoxLabels(StoredGeometry())).voxels);
}

TEST_F(CaseOnDisk, IsRefusedWhenItsChannelsLieApart) {
  Geometry other = StoredGeometry();
  other.spacing_mm[2] *= 1.5;
  cohort_.Image("second.nii.gz", SmoothVolume(other));
  files_.images.push_back(cohort_.path() / "second.nii.gz");
  study_.channels.push_back("T2w");

  EXPECT_THAT(LoadCase(files_, study_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("second.nii.gz")));
}

TEST_F(CaseOnDisk, IsPreparedHarmonisedAtThePlansSpacing) {
  study_.harmonization.spacing_mm = {1.5, 1.0, 0.9};  // z, y, x.
  ASSERT_OK_AND_ASSIGN(const LoadedCase loaded, LoadCase(files_, study_));

  ASSERT_OK_AND_ASSIGN(const PreparedCase prepared, PrepareCase(loaded, files_, study_));

  EXPECT_EQ(prepared.grid, WithSpacing(loaded.labels.geometry, {0.9, 1.0, 1.5}));
  EXPECT_THAT(prepared.image, SizeIs(static_cast<std::size_t>(prepared.grid.voxels())));
  EXPECT_THAT(prepared.labels, SizeIs(static_cast<std::size_t>(prepared.grid.voxels())));
  EXPECT_EQ(prepared.reference_labels, loaded.labels.voxels);
  EXPECT_EQ(prepared.cohort, "ward");
  Volume expected = loaded.channels[0];
  ASSERT_OK(Harmonize(expected, study_.harmonization));
  EXPECT_EQ(prepared.image, Resample(expected, prepared.grid, ImageInterpolation::kLinear).voxels);
}

TEST_F(CaseOnDisk, KeepsItsOwnGridWithoutASpacing) {
  ASSERT_OK_AND_ASSIGN(const LoadedCase loaded, LoadCase(files_, study_));

  ASSERT_OK_AND_ASSIGN(const PreparedCase prepared, PrepareCase(loaded, files_, study_));

  EXPECT_EQ(prepared.grid, loaded.labels.geometry);
  EXPECT_EQ(prepared.labels, loaded.labels.voxels);
}

TEST_F(CaseOnDisk, StacksItsChannels) {
  cohort_.Image("second.nii.gz", NumberedVolume(StoredGeometry()));
  files_.images.push_back(cohort_.path() / "second.nii.gz");
  study_.channels.push_back("T2w");
  ASSERT_OK_AND_ASSIGN(const LoadedCase loaded, LoadCase(files_, study_));

  ASSERT_OK_AND_ASSIGN(const PreparedCase prepared, PrepareCase(loaded, files_, study_));

  const auto voxels = static_cast<std::ptrdiff_t>(prepared.grid.voxels());
  Volume second = loaded.channels[1];
  ASSERT_OK(Harmonize(second, study_.harmonization));
  EXPECT_TRUE(std::equal(second.voxels.begin(), second.voxels.end(),
                         prepared.image.begin() + voxels, prepared.image.end()));
}

TEST_F(CaseOnDisk, NamesItselfWhenItCannotBeHarmonised) {
  Volume constant = SmoothVolume(StoredGeometry());
  std::fill(constant.voxels.begin(), constant.voxels.end(), 3.0f);
  cohort_.Image("image.nii.gz", constant);
  ASSERT_OK_AND_ASSIGN(const LoadedCase loaded, LoadCase(files_, study_));

  EXPECT_THAT(PrepareCase(loaded, files_, study_),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("case sub-01, T1w"), HasSubstr("constant volume"))));
}

TEST_F(CaseOnDisk, IsRefusedWhenZeroOutsideItsMaskWouldEraseLabels) {
  LabelMap mask = BoxLabels(StoredGeometry());
  for (auto& voxel : mask.voxels) voxel = voxel == 1 ? 1 : 0;
  cohort_.Labels("mask.nii.gz", mask);
  files_.mask = cohort_.path() / "mask.nii.gz";
  study_.harmonization.mask = HarmonizationPlan::Mask::kGiven;
  ASSERT_OK_AND_ASSIGN(const LoadedCase loaded, LoadCase(files_, study_));

  EXPECT_OK(PrepareCase(loaded, files_, study_));
  study_.harmonization.outside = HarmonizationPlan::Outside::kZero;
  EXPECT_THAT(
      PrepareCase(loaded, files_, study_),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("labelled voxels lie outside")));
}

}  // namespace
}  // namespace isoscan
