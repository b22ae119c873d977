#include "client/evaluation/mask_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/imaging/image_file.h"
#include "client/imaging/orientation.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/evaluation/masks.h"
#include "tests/unit/client/imaging/phantom.h"

namespace isoscan {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::HasSubstr;

class MaskFiles : public testing::Test {
 protected:
  std::filesystem::path Path(const std::string& name) const { return folder_.path() / name; }

  void Write(const std::string& name, const LabelMap& labels) const {
    ASSERT_OK(WriteLabelMap(Path(name), labels));
  }

  const TemporaryDirectory folder_;
};

TEST_F(MaskFiles, AreScoredAsTheMapsInThemWhateverTheirValues) {
  RandomStream random(6, "files");
  const LabelMap reference = RandomBoxes({20, 18, 9}, {0.5, 1, 2}, 5, 2, random);
  const LabelMap predicted = RandomBoxes({20, 18, 9}, {0.5, 1, 2}, 5, 2, random);
  const std::vector<LabelScore> expected = ScoreLabels(reference, predicted, 2);
  // As FreeSurfer numbers its labels; they do not fit into a byte.
  const auto renumbered = [](const LabelMap& labels) {
    Volume volume{.geometry = labels.geometry, .voxels = {}};
    for (const std::uint8_t label : labels.voxels) {
      volume.voxels.push_back(label == 0 ? 0 : label == 1 ? 17 : 2035);
    }
    return volume;
  };
  ASSERT_OK(WriteVolume(Path("r.nii.gz"), renumbered(reference)));
  ASSERT_OK(WriteVolume(Path("p.nii.gz"), renumbered(predicted)));

  ASSERT_OK_AND_ASSIGN(const auto scores,
                       ScoreMaskFiles(Path("p.nii.gz"), Path("r.nii.gz"), std::nullopt, {}));
  ASSERT_OK_AND_ASSIGN(const auto one, ScoreMaskFiles(Path("p.nii.gz"), Path("r.nii.gz"),
                                                      std::set<std::int64_t>{2035, 99}, {}));

  ASSERT_EQ(scores.size(), 2u);
  EXPECT_EQ(scores.at(17).dice(), expected[0].dice());
  EXPECT_EQ(scores.at(17).hd95_mm, expected[0].hd95_mm);
  EXPECT_EQ(scores.at(2035).overlap.reference_voxels, expected[1].overlap.reference_voxels);
  EXPECT_EQ(scores.at(2035).overlap.predicted_voxels, expected[1].overlap.predicted_voxels);
  EXPECT_EQ(scores.at(2035).nsd, expected[1].nsd);
  ASSERT_EQ(one.size(), 2u);
  EXPECT_EQ(one.at(2035).assd_mm, expected[1].assd_mm);
  EXPECT_EQ(one.at(99).outcome(), ScoreOutcome::kBothEmpty);
}

TEST_F(MaskFiles, MayBeStoredInAnotherOrientation) {
  const LabelMap reference = BoxLabels(ObliqueGeometry({12, 9, 8}));
  Geometry turned = reference.geometry;
  for (auto& row : turned.direction) row[0] = -row[0];
  for (std::size_t axis = 0; axis < 3; ++axis) {
    turned.origin_mm[axis] -=
        turned.direction[axis][0] * turned.spacing_mm[0] * static_cast<double>(turned.size[0] - 1);
  }
  Write("r.nii.gz", ToCanonical(reference));
  Write("p.nii.gz", FromCanonical(ToCanonical(reference), turned));

  ASSERT_OK_AND_ASSIGN(const auto scores,
                       ScoreMaskFiles(Path("p.nii.gz"), Path("r.nii.gz"), std::nullopt, {}));

  ASSERT_FALSE(scores.empty());
  for (const auto& [value, score] : scores) EXPECT_EQ(score.dice(), 1) << value;
}

TEST_F(MaskFiles, OfDifferentGridsAreRefusedByName) {
  Write("r.nii.gz", EmptyMap({5, 6, 7}));
  Write("smaller.nii.gz", EmptyMap({5, 6, 6}));
  LabelMap moved = EmptyMap({5, 6, 7});
  moved.geometry.origin_mm = {0, 0, 3};
  Write("moved.nii.gz", moved);

  EXPECT_THAT(ScoreMaskFiles(Path("smaller.nii.gz"), Path("r.nii.gz"), std::nullopt, {}),
              StatusIs(StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("smaller.nii.gz"), HasSubstr("r.nii.gz"), HasSubstr("5x6x6"),
                             HasSubstr("5x6x7"))));
  EXPECT_THAT(ScoreMaskFiles(Path("moved.nii.gz"), Path("r.nii.gz"), std::nullopt, {}),
              StatusIs(StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("moved.nii.gz"), HasSubstr("3 mm apart"))));
}

TEST_F(MaskFiles, ThatAreNoLabelMapsAreRefused) {
  Write("r.nii.gz", EmptyMap({5, 6, 7}));
  Volume probabilities{.geometry = EmptyMap({5, 6, 7}).geometry, .voxels = {}};
  probabilities.voxels.assign(5 * 6 * 7, 0.25f);
  ASSERT_OK(WriteVolume(Path("p.nii.gz"), probabilities));

  EXPECT_THAT(ScoreMaskFiles(Path("p.nii.gz"), Path("r.nii.gz"), std::nullopt, {}),
              StatusIs(StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("p.nii.gz holds 0.25"), HasSubstr("threshold"))));
}

}  // namespace
}  // namespace isoscan
