#include "client/cohort/harmonized_copy.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <fstream>
#include <iterator>
#include <limits>
#include <optional>
#include <set>
#include <string>

#include "client/harmonization/harmonize.h"
#include "client/imaging/image_file.h"
#include "client/imaging/orientation.h"
#include "common/weights/sha256.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/imaging/dicom_files.h"
#include "tests/unit/client/imaging/dicom_kinds.h"
#include "tests/unit/client/imaging/phantom.h"
#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

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
    return Make(RequestOf(in_, out_, plan), stop);
  }

  absl::StatusOr<HarmonizedCopy> Make(const CopyRequest& request, std::stop_token stop = {}) {
    return MakeHarmonizedCopy(request, stop, [this](std::int64_t done, std::int64_t total) {
      EXPECT_LE(done, total);
      ++observed_;
    });
  }

  static CopyRequest RequestOf(const fs::path& input, const fs::path& output,
                               const HarmonizationPlan& plan = {}) {
    CopyRequest request;
    request.input.folder = input;
    request.output = output;
    request.plan = plan;
    return request;
  }

  json RecordOf(const std::string& image) const {
    return json::parse(TextOf(out_ / (image + ".harmonization.json")), nullptr,
                       /*allow_exceptions=*/false);
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

  EXPECT_THAT(Make(HarmonizationPlan(), stop.get_token()),
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
                                   testing::AllOf(HasSubstr("2 files for the mask"),
                                                  HasSubstr("/bet/"), HasSubstr("hd-bet"))));
}

TEST_F(HarmonizedCopyTest, WaitsForNobodyWhoWritesIntoTheSameFolder) {
  ASSERT_OK(Make());
  const int other = ::open(out_.c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(::flock(other, LOCK_EX), 0);
  EXPECT_THAT(Make(), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(out_.string())));
  ::close(other);
  EXPECT_OK(Make());
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

/// What Nyul makes of a volume by one channel's standard.
absl::StatusOr<Volume> ByStandard(const fs::path& image, const HarmonizationPlan& plan,
                                  std::size_t channel) {
  absl::StatusOr<Volume> stored = ReadVolume(image);
  if (!stored.ok()) return stored;
  Volume canonical = ToCanonical(*stored);
  const auto done = Harmonize(canonical, plan, std::nullopt, channel);
  if (!done.ok()) return done.status();
  return FromCanonical(canonical, stored->geometry);
}

HarmonizationPlan TwoStandards() {
  HarmonizationPlan plan;
  plan.normalize = HarmonizationPlan::Normalizer::kNyul;
  for (const double scale : {1.0, 50.0}) {
    for (int landmark = 0; landmark < 11; ++landmark) plan.standard.push_back(scale * landmark);
  }
  return plan;
}

TEST_F(HarmonizedCopyTest, TreatsEachImageOfBidsAsTheChannelOfItsName) {
  const std::string anat = "sub-1/anat/";
  for (const char* suffix : {"FLAIR", "T2w"}) {
    ASSERT_OK(WriteVolume(in_ / anat / fmt::format("sub-1_{}.nii.gz", suffix),
                          SmoothVolume(StoredGrid())));
  }
  CopyRequest request = RequestOf(in_, out_, TwoStandards());
  request.channels = {"t1", "FLAIR"};
  EXPECT_THAT(Make(request),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("under [cohort.channels]")));
  request.input.channels = {{"t1", "T1w"}};

  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy copy, Make(request));

  EXPECT_EQ(copy.written, 4);
  ASSERT_THAT(copy.left_out, SizeIs(1));
  EXPECT_EQ(copy.left_out[0].image, anat + "sub-1_T2w.nii.gz");
  EXPECT_THAT(copy.left_out[0].reason, HasSubstr("\"t1\", \"FLAIR\""));
  EXPECT_FALSE(fs::exists(out_ / copy.left_out[0].image));
  const auto expect_channel = [&](const std::string& image, std::size_t channel) {
    ASSERT_OK_AND_ASSIGN(const Volume expected,
                         ByStandard(in_ / (image + ".nii.gz"), request.plan, channel));
    ASSERT_OK_AND_ASSIGN(const Volume harmonised, ReadVolume(out_ / (image + ".nii.gz")));
    EXPECT_EQ(harmonised.voxels, expected.voxels) << image;
    EXPECT_EQ(RecordOf(image)["channel"], request.channels[channel]) << image;
  };
  expect_channel(anat + "sub-1_T1w", 0);
  expect_channel(anat + "sub-1_FLAIR", 1);
  expect_channel("sub-2/anat/sub-2_T1w", 0);
}

TEST_F(HarmonizedCopyTest, TreatsEachImageOfNnunetAsTheChannelOfItsNumber) {
  const fs::path cohort = folder_.path() / "nnunet";
  WriteText(cohort / "dataset.json", R"({"channel_names": {"0": "FLAIR", "1": "T2w", "2": "T1w"},
                                         "labels": {"background": 0}, "file_ending": ".nii.gz"})");
  fs::create_directories(cohort / "imagesTr");
  for (int channel = 0; channel < 3; ++channel) {
    ASSERT_OK(WriteVolume(cohort / fmt::format("imagesTr/a_{:04}.nii.gz", channel),
                          SmoothVolume(StoredGrid())));
  }
  ASSERT_OK(WriteVolume(cohort / "imagesTr/b_0000.nii.gz", SmoothVolume(StoredGrid())));
  WriteText(cohort / "imagesTr/b_0000.json", R"({"MagneticFieldStrength": 7})");
  CopyRequest request = RequestOf(cohort, out_, TwoStandards());
  request.channels = {"T1w", "FLAIR"};

  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy copy, Make(request));

  EXPECT_EQ(copy.written, 3);
  EXPECT_EQ(RecordOf("imagesTr/b_0000")["field_strength_tesla"], 7);
  EXPECT_FALSE(RecordOf("imagesTr/a_0000").contains("field_strength_tesla"));
  ASSERT_THAT(copy.left_out, SizeIs(1));
  EXPECT_EQ(copy.left_out[0].image, "imagesTr/a_0001.nii.gz");
  EXPECT_EQ(RecordOf("imagesTr/a_0000")["channel"], "FLAIR");
  EXPECT_EQ(RecordOf("imagesTr/a_0002")["channel"], "T1w");
}

TEST_F(HarmonizedCopyTest, TakesASingleImageForTheChannelOfItsNameOrTheOneThatIsSaid) {
  CopyRequest request =
      RequestOf(in_ / "sub-1/anat/sub-1_T1w.nii.gz", folder_.path() / "out.nii.gz", TwoStandards());
  request.channels = {"FLAIR", "T1w"};
  EXPECT_OK(Make(request));
  const auto channel = [this] {
    return json::parse(TextOf(folder_.path() / "out.harmonization.json"))["channel"];
  };
  EXPECT_EQ(channel(), "T1w");

  request.channel = "flair";
  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy again, Make(request));
  EXPECT_EQ(again.written, 1) << "another channel is another image, though the plan is the same";
  EXPECT_EQ(channel(), "FLAIR");

  request.channel = "T2w";
  EXPECT_THAT(Make(request),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("it has \"FLAIR\", \"T1w\"")));
  request.channel = "";
  request.channels = {"FLAIR", "T2w"};
  EXPECT_THAT(Make(request),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("say it with --channel")));
}

// The FLAIR of an earlier plan, which treated all images alike, must not stay beside T1w by
// another.
TEST_F(HarmonizedCopyTest, RemovesWhatAnEarlierPlanMadeOfAnImageThatIsLeftOut) {
  const std::string flair = "sub-1/anat/sub-1_FLAIR.nii.gz";
  ASSERT_OK(WriteVolume(in_ / flair, SmoothVolume(StoredGrid())));
  ASSERT_OK(Make());
  ASSERT_TRUE(fs::exists(out_ / flair));
  HarmonizationPlan kde;
  kde.normalize = HarmonizationPlan::Normalizer::kKde;
  kde.contrasts = {HarmonizationPlan::Contrast::kT1w};
  CopyRequest request = RequestOf(in_, out_, kde);
  request.channels = {"T1w"};

  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy copy, Make(request));

  EXPECT_THAT(copy.left_out, SizeIs(1));
  EXPECT_THAT(copy.strangers, SizeIs(0));
  EXPECT_FALSE(fs::exists(out_ / flair));
  EXPECT_FALSE(fs::exists(out_ / "sub-1/anat/sub-1_FLAIR.harmonization.json"));
}

/// A code that contradicts: the sform turned over.
void Contradict(const fs::path& image) {
  constexpr std::streamoff kFirstRow = 280;
  std::fstream file(image, std::ios::binary | std::ios::in | std::ios::out);
  float row[4];
  file.seekg(kFirstRow).read(reinterpret_cast<char*>(row), sizeof(row));
  for (float& entry : row) entry = -entry;
  file.seekp(kFirstRow).write(reinterpret_cast<const char*>(row), sizeof(row));
}

TEST_F(HarmonizedCopyTest, ReadsTheFormThatIsNamedAndSaysSo) {
  const std::string image = "sub-3/anat/sub-3_T1w";
  fs::remove(in_ / (image + ".nii.gz"));
  ASSERT_OK(WriteVolume(in_ / (image + ".nii"), SmoothVolume(StoredGrid())));
  Contradict(in_ / (image + ".nii"));
  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy agreed, Make());
  ASSERT_THAT(agreed.refused, SizeIs(1));
  EXPECT_THAT(agreed.refused[0].reason, HasSubstr("nibabel"));

  CopyRequest request = RequestOf(in_, out_);
  for (const GeometrySource form : {GeometrySource::kQform, GeometrySource::kSform}) {
    request.input.geometry = form;
    ASSERT_OK_AND_ASSIGN(const HarmonizedCopy copy, Make(request));
    EXPECT_EQ(copy.written, 3);
    EXPECT_THAT(copy.refused, SizeIs(0));
    EXPECT_EQ(RecordOf(image)["geometry"], NameOf(form));
    EXPECT_OK(ReadVolume(out_ / (image + ".nii"), form));
    EXPECT_THAT(ReadVolume(out_ / (image + ".nii")), StatusIs(absl::StatusCode::kInvalidArgument))
        << "the copy has both forms of its input";
  }
}

TEST_F(HarmonizedCopyTest, TakesTheFieldStrengthFromTheSidecarThatAppliesByInheritance) {
  WriteText(in_ / "T1w.json", R"({"MagneticFieldStrength": 3})");
  ASSERT_OK(Make());
  EXPECT_EQ(RecordOf("sub-1/anat/sub-1_T1w")["field_strength_tesla"], 1.5);
  EXPECT_EQ(RecordOf("sub-2/anat/sub-2_T1w")["field_strength_tesla"], 3);

  const fs::path single = folder_.path() / "out.nii.gz";
  ASSERT_OK(Make(RequestOf(in_ / "sub-2/anat/sub-2_T1w.nii.gz", single)));
  EXPECT_EQ(json::parse(TextOf(folder_.path() / "out.harmonization.json"))["field_strength_tesla"],
            3);
}

TEST_F(HarmonizedCopyTest, RemovesWhatAKilledProcessLeftAndTellsWhatIsNobodys) {
  ASSERT_OK(Make());
  const fs::path anat = out_ / "sub-1/anat";
  for (const char* left :
       {"sub-1_T1w.nii.gz.tmp-0123abcd", "sub-1_T1w.harmonization.json.tmp-ffffffff",
        "sub-1_T1w.json.tmp-00000000"}) {
    WriteText(anat / left, "half");
  }
  WriteText(anat / "notes.tmp-0123abcd", "mine");
  WriteText(out_ / "README", "mine");

  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy copy, Make());

  EXPECT_EQ(copy.kept, 3);
  EXPECT_THAT(copy.strangers, testing::ElementsAre("README", "sub-1/anat/notes.tmp-0123abcd"));
  EXPECT_FALSE(fs::exists(anat / "sub-1_T1w.nii.gz.tmp-0123abcd"));
  EXPECT_FALSE(fs::exists(anat / "sub-1_T1w.harmonization.json.tmp-ffffffff"));
  EXPECT_FALSE(fs::exists(anat / "sub-1_T1w.json.tmp-00000000"));
  EXPECT_TRUE(fs::exists(anat / "notes.tmp-0123abcd"));
}

// Killed between the image and its record, then run with a plan that refuses the image.
TEST_F(HarmonizedCopyTest, LeavesNoImageWithoutARecordWhereItIsRefused) {
  const std::string image = "sub-1/anat/sub-1_T1w";
  ASSERT_OK(Make());
  fs::remove(out_ / (image + ".harmonization.json"));
  HarmonizationPlan plan;
  plan.mask = HarmonizationPlan::Mask::kGiven;

  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy copy, Make(plan));

  EXPECT_THAT(copy.refused, SizeIs(3));
  EXPECT_FALSE(fs::exists(out_ / (image + ".nii.gz")));
}

TEST_F(HarmonizedCopyTest, CopiesAnewWhatDiffersThoughItIsAsLongAndNoOlder) {
  ASSERT_OK(Make());
  WriteText(out_ / "participants.tsv", "participant_id\nsub-2\n");

  ASSERT_OK(Make());

  EXPECT_EQ(TextOf(out_ / "participants.tsv"), TextOf(in_ / "participants.tsv"));
}

// Records of an earlier harmonisation would take the place of the new ones, again and again.
TEST_F(HarmonizedCopyTest, OfACopyHasItsOwnRecords) {
  ASSERT_OK(Make());
  const fs::path twice = folder_.path() / "twice";
  HarmonizationPlan none;
  none.normalize = HarmonizationPlan::Normalizer::kNone;
  ASSERT_OK(Make(RequestOf(out_, twice, none)));

  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy again, Make(RequestOf(out_, twice, none)));

  EXPECT_EQ(again.kept, 3);
}

TEST_F(HarmonizedCopyTest, OfDicomIsOneNiftiPerSeriesWithTheScannersGeometryAndNoOtherFile) {
  const fs::path dicom = folder_.path() / "dicom";
  const Volume volume = NumberedVolume(ObliqueGeometry({6, 5, 7}));
  WriteMrSeries(dicom / "case-1/t1", volume, nullptr, "1");
  WriteMrSeries(dicom / "case-2", volume, nullptr, "2");
  WriteText(dicom / "case-1/t1/patient.txt", "a name");
  fs::create_directories(dicom / "labels");
  ASSERT_OK(WriteLabelMap(dicom / "labels/case-1.nii.gz", BoxLabels(volume.geometry)));

  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy copy, Make(RequestOf(dicom, out_)));

  EXPECT_EQ(copy.written, 2);
  std::set<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(out_)) {
    if (entry.is_regular_file()) files.insert(entry.path().lexically_relative(out_));
  }
  EXPECT_THAT(files, testing::ElementsAre("case-1/t1.harmonization.json", "case-1/t1.nii.gz",
                                          "case-2.harmonization.json", "case-2.nii.gz",
                                          "labels/case-1.nii.gz"));
  ASSERT_OK_AND_ASSIGN(const GeometryAudit audit, AuditGeometry(out_ / "case-2.nii.gz"));
  EXPECT_LT(GreatestCornerDistance(audit.geometry, volume.geometry), 1e-3);
  EXPECT_EQ(audit.qform_code, 1);
  EXPECT_EQ(audit.sform_code, 1);
  EXPECT_LT(audit.disagreement_mm, 1e-3);
  EXPECT_EQ(RecordOf("case-2")["field_strength_tesla"], 1.5);
  EXPECT_THAT(TextOf(out_ / "case-2.harmonization.json"), testing::Not(HasSubstr("patient")));
  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy again, Make(RequestOf(dicom, out_)));
  EXPECT_EQ(again.kept, 2);
}

TEST_F(HarmonizedCopyTest, DoesAnImageAnewWhoseVoxelsLieInAnotherFileThatHasChanged) {
  const fs::path voxels = folder_.path() / "scan.raw";
  const fs::path output = folder_.path() / "scan.nii.gz";
  WriteText(folder_.path() / "scan.mhd",
            "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementSpacing = 1 1 1\n"
            "ElementType = MET_UCHAR\nElementDataFile = scan.raw\n");
  WriteText(voxels, "abcdefgh");
  const CopyRequest request = RequestOf(folder_.path() / "scan.mhd", output);
  ASSERT_OK(Make(request));
  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy again, Make(request));
  EXPECT_EQ(again.kept, 1);

  WriteText(voxels, "hgfedcba");
  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy changed, Make(request));

  EXPECT_EQ(changed.written, 1);
}

// Whatever they are called: in the output they would pass for harmonised ones.
TEST_F(HarmonizedCopyTest, CopiesNoVoxelsOfAnImage) {
  const fs::path cohort = folder_.path() / "nnunet";
  WriteText(cohort / "dataset.json", R"({"channel_names": {"0": "T1w"}, "file_ending": ".mhd",
                                         "labels": {"background": 0}})");
  WriteText(cohort / "imagesTr/a_0000.mhd",
            "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementSpacing = 1 1 1\n"
            "ElementType = MET_UCHAR\nElementDataFile = a.voxels\n");
  WriteText(cohort / "imagesTr/a.voxels", "abcdefgh");
  WriteText(cohort / "imagesTr/a.txt", "a note");

  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy copy, Make(RequestOf(cohort, out_)));

  EXPECT_THAT(copy.refused, SizeIs(1));
  EXPECT_TRUE(fs::exists(out_ / "imagesTr/a.txt"));
  EXPECT_FALSE(fs::exists(out_ / "imagesTr/a.voxels"));
}

TEST_F(HarmonizedCopyTest, DoesAnImageAnewWhoseMasksVoxelsHaveChanged) {
  const fs::path dicom = folder_.path() / "dicom";
  Geometry grid;
  grid.size = {3, 3, 3};
  WriteMrSeries(dicom / "case", NumberedVolume(grid));
  WriteText(dicom / "masks/case.nrrd",
            "NRRD0005\ntype: uint8\ndimension: 3\nspace: left-posterior-superior\nsizes: 3 3 3\n"
            "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nencoding: raw\n"
            "data file: case.raw\n\n");
  WriteText(dicom / "masks/case.raw", std::string(27, '\1'));
  HarmonizationPlan plan;
  plan.mask = HarmonizationPlan::Mask::kGiven;
  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy first, Make(RequestOf(dicom, out_, plan)));
  ASSERT_EQ(first.written, 1) << first.refused.front().reason;

  WriteText(dicom / "masks/case.raw", std::string(9, '\0') + std::string(18, '\1'));
  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy changed, Make(RequestOf(dicom, out_, plan)));

  EXPECT_EQ(changed.written, 1);
  EXPECT_EQ(RecordOf("case")["statistics"]["voxels"], 18);
}

// An earlier plan harmonised all series alike.
TEST_F(HarmonizedCopyTest, RemovesWhatAnEarlierPlanMadeOfASeriesThatIsLeftOut) {
  const fs::path dicom = folder_.path() / "dicom";
  const Volume volume = NumberedVolume(ObliqueGeometry({6, 5, 7}));
  WriteMrSeries(dicom / "case/FLAIR", volume, nullptr, "1");
  WriteMrSeries(dicom / "case/PD", volume, nullptr, "2");
  ASSERT_OK(Make(RequestOf(dicom, out_)));
  ASSERT_TRUE(fs::exists(out_ / "case/PD.nii.gz"));
  CopyRequest request = RequestOf(dicom, out_, TwoStandards());
  request.channels = {"FLAIR", "T2w"};

  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy copy, Make(request));

  EXPECT_THAT(copy.left_out, SizeIs(1));
  EXPECT_THAT(copy.strangers, SizeIs(0));
  EXPECT_FALSE(fs::exists(out_ / "case/PD.nii.gz"));
  EXPECT_FALSE(fs::exists(out_ / "case/PD.harmonization.json"));
}

TEST_F(HarmonizedCopyTest, NamesSeriesThatLieInTheFolderItselfAfterIt) {
  const fs::path flat = folder_.path() / "flat";
  const Volume volume = NumberedVolume(ObliqueGeometry({6, 5, 7}));
  WriteMrSeries(flat, volume, nullptr, "1");
  WriteMrSeries(flat, volume, nullptr, "2");
  HarmonizationPlan plan;
  plan.mask = HarmonizationPlan::Mask::kGiven;
  LabelMap whole = BoxLabels(volume.geometry);
  fs::create_directories(flat / "masks");
  ASSERT_OK(WriteLabelMap(flat / "masks/flat.nii.gz", whole));

  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy copy, Make(RequestOf(flat, out_, plan)));

  EXPECT_EQ(copy.written, 2);
  EXPECT_TRUE(fs::exists(out_ / "flat.nii.gz"));
  EXPECT_TRUE(fs::exists(out_ / "flat#2.nii.gz"));
}

TEST_F(HarmonizedCopyTest, RefusesTwoSeriesOfOneName) {
  const fs::path dicom = folder_.path() / "dicom";
  const Volume volume = NumberedVolume(ObliqueGeometry({6, 5, 7}));
  WriteMrSeries(dicom / "a", volume, nullptr, "1");
  WriteMrSeries(dicom / "a", volume, nullptr, "2");
  WriteMrSeries(dicom / "a#2", volume, nullptr, "3");

  EXPECT_THAT(Make(RequestOf(dicom, out_)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       testing::AllOf(HasSubstr("a/2-"), HasSubstr("a#2/3-"),
                                      HasSubstr("written as a#2.nii.gz"))));
  EXPECT_FALSE(fs::exists(out_));
}

// Two echoes in one file are "case" and "case#2", until a series comes before them.
TEST_F(HarmonizedCopyTest, DoesASeriesAnewThatHasOtherFramesOfTheSameFile) {
  const fs::path dicom = folder_.path() / "dicom";
  const Volume volume = NumberedVolume(ObliqueGeometry({6, 5, 7}));
  Enhanced(volume).Write(dicom / "case/enhanced.dcm");
  HarmonizationPlan none;
  none.normalize = HarmonizationPlan::Normalizer::kNone;
  ASSERT_OK(Make(RequestOf(dicom, out_, none)));
  ASSERT_OK_AND_ASSIGN(const Volume first, ReadVolume(out_ / "case.nii.gz"));

  WriteMrSeries(dicom / "case", volume, nullptr, "0");
  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy copy, Make(RequestOf(dicom, out_, none)));

  EXPECT_EQ(copy.written, 3);
  ASSERT_OK_AND_ASSIGN(const Volume second, ReadVolume(out_ / "case#2.nii.gz"));
  EXPECT_EQ(second.voxels, first.voxels);
}

TEST_F(HarmonizedCopyTest, StopsWhileItListsDicom) {
  const fs::path dicom = folder_.path() / "dicom";
  WriteMrSeries(dicom / "t1", NumberedVolume(ObliqueGeometry({6, 5, 7})));
  std::stop_source stop;
  stop.request_stop();

  EXPECT_THAT(Make(RequestOf(dicom, out_), stop.get_token()),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_FALSE(fs::exists(out_)) << "it went on";
}

TEST_F(HarmonizedCopyTest, TakesASingleSeriesForTheChannelOfItsFolder) {
  const fs::path dicom = folder_.path() / "case/FLAIR";
  WriteMrSeries(dicom, NumberedVolume(ObliqueGeometry({6, 5, 7})));
  const fs::path file = fs::directory_iterator(dicom)->path();
  CopyRequest request = RequestOf(dicom, folder_.path() / "out.nii.gz", TwoStandards());
  request.channels = {"T2w", "FLAIR"};
  for (const fs::path& input : {dicom, file}) {
    request.input.folder = input;
    EXPECT_OK(Make(request)) << input;
    EXPECT_EQ(json::parse(TextOf(folder_.path() / "out.harmonization.json"))["channel"], "FLAIR");
  }
}

TEST_F(HarmonizedCopyTest, CopiesFoldersThatLinkToEachOtherOnce) {
  WriteText(in_ / "sourcedata/a/x", "x");
  WriteText(in_ / "sourcedata/b/y", "y");
  fs::create_directory_symlink("../b", in_ / "sourcedata/a/to_b");
  fs::create_directory_symlink("../a", in_ / "sourcedata/b/to_a");

  ASSERT_OK(Make());

  EXPECT_TRUE(fs::exists(out_ / "sourcedata/a/to_b/y"));
  EXPECT_TRUE(fs::exists(out_ / "sourcedata/b/to_a/x"));
  EXPECT_FALSE(fs::exists(out_ / "sourcedata/a/to_b/to_a"));
}

/// The exit code of `work` in a process of its own that may take `bytes` more than we hold now.
template <typename Work>
int WithinMemory(std::int64_t bytes, const Work& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    std::int64_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const auto limit = static_cast<rlim_t>(pages * ::getpagesize() + bytes);
    const rlimit limits{.rlim_cur = limit, .rlim_max = limit};
    ::setrlimit(RLIMIT_AS, &limits);
    ::_exit(work());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

constexpr std::int64_t kMebibyte = 1 << 20;

// Its voxels alone would fit.
TEST_F(HarmonizedCopyTest, RefusesAnImageThatTakesMoreMemoryThanThereIsAndGoesOn) {
  Volume large;
  large.geometry.size = {256, 256, 256};
  large.voxels.resize(static_cast<std::size_t>(large.geometry.voxels()));
  ASSERT_OK(WriteVolume(in_ / "sub-1/anat/sub-1_T1w.nii.gz", large));
  large = {};

  const int code = WithinMemory(320 * kMebibyte, [this] {
    const auto copy = Make();
    if (!copy.ok()) return 1;
    if (copy->written != 2 || copy->refused.size() != 1) return 2;
    const std::string& reason = copy->refused.front().reason;
    return reason.find("harmonising it needs 0.4 GiB") == std::string::npos ? 3 : 0;
  });

  EXPECT_EQ(code, 0);
}

// A mask of any size: nothing is known of it before it is read.
TEST_F(HarmonizedCopyTest, RefusesAnImageWhenMemoryEndsOnTheWayAndGoesOn) {
  LabelMap large;
  large.geometry = StoredGrid();
  large.geometry.size = {320, 320, 320};  // 125 MiB of float32, twice in another order.
  large.voxels.resize(static_cast<std::size_t>(large.geometry.voxels()));
  for (const char* subject : {"sub-1", "sub-2"}) {
    const fs::path mask = in_ / "derivatives/bet" / subject / "anat" /
                          fmt::format("{}_desc-brain_mask.nii.gz", subject);
    fs::create_directories(mask.parent_path());
    ASSERT_OK(WriteLabelMap(mask, subject[4] == '1' ? large : BoxLabels(StoredGrid())));
  }
  large = {};
  HarmonizationPlan plan;
  plan.mask = HarmonizationPlan::Mask::kGiven;

  // Too little to read the mask, too little to turn it round, and enough to see that it does not
  // fit.
  for (std::int64_t mebibytes = 200; mebibytes <= 440; mebibytes += 40) {
    const int code = WithinMemory(mebibytes * kMebibyte, [&] {
      const auto copy = Make(plan);
      if (!copy.ok()) return 1;
      return copy->written + copy->kept == 1 && copy->refused.size() == 2 ? 0 : 2;
    });
    EXPECT_EQ(code, 0) << mebibytes;
  }
}

// In place of a folder that may not be searched: root may search all.
TEST_F(HarmonizedCopyTest, WritesNowhereWhenItCannotReachTheOutput) {
  fs::create_symlink("loop", folder_.path() / "loop");
  const fs::path here = folder_.path() / "here";
  fs::create_directories(here);
  const fs::path before = fs::current_path();
  fs::current_path(here);
  const absl::StatusOr<HarmonizedCopy> copy = Make(RequestOf(in_, folder_.path() / "loop/out"));
  fs::current_path(before);

  EXPECT_THAT(copy, StatusIs(absl::StatusCode::kNotFound, HasSubstr("loop/out")));
  EXPECT_TRUE(fs::is_empty(here));
}

TEST_F(HarmonizedCopyTest, OfOneDicomSeriesIsTheNamedFile) {
  const fs::path dicom = folder_.path() / "dicom";
  WriteMrSeries(dicom / "t1", NumberedVolume(ObliqueGeometry({6, 5, 7})), nullptr, "1");
  const fs::path single = folder_.path() / "t1.nii.gz";
  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy copy, Make(RequestOf(dicom / "t1", single)));
  EXPECT_EQ(copy.written, 1);
  EXPECT_TRUE(fs::exists(single));

  WriteMrSeries(dicom / "t2", NumberedVolume(ObliqueGeometry({6, 5, 7})), nullptr, "2");
  EXPECT_THAT(Make(RequestOf(dicom, single)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       testing::AllOf(HasSubstr("2 DICOM series"), HasSubstr("name a folder"))));
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

  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy copy, Make(RequestOf(cohort, out_)));
  ASSERT_OK_AND_ASSIGN(
      const HarmonizedCopy single,
      Make(RequestOf(cohort / "imagesTr/a_0000.nii.gz", folder_.path() / "single.nii.gz")));

  EXPECT_EQ(copy.written, 2);
  EXPECT_EQ(TextOf(out_ / "labelsTr/a.nii.gz"), TextOf(cohort / "labelsTr/a.nii.gz"));
  EXPECT_EQ(single.written, 1);
  EXPECT_TRUE(fs::exists(folder_.path() / "single.harmonization.json"));
}

TEST_F(HarmonizedCopyTest, WritesASingleImageIntoTheCurrentFolder) {
  const fs::path before = fs::current_path();
  fs::current_path(folder_.path());
  const absl::StatusOr<HarmonizedCopy> copy =
      Make(RequestOf(in_ / "sub-1/anat/sub-1_T1w.nii.gz", "single.nii.gz"));
  fs::current_path(before);

  ASSERT_OK(copy);
  EXPECT_EQ(copy->written, 1);
  EXPECT_TRUE(fs::exists(folder_.path() / "single.nii.gz"));
}

/// What nnU-Net's reader gets is the network's input, voxel by voxel, in whatever order it is
/// stored.
TEST_F(HarmonizedCopyTest, WritesForNnunetTheImagesAloneInLpsOrderByCaseAndChannel) {
  const fs::path flair = in_ / "sub-2/anat/sub-2_FLAIR.nii.gz";
  ASSERT_OK(WriteVolume(flair, SmoothVolume(StoredGrid())));
  CopyRequest request = RequestOf(in_, out_);
  request.channels = {"FLAIR", "T1w"};
  request.for_nnunet = true;

  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy copy, Make(request));

  EXPECT_EQ(copy.written, 4);
  std::set<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(out_)) {
    if (entry.path().extension() != ".json") files.insert(entry.path().lexically_relative(out_));
  }
  EXPECT_THAT(files, testing::ElementsAre("sub-1_0001.nii.gz", "sub-2_0000.nii.gz",
                                          "sub-2_0001.nii.gz", "sub-3_0001.nii.gz"));
  EXPECT_EQ(RecordOf("sub-2_0000")["voxel_order"], "LPS");
  ASSERT_OK_AND_ASSIGN(const Volume stored, ReadVolume(flair));
  ASSERT_OK_AND_ASSIGN(const Volume harmonised, ReadVolume(out_ / "sub-2_0000.nii.gz"));
  Volume expected = ToCanonical(stored);
  ASSERT_OK(Harmonize(expected, HarmonizationPlan()));
  EXPECT_EQ(harmonised.voxels, expected.voxels);
  EXPECT_TRUE(SameGrid(harmonised.geometry, expected.geometry));
  EXPECT_FALSE(SameGrid(harmonised.geometry, stored.geometry));

  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy again, Make(request));
  EXPECT_EQ(again.kept, 4);
}

TEST_F(HarmonizedCopyTest, KnowsTheCaseOfEveryLayoutForNnunet) {
  const auto names = [&](const fs::path& cohort) {
    const fs::path out = folder_.path() / "for_nnunet" / cohort.filename();
    CopyRequest request = RequestOf(cohort, out);
    request.channels = {"T1w"};
    request.for_nnunet = true;
    EXPECT_OK(Make(request));
    std::set<std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(out)) {
      if (entry.path().extension() != ".json") files.insert(entry.path().lexically_relative(out));
    }
    return files;
  };
  const fs::path decathlon = folder_.path() / "decathlon";
  WriteText(decathlon / "dataset.json", R"({"modality": {"0": "T1w"}, "labels": {"0": "background"},
      "training": [{"image": "imagesTr/a_0007.nii.gz", "label": "labelsTr/a_0007.nii.gz"}]})");
  const fs::path nnunet = folder_.path() / "nnunet";
  WriteText(nnunet / "dataset.json", R"({"channel_names": {"0": "T1w"},
      "labels": {"background": 0}, "file_ending": ".nii.gz"})");
  for (const fs::path& cohort : {decathlon, nnunet}) {
    fs::create_directories(cohort / "imagesTr");
    ASSERT_OK(WriteVolume(
        cohort / (cohort == nnunet ? "imagesTr/b_0000.nii.gz" : "imagesTr/a_0007.nii.gz"),
        SmoothVolume(StoredGrid())));
  }
  const fs::path dicom = folder_.path() / "dicom";
  WriteMrSeries(dicom / "case-1/t1", NumberedVolume(ObliqueGeometry({6, 5, 7})), nullptr, "1");

  EXPECT_THAT(names(decathlon), testing::ElementsAre("a_0007_0000.nii.gz"));
  EXPECT_THAT(names(nnunet), testing::ElementsAre("b_0000.nii.gz"));
  EXPECT_THAT(names(dicom), testing::ElementsAre("case-1_0000.nii.gz"));

  const fs::path images = folder_.path() / "images";
  fs::create_directories(images);
  for (const char* name : {"scan.nii.gz", "d_0000.nii.gz"}) {
    ASSERT_OK(WriteVolume(images / name, SmoothVolume(StoredGrid())));
  }
  EXPECT_THAT(names(images), testing::ElementsAre("d_0000.nii.gz", "scan_0000.nii.gz"));
}

TEST_F(HarmonizedCopyTest, LeavesOutForNnunetWhatIsNoWholeCaseOfAFolderOfImages) {
  const fs::path images = folder_.path() / "images";
  fs::create_directories(images);
  for (const char* name : {"a_0000.nii.gz", "a_0001.nii.gz", "b_0001.nii.gz", "scan.nii.gz"}) {
    ASSERT_OK(WriteVolume(images / name, SmoothVolume(StoredGrid())));
  }
  CopyRequest request = RequestOf(images, out_);
  request.channels = {"FLAIR", "T1w"};
  request.for_nnunet = true;

  ASSERT_OK_AND_ASSIGN(const HarmonizedCopy copy, Make(request));

  EXPECT_EQ(copy.written, 2);
  ASSERT_EQ(copy.left_out.size(), 2U);
  EXPECT_EQ(copy.left_out[0].image, "scan.nii.gz");
  EXPECT_THAT(copy.left_out[0].reason, HasSubstr("such as _0000"));
  EXPECT_EQ(copy.left_out[1].image, "b");
  EXPECT_THAT(copy.left_out[1].reason, HasSubstr("no image of channel 0, \"FLAIR\""));
}

TEST_F(HarmonizedCopyTest, RefusesPlacesThatWouldMixInputAndOutput) {
  const auto to = [this](const fs::path& output) { return Make(RequestOf(in_, output)); };
  EXPECT_THAT(to(in_), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("overwrite")));
  EXPECT_THAT(to(folder_.path()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("lies inside the output")));
  EXPECT_THAT(to(in_ / "derivatives/harmonised"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("inside the input")));
  EXPECT_THAT(Make(RequestOf(folder_.path() / "none", out_)),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("there is no")));
  fs::create_directories(folder_.path() / "empty");
  EXPECT_THAT(Make(RequestOf(in_ / "sub-1/anat", out_)),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("such as " + in_.string())));
  EXPECT_THAT(Make(RequestOf(folder_.path() / "empty", out_)),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no cohort that is known")));
  EXPECT_THAT(Make(RequestOf(in_ / "sub-1/anat/sub-1_T1w.nii.gz", folder_.path() / "single")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("name the output .nii.gz")));
}

}  // namespace
}  // namespace isoscan
