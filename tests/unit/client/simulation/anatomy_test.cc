#include "client/simulation/anatomy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "client/imaging/image_file.h"
#include "client/simulation/scan_grid.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using ::testing::HasSubstr;

/// A bright ball of radius 6 mm, marked 42 in the atlas, in a dark box.
struct BallAtlas {
  Volume image{.geometry = {.size = {40, 36, 32}, .origin_mm = {-10, 5, 7}}, .voxels = {}};
  LabelMap atlas{.geometry = image.geometry, .voxels = {}};

  BallAtlas() {
    for (int z = 0; z < 32; ++z) {
      for (int y = 0; y < 36; ++y) {
        for (int x = 0; x < 40; ++x) {
          const bool inside = std::hypot(x - 20, y - 18, z - 16) < 6;
          image.voxels.push_back(inside ? 100.0F : 10.0F);
          atlas.voxels.push_back(inside ? 42 : 0);
        }
      }
    }
  }
};

class AnatomyTest : public ::testing::Test {
 protected:
  AnatomyTest() {
    EXPECT_OK(WriteVolume(image_, ball_.image));
    EXPECT_OK(WriteLabelMap(atlas_, ball_.atlas));
  }

  /// The ball with its intensities, and with tissue when there is a brain.
  absl::StatusOr<Anatomy> Load(double margin_mm, const std::filesystem::path& brain = {}) {
    return LoadAnatomy({.atlas = atlas_, .image = image_, .brain = brain},
                       {{.name = "ball", .values = {42}}}, margin_mm);
  }

  static Sampling SamplingOf(const Anatomy& anatomy, double spacing_mm) {
    return {.grid =
                ScanGrid(anatomy.field_of_view, {spacing_mm, spacing_mm, spacing_mm}, "LPS", 0)};
  }

  TemporaryDirectory folder_;
  std::filesystem::path image_ = folder_.path() / "head.nii.gz";
  std::filesystem::path atlas_ = folder_.path() / "atlas.nii.gz";
  BallAtlas ball_;
};

std::int64_t LabelledVoxels(const LabelMap& labels) {
  return std::count(labels.voxels.begin(), labels.voxels.end(), std::uint8_t{1});
}

TEST_F(AnatomyTest, KeepsTheLabelsAndTheirMargin) {
  const auto anatomy = Load(4);

  ASSERT_OK(anatomy);
  // Radius below 6 mm around a voxel: 11 voxels; 4 on each side.
  EXPECT_THAT(anatomy->field_of_view.size, ::testing::ElementsAre(19, 19, 19));
  EXPECT_THAT(anatomy->field_of_view.origin_mm,
              ::testing::ElementsAre(-10 + 20 - 9, 5 + 18 - 9, 7 + 16 - 9));
  // What a turned grid or a moved person needs is kept around it.
  EXPECT_TRUE(SameGrid(anatomy->labels.geometry, ball_.image.geometry));
  EXPECT_EQ(LabelledVoxels(anatomy->labels),
            std::count(ball_.atlas.voxels.begin(), ball_.atlas.voxels.end(), std::uint8_t{42}));
}

TEST_F(AnatomyTest, RefusesALabelThatTheAtlasDoesNotHave) {
  EXPECT_THAT(LoadAnatomy({.atlas = atlas_}, {{.name = "cube", .values = {7}}}, 4),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("cube")));
}

TEST_F(AnatomyTest, PatientWithoutDisplacementIsTheAnatomyOnACoarserGrid) {
  const auto anatomy = Load(6);
  ASSERT_OK(anatomy);

  const Anatomy patient = MakePatient(*anatomy, SamplingOf(*anatomy, 2), {.displacement_mm = 0},
                                      RandomStream(1, "patient"));

  EXPECT_THAT(patient.image.geometry.spacing_mm, ::testing::ElementsAre(2, 2, 2));
  EXPECT_NEAR(static_cast<double>(LabelledVoxels(patient.labels)) * 8,
              static_cast<double>(LabelledVoxels(anatomy->labels)),
              // A ball of three voxels' radius: voxels come and go by six in each eighth of it.
              0.25 * static_cast<double>(LabelledVoxels(anatomy->labels)));
}

TEST_F(AnatomyTest, PatientsDifferButKeepTheirSize) {
  const auto anatomy = Load(8);
  ASSERT_OK(anatomy);
  const PatientVariation variation{.displacement_mm = 2};
  const Sampling sampling = SamplingOf(*anatomy, 1);

  const Anatomy first = MakePatient(*anatomy, sampling, variation, RandomStream(1, "patient", 1));
  const Anatomy again = MakePatient(*anatomy, sampling, variation, RandomStream(1, "patient", 1));
  const Anatomy second = MakePatient(*anatomy, sampling, variation, RandomStream(1, "patient", 2));

  EXPECT_EQ(first.image.voxels, again.image.voxels);
  EXPECT_NE(first.labels.voxels, second.labels.voxels);
  const auto size = static_cast<double>(LabelledVoxels(anatomy->labels));
  EXPECT_NEAR(static_cast<double>(LabelledVoxels(first.labels)), size, 0.5 * size);
  EXPECT_NEAR(static_cast<double>(LabelledVoxels(second.labels)), size, 0.5 * size);
}

TEST_F(AnatomyTest, LabelsFollowTheImage) {
  const auto anatomy = Load(8);
  ASSERT_OK(anatomy);

  const Anatomy patient = MakePatient(*anatomy, SamplingOf(*anatomy, 1), {.displacement_mm = 2},
                                      RandomStream(5, "patient"));

  std::int64_t disagree = 0;
  for (std::size_t i = 0; i < patient.image.voxels.size(); ++i) {
    const bool bright = patient.image.voxels[i] > 55;
    disagree += bright != (patient.labels.voxels[i] == 1) ? 1 : 0;
  }
  // Only on the border, where a voxel is half of each.
  EXPECT_LT(disagree, LabelledVoxels(patient.labels) / 5);
}

TEST_F(AnatomyTest, TissueThatIsFoundAgreesWithTheLabels) {
  // The ball is bright with a dark corner; the brain around it has CSF and grey matter.
  Volume head = ball_.image;
  Volume brain = ball_.image;
  for (std::size_t i = 0; i < head.voxels.size(); ++i) {
    const bool inside = ball_.atlas.voxels[i] == 42;
    head.voxels[i] = inside ? (i % 4 == 0 ? 10.0F : 100.0F) : static_cast<float>(i % 3) * 30 + 10;
    brain.voxels[i] = i % 40 < 38 ? 1.0F : 0.0F;
  }
  ASSERT_OK(WriteVolume(image_, head));
  ASSERT_OK(WriteVolume(folder_.path() / "brain.nii", brain));

  const auto anatomy = Load(4, folder_.path() / "brain.nii");

  ASSERT_OK(anatomy);
  TissueShares first{};
  for (std::size_t i = 0; i < anatomy->tissue.size(); ++i) {
    if (anatomy->labels.voxels[i] == 0) continue;
    if (first == TissueShares{}) first = anatomy->tissue[i];
    ASSERT_EQ(anatomy->tissue[i], first);
  }
  EXPECT_EQ(first[IndexOf(Tissue::kCsf)], 0);
  EXPECT_NEAR(first[IndexOf(Tissue::kWhite)], 0.75, 0.05);
  EXPECT_NEAR(first[IndexOf(Tissue::kGrey)] + first[IndexOf(Tissue::kWhite)], 1, 1e-6);
}

TEST_F(AnatomyTest, ThickSlicesAndPointSpreadKeepTheMeanAndBlurTheBorder) {
  const auto anatomy = Load(8);
  ASSERT_OK(anatomy);
  const auto image_with = [&](double thickness_mm, double fwhm_mm) {
    Sampling sampling = SamplingOf(*anatomy, 1);
    sampling.thickness_mm = thickness_mm;
    sampling.in_plane_fwhm_mm = fwhm_mm;
    return MakePatient(*anatomy, sampling, {.displacement_mm = 0}, RandomStream(1, "patient"))
        .image;
  };
  const auto along = [](const Volume& image, std::int64_t step) {
    double steepest = 0;
    const auto centre = image.geometry.voxels() / 2;  // The ball's centre: an odd size.
    for (std::int64_t i = 1; i < 12; ++i) {
      const auto at = [&](std::int64_t k) {
        return image.voxels[static_cast<std::size_t>(centre + k * step)];
      };
      steepest = std::max(steepest, static_cast<double>(at(i - 1) - at(i)));
    }
    return steepest;
  };
  const auto mean = [](const Volume& image) {
    double sum = 0;
    for (const float voxel : image.voxels) sum += voxel;
    return sum / static_cast<double>(image.voxels.size());
  };
  const Volume sharp = image_with(0, 0);
  const Volume thick = image_with(5, 0);
  const Volume spread = image_with(0, 3);
  const std::int64_t slice = sharp.geometry.size[0] * sharp.geometry.size[1];

  EXPECT_NEAR(mean(thick), mean(sharp), 0.01 * mean(sharp));
  EXPECT_NEAR(mean(spread), mean(sharp), 0.01 * mean(sharp));
  // Each blurs along its own axes alone.
  EXPECT_LT(along(thick, slice), 0.7 * along(sharp, slice));
  EXPECT_NEAR(along(thick, 1), along(sharp, 1), 0.1 * along(sharp, 1));
  EXPECT_LT(along(spread, 1), 0.7 * along(sharp, 1));
  EXPECT_NEAR(along(spread, slice), along(sharp, slice), 0.1 * along(sharp, slice));
}

TEST_F(AnatomyTest, StaysInItsPlaceOnAnyGrid) {
  const auto anatomy = Load(8);
  ASSERT_OK(anatomy);
  for (const char* const orientation : {"LPS", "RAS", "PIR"}) {
    const Geometry grid = ScanGrid(anatomy->field_of_view, {1, 1, 1.5}, orientation, 17);

    const Anatomy patient =
        MakePatient(*anatomy, {.grid = grid}, {.displacement_mm = 0}, RandomStream(1, "patient"));

    // The ball's centre, weighted by intensity and by label, is where the anatomy has it.
    std::array<double, 3> by_label{};
    double labelled = 0;
    for (std::int64_t i = 0; i < grid.voxels(); ++i) {
      if (patient.labels.voxels[static_cast<std::size_t>(i)] == 0) continue;
      const std::array<double, 3> point =
          PhysicalPoint(grid, {static_cast<double>(i % grid.size[0]),
                               static_cast<double>(i / grid.size[0] % grid.size[1]),
                               static_cast<double>(i / (grid.size[0] * grid.size[1]))});
      ++labelled;
      for (std::size_t axis = 0; axis < 3; ++axis) by_label[axis] += point[axis];
      // Image and label lie on the same grid.
      EXPECT_GT(patient.image.voxels[static_cast<std::size_t>(i)], 40);
    }
    EXPECT_NEAR(labelled * 1.5, 905, 60);  // A ball of radius 6 mm.
    EXPECT_NEAR(by_label[0] / labelled, -10 + 20, 0.1) << orientation;
    EXPECT_NEAR(by_label[1] / labelled, 5 + 18, 0.1) << orientation;
    EXPECT_NEAR(by_label[2] / labelled, 7 + 16, 0.1) << orientation;
  }
}

TEST(MakeTissues, VariesEveryPersonAndNothingWhenTold) {
  const TissueTable textbook = TissuesAt(FieldStrength::kTesla3);
  const TissueTable same =
      MakeTissues(FieldStrength::kTesla3, {.relaxation = 0}, RandomStream(1, "tissue", 1));
  EXPECT_EQ(same[1].t1_ms, textbook[1].t1_ms);

  double squares = 0;
  for (std::uint64_t person = 1; person <= 500; ++person) {
    const TissueTable tissues = MakeTissues(FieldStrength::kTesla3, {.relaxation = 0.03},
                                            RandomStream(1, "tissue", person));
    const double change = tissues[1].t1_ms / textbook[1].t1_ms - 1;
    squares += change * change;
    // One cause, one factor.
    EXPECT_NEAR(tissues[1].t2_ms / textbook[1].t2_ms,
                tissues[1].t2_star_ms / textbook[1].t2_star_ms, 1e-12);
  }
  EXPECT_NEAR(std::sqrt(squares / 500), 0.03, 0.003);
}

}  // namespace
}  // namespace isoscan
