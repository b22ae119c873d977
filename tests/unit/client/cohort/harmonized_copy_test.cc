#include "client/cohort/harmonized_copy.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <fstream>
#include <iterator>
#include <limits>
#include <string>

#include "client/harmonization/harmonize.h"
#include "client/imaging/image_file.h"
#include "client/imaging/orientation.h"
#include "common/weights/sha256.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/imaging/phantom.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;
using testing::SizeIs;

/// Stored in another order of axes than the canonical one.
Geometry StoredGrid() {
  Geometry geometry = ObliqueGeometry({13, 11, 7});
  for (auto& row : geometry.direction) {
    std::swap(row[0], row[1]);
    row[2] = -row[2];
    row[0] = -row[0];
  }
  return geometry;
}

void WriteText(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

std::string TextOf(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class HarmonizedCopyTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* subject : {"sub-1", "sub-2", "sub-3"}) {
      const fs::path image = in_ / subject / "anat" / fmt::format("{}_T1w.nii.gz", subject);
      fs::create_directories(image.parent_path());
      ASSERT_OK(WriteVolume(image, SmoothVolume(StoredGrid())));
    }
    WriteText(in_ / "sub-1/anat/sub-1_T1w.json", R"({"MagneticFieldStrength": 1.5})");
    const fs::path labels = in_ / "derivatives/manual/sub-1/anat/sub-1_dseg.nii.gz";
    fs::create_directories(labels.parent_path());
    ASSERT_OK(WriteLabelMap(labels, BoxLabels(StoredGrid())));
    WriteText(in_ / "participants.tsv", "participant_id\nsub-1\n");
  }

  absl::StatusOr<HarmonizedCopy> Make(const HarmonizationPlan& plan = {},
                                      std::stop_token stop = {}) {
    return MakeHarmonizedCopy(in_, out_, plan, stop, [this](std::int64_t done, std::int64_t total) {
      EXPECT_LE(done, total);
      ++observed_;
    });
  }

  const TemporaryDirectory folder_;
  const fs::path in_ = folder_.path() / "in";
  const fs::path out_ = folder_.path() / "out";
  int observed_ = 0;
};

TEST_F(HarmonizedCopyTest, HasHarmonisedImagesInTheirOwnGridAndAllElseAsItWas) {
  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy copy, Make());

  EXPECT_EQ(copy.written, 3);
  EXPECT_THAT(copy.refused, SizeIs(0));
  EXPECT_EQ(observed_, 3);
  const fs::path image = "sub-1/anat/sub-1_T1w.nii.gz";
  ASSERT_OK_AND_ASSIGN(const Volume stored, ReadVolume(in_ / image));
  ASSERT_OK_AND_ASSIGN(const Volume harmonised, ReadVolume(out_ / image));
  Volume expected = ToCanonical(stored);
  ASSERT_OK(Harmonize(expected, HarmonizationPlan()));
  EXPECT_EQ(harmonised.geometry.size, stored.geometry.size);
  EXPECT_TRUE(SameGrid(harmonised.geometry, stored.geometry));
  EXPECT_EQ(ToCanonical(harmonised).voxels, expected.voxels);
  for (const char* other : {"participants.tsv", "sub-1/anat/sub-1_T1w.json",
                            "derivatives/manual/sub-1/anat/sub-1_dseg.nii.gz"}) {
    EXPECT_EQ(TextOf(out_ / other), TextOf(in_ / other)) << other;
  }
}

TEST_F(HarmonizedCopyTest, SaysBesideEachImageWhatWasDone) {
  HarmonizationPlan plan;
  plan.n4 = N4Plan{.shrink = 1, .levels = 1, .iterations = 2};
  ASSERT_OK(Make(plan));

  const json record = json::parse(TextOf(out_ / "sub-1/anat/sub-1_T1w.harmonization.json"));
  EXPECT_EQ(record["harmonization_sha256"], HarmonizationDigest(plan));
  EXPECT_EQ(record["harmonization"].dump(), json::parse(CanonicalText(plan)).dump());
  EXPECT_THAT(Sha256OfFile(in_ / "sub-1/anat/sub-1_T1w.nii.gz"),
              IsOkAndHolds(record["input_sha256"].get<std::string>()));
  EXPECT_EQ(record["field_strength_tesla"], 1.5);
  EXPECT_EQ(record["statistics"]["voxels"], 13 * 11 * 7);
  EXPECT_NEAR(record["mask_ml"].get<double>(), 13 * 11 * 7 * 0.8 * 1.1 * 2.9 / 1000, 1e-6);
  EXPECT_GT(record["n4"]["iterations"], 0);
  const json without = json::parse(TextOf(out_ / "sub-2/anat/sub-2_T1w.harmonization.json"));
  EXPECT_FALSE(without.contains("field_strength_tesla"));
}

TEST_F(HarmonizedCopyTest, KeepsWhatIsDoneAndDoesAnewWhatHasChanged) {
  ASSERT_OK(Make());
  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy again, Make());
  EXPECT_EQ(again.kept, 3);
  EXPECT_EQ(again.written, 0);

  ASSERT_OK(
      WriteVolume(in_ / "sub-2/anat/sub-2_T1w.nii.gz", NumberedVolume(ObliqueGeometry({5, 4, 3}))));
  WriteText(out_ / "sub-3/anat/sub-3_T1w.nii.gz", "cut short");
  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy changed, Make());
  EXPECT_EQ(changed.kept, 1);
  EXPECT_EQ(changed.written, 2);

  HarmonizationPlan other;
  other.normalize = HarmonizationPlan::Normalizer::kNone;
  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy replanned, Make(other));
  EXPECT_EQ(replanned.written, 3);
}

TEST_F(HarmonizedCopyTest, NamesWhatItRefusesAndGoesOn) {
  ASSERT_OK(Make());
  Volume broken = SmoothVolume(StoredGrid());
  broken.voxels[3] = std::numeric_limits<float>::quiet_NaN();
  ASSERT_OK(WriteVolume(in_ / "sub-1/anat/sub-1_T1w.nii.gz", broken));
  WriteText(in_ / "sub-3/anat/sub-3_T1w.nii.gz", "no image");

  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy copy, Make());

  EXPECT_EQ(copy.kept, 1);
  ASSERT_THAT(copy.refused, SizeIs(2));
  EXPECT_EQ(copy.refused[0].image, "sub-1/anat/sub-1_T1w.nii.gz");
  EXPECT_THAT(copy.refused[0].reason, HasSubstr("1 of 1001 voxels"));
  EXPECT_EQ(copy.refused[1].image, "sub-3/anat/sub-3_T1w.nii.gz");
  EXPECT_FALSE(fs::exists(out_ / copy.refused[0].image)) << "although it was there before";
}

TEST_F(HarmonizedCopyTest, StopsWithoutAHalfWrittenFile) {
  std::stop_source stop;
  stop.request_stop();

  EXPECT_THAT(Make({}, stop.get_token()),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("goes on from here")));

  for (const auto& entry : fs::recursive_directory_iterator(out_)) {
    EXPECT_FALSE(entry.is_regular_file()) << entry.path();
  }
}

TEST_F(HarmonizedCopyTest, TakesTheMaskThatComesWithEachCase) {
  HarmonizationPlan plan;
  plan.mask = HarmonizationPlan::Mask::kGiven;
  const fs::path mask = in_ / "derivatives/bet/sub-2/anat/sub-2_desc-brain_mask.nii.gz";
  fs::create_directories(mask.parent_path());
  const LabelMap box = BoxLabels(StoredGrid());
  ASSERT_OK(WriteLabelMap(mask, box));

  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy copy, Make(plan));

  EXPECT_EQ(copy.written, 1);
  EXPECT_THAT(copy.refused, SizeIs(2));
  EXPECT_THAT(copy.refused[0].reason, HasSubstr("no mask file"));
  const json record = json::parse(TextOf(out_ / "sub-2/anat/sub-2_T1w.harmonization.json"));
  EXPECT_EQ(record["statistics"]["voxels"],
            std::count_if(box.voxels.begin(), box.voxels.end(), [](auto v) { return v != 0; }));
}

TEST_F(HarmonizedCopyTest, ChoosesNoneOfTwoMasks) {
  HarmonizationPlan plan;
  plan.mask = HarmonizationPlan::Mask::kGiven;
  for (const char* pipeline : {"bet", "hd-bet"}) {
    const fs::path mask =
        in_ / "derivatives" / pipeline / "sub-2/anat/sub-2_desc-brain_mask.nii.gz";
    fs::create_directories(mask.parent_path());
    ASSERT_OK(WriteLabelMap(mask, BoxLabels(StoredGrid())));
  }

  EXPECT_THAT(Make(plan), StatusIs(absl::StatusCode::kInvalidArgument,
                                   testing::AllOf(HasSubstr("two brain masks"), HasSubstr("/bet/"),
                                                  HasSubstr("hd-bet"))));
}

/// Code 4, "MNI", in the sform alone: other programs take their space from it.
TEST_F(HarmonizedCopyTest, KeepsTheFormsOfTheInputWithTheirCodes) {
  const fs::path image = in_ / "sub-3/anat/sub-3_T1w.nii";
  fs::remove(in_ / "sub-3/anat/sub-3_T1w.nii.gz");
  ASSERT_OK(WriteVolume(image, SmoothVolume(StoredGrid())));
  {
    constexpr std::streamoff kQformCode = 252;
    constexpr char kCodes[] = {0, 0, 4, 0};
    std::fstream file(image, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(kQformCode).write(kCodes, sizeof(kCodes));
  }

  ASSERT_OK(Make());

  ASSERT_OK_AND_ASSIGN(const GeometryAudit audit, AuditGeometry(out_ / "sub-3/anat/sub-3_T1w.nii"));
  EXPECT_EQ(audit.qform_code, 0);
  EXPECT_EQ(audit.sform_code, 4);
}

TEST_F(HarmonizedCopyTest, DoesAnImageAnewWhoseMaskHasChanged) {
  HarmonizationPlan plan;
  plan.mask = HarmonizationPlan::Mask::kGiven;
  const fs::path mask = in_ / "derivatives/bet/sub-2/anat/sub-2_desc-brain_mask.nii.gz";
  fs::create_directories(mask.parent_path());
  LabelMap box = BoxLabels(StoredGrid());
  ASSERT_OK(WriteLabelMap(mask, box));
  ASSERT_OK(Make(plan));
  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy again, Make(plan));
  EXPECT_EQ(again.kept, 1);

  std::fill(box.voxels.begin(), box.voxels.end(), std::uint8_t{1});
  ASSERT_OK(WriteLabelMap(mask, box));
  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy changed, Make(plan));

  EXPECT_EQ(changed.written, 1);
  const json record = json::parse(TextOf(out_ / "sub-2/anat/sub-2_T1w.harmonization.json"));
  EXPECT_EQ(record["statistics"]["voxels"], 13 * 11 * 7);
  EXPECT_THAT(Sha256OfFile(mask), IsOkAndHolds(record["mask_sha256"].get<std::string>()));
}

TEST_F(HarmonizedCopyTest, RefusesAPlanThatTreatsChannelsDifferently) {
  HarmonizationPlan kde;
  kde.normalize = HarmonizationPlan::Normalizer::kKde;
  kde.contrasts = {HarmonizationPlan::Contrast::kT1w, HarmonizationPlan::Contrast::kFlair};
  HarmonizationPlan nyul;
  nyul.normalize = HarmonizationPlan::Normalizer::kNyul;
  nyul.standard.assign(22, 1.0);
  for (const HarmonizationPlan& plan : {kde, nyul}) {
    EXPECT_THAT(Make(plan), StatusIs(absl::StatusCode::kInvalidArgument,
                                     HasSubstr("treats each of 2 channels its own way")));
  }
  EXPECT_FALSE(fs::exists(out_));

  kde.contrasts.pop_back();
  EXPECT_OK(Make(kde));
}

TEST_F(HarmonizedCopyTest, TakesDecathlonAndNnunetFoldersAndSingleImages) {
  const fs::path cohort = folder_.path() / "nnunet";
  WriteText(cohort / "dataset.json", R"({"channel_names": {"0": "T1w"}, "numTraining": 1,
                                         "labels": {"background": 0, "blob": 1},
                                         "file_ending": ".nii.gz"})");
  for (const char* folder : {"imagesTr", "imagesTs", "labelsTr"})
    fs::create_directories(cohort / folder);
  ASSERT_OK(WriteVolume(cohort / "imagesTr/a_0000.nii.gz", SmoothVolume(StoredGrid())));
  ASSERT_OK(WriteVolume(cohort / "imagesTs/b_0000.nii.gz", SmoothVolume(StoredGrid())));
  ASSERT_OK(WriteLabelMap(cohort / "labelsTr/a.nii.gz", BoxLabels(StoredGrid())));
  const auto nothing = [](std::int64_t, std::int64_t) {};

  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy copy,
                       MakeHarmonizedCopy(cohort, out_, {}, {}, nothing));
  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy single,
                       MakeHarmonizedCopy(cohort / "imagesTr/a_0000.nii.gz",
                                          folder_.path() / "single.nii.gz", {}, {}, nothing));

  EXPECT_EQ(copy.written, 2);
  EXPECT_EQ(TextOf(out_ / "labelsTr/a.nii.gz"), TextOf(cohort / "labelsTr/a.nii.gz"));
  EXPECT_EQ(single.written, 1);
  EXPECT_TRUE(fs::exists(folder_.path() / "single.harmonization.json"));
}

TEST_F(HarmonizedCopyTest, WritesASingleImageIntoTheCurrentFolder) {
  const fs::path before = fs::current_path();
  fs::current_path(folder_.path());
  const absl::StatusOr<HarmonizedCopy> copy =
      MakeHarmonizedCopy(in_ / "sub-1/anat/sub-1_T1w.nii.gz", "single.nii.gz", {}, {},
                         [](std::int64_t, std::int64_t) {});
  fs::current_path(before);

  ASSERT_OK(copy);
  EXPECT_EQ(copy->written, 1);
  EXPECT_TRUE(fs::exists(folder_.path() / "single.nii.gz"));
}

TEST_F(HarmonizedCopyTest, RefusesPlacesThatWouldMixInputAndOutput) {
  const auto to = [this](const fs::path& output) {
    return MakeHarmonizedCopy(in_, output, {}, {}, [](std::int64_t, std::int64_t) {});
  };
  EXPECT_THAT(to(in_), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("overwrite")));
  EXPECT_THAT(to(in_ / "derivatives/harmonised"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("inside the input")));
  EXPECT_THAT(MakeHarmonizedCopy(folder_.path() / "none", out_, {}, {}, {}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("there is no")));
  fs::create_directories(folder_.path() / "empty");
  EXPECT_THAT(MakeHarmonizedCopy(folder_.path() / "empty", out_, {}, {}, {}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no cohort that is known")));
}

}  // namespace
}  // namespace isoscan
