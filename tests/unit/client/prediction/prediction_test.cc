#include "client/prediction/prediction.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "client/imaging/image_file.h"
#include "common/process/resources.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/imaging/phantom.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::UnorderedElementsAre;

std::string TextOf(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void WriteText(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

class Prediction : public testing::Test {
 protected:
  Prediction() {
    request_.input.folder = in_;
    request_.output = out_;
    request_.study.name = "two-parts";
    request_.study.digest = std::string(64, 'a');
    request_.study.channels = {"T1w"};
    request_.study.labels = {"low", "high"};
    request_.study.training.patch_size = {8, 8, 8};
    request_.model_sha256 = std::string(64, 'b');
    request_.device = "a fake";
  }

  static Volume Scan(int number) {
    Volume scan = SmoothVolume(ObliqueGeometry({9 + number, 8, 7}));
    for (float& voxel : scan.voxels) voxel *= static_cast<float>(number + 1);
    return scan;
  }

  void Write(const fs::path& path, int number) const {
    fs::create_directories(path.parent_path());
    ASSERT_OK(WriteVolume(path, Scan(number)));
  }

  /// Label 1 below the mean of the harmonised image, 2 above; counts the cases that it sees.
  absl::StatusOr<PredictedCases> Predict() {
    seen_.clear();
    return PredictCases(
        request_,
        [this](const PreparedCase& prepared,
               const PredictionControl& control) -> absl::StatusOr<LabelMap> {
          seen_.push_back(prepared.grid.size[0]);
          channels_ = static_cast<std::int64_t>(prepared.image.size()) / prepared.grid.voxels();
          if (failure_.has_value() && std::ssize(seen_) == failure_->first) return failure_->second;
          if (control.observe) control.observe(1, 1);
          LabelMap labels{.geometry = prepared.reference_grid, .voxels = {}};
          for (std::int64_t i = 0; i < prepared.grid.voxels(); ++i) {
            labels.voxels.push_back(prepared.image[static_cast<std::size_t>(i)] < 0 ? 1 : 2);
          }
          return labels;
        },
        stop_.get_token(),
        {.progress = [](std::string_view, std::int64_t, std::int64_t, const std::string&) {},
         .begin = [this](const PredictionSize& size) { size_ = size; }});
  }

  std::vector<std::string> FilesIn(const fs::path& folder) const {
    std::vector<std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      if (entry.is_regular_file()) files.push_back(entry.path().lexically_relative(folder));
    }
    return files;
  }

  TemporaryDirectory folder_;
  const fs::path in_ = folder_.path() / "in";
  const fs::path out_ = folder_.path() / "out";
  PredictionRequest request_;
  std::vector<std::int64_t> seen_;
  std::int64_t channels_ = 0;
  std::optional<std::pair<std::int64_t, absl::Status>> failure_;  ///< At the n-th case.
  std::stop_source stop_;
  PredictionSize size_;
};

TEST_F(Prediction, OfBidsKeepsSessionsAndNeedsNoLabel) {
  Write(in_ / "sub-1/ses-a/anat/sub-1_ses-a_T1w.nii.gz", 1);
  Write(in_ / "sub-1/ses-b/anat/sub-1_ses-b_acq-fast_T1w.nii.gz", 2);
  Write(in_ / "sub-2/anat/sub-2_T1w.nii.gz", 3);
  Write(in_ / "sub-2/anat/sub-2_FLAIR.nii.gz", 4);

  ASSERT_OK_AND_ASSIGN(const PredictedCases cases, Predict());

  EXPECT_EQ(cases.written, 3);
  EXPECT_THAT(FilesIn(out_), UnorderedElementsAre(
                                 "dataset_description.json", "desc-twoparts_dseg.tsv",
                                 "sub-1/ses-a/anat/sub-1_ses-a_desc-twoparts_dseg.nii.gz",
                                 "sub-1/ses-a/anat/sub-1_ses-a_desc-twoparts_dseg.json",
                                 "sub-1/ses-b/anat/sub-1_ses-b_acq-fast_desc-twoparts_dseg.nii.gz",
                                 "sub-1/ses-b/anat/sub-1_ses-b_acq-fast_desc-twoparts_dseg.json",
                                 "sub-2/anat/sub-2_desc-twoparts_dseg.nii.gz",
                                 "sub-2/anat/sub-2_desc-twoparts_dseg.json"));
  EXPECT_EQ(size_.cases, 3);
  EXPECT_GT(size_.case_bytes, 0);
  EXPECT_EQ(json::parse(TextOf(out_ / "dataset_description.json"))["SourceDatasets"][0]["URL"],
            "file://" + fs::canonical(in_).string());
}

TEST_F(Prediction, RecordsWhatTheLabelsWereMadeOf) {
  Write(in_ / "scan.nii.gz", 1);

  ASSERT_OK(Predict());

  const json record = json::parse(TextOf(out_ / "scan.json"));
  EXPECT_EQ(record["study_sha256"], std::string(64, 'a'));
  EXPECT_EQ(record["model_sha256"], std::string(64, 'b'));
  EXPECT_EQ(record["device"], "a fake");
  EXPECT_EQ(record["geometry"], "agreed");
  EXPECT_EQ(record["inputs"][0]["file"], "scan.nii.gz");
  EXPECT_EQ(record["inputs"][0]["channel"], "T1w");
  EXPECT_THAT(record["inputs"][0]["sha256"].get<std::string>(), SizeIs(64));
  EXPECT_GT(record["inputs"][0]["statistics"]["standard_deviation"], 0);
  const std::int64_t low = record["labels"][0]["voxels"];
  const std::int64_t high = record["labels"][1]["voxels"];
  EXPECT_EQ(low + high, 10 * 8 * 7);
  EXPECT_NEAR(record["labels"][0]["ml"].get<double>(),
              static_cast<double>(low) * 0.8 * 1.1 * 2.9 / 1000, 1e-6);
}

TEST_F(Prediction, KeepsWhatIsThereAndMakesAnewWhatHasChanged) {
  for (int number = 1; number <= 3; ++number) {
    Write(in_ / fmt::format("case-{}.nii.gz", number), number);
  }
  ASSERT_OK(Predict());
  EXPECT_THAT(seen_, ElementsAre(10, 11, 12));

  ASSERT_OK_AND_ASSIGN(const PredictedCases again, Predict());
  EXPECT_EQ(again.kept, 3);
  EXPECT_THAT(seen_, IsEmpty());

  Write(in_ / "case-2.nii.gz", 5);               // Another image,
  fs::remove(out_ / "case-3.json");              // no record: as somebody else's,
  WriteText(out_ / "case-1.nii.gz", "changed");  // and labels that were edited.
  ASSERT_OK_AND_ASSIGN(const PredictedCases changed, Predict());
  EXPECT_THAT(seen_, ElementsAre(10, 14));
  EXPECT_EQ(changed.written, 2);
  ASSERT_THAT(changed.refused, SizeIs(1));
  EXPECT_EQ(changed.refused.front().name, "case-3");
  EXPECT_THAT(changed.refused.front().reason, HasSubstr("no prediction made it"));
  EXPECT_TRUE(fs::exists(out_ / "case-3.nii.gz")) << "what is not ours stays";

  request_.model_sha256 = std::string(64, 'c');
  fs::remove(out_ / "case-3.nii.gz");
  ASSERT_OK_AND_ASSIGN(const PredictedCases other_model, Predict());
  EXPECT_EQ(other_model.written, 3);
  request_.mirror_axes = {0};
  ASSERT_OK_AND_ASSIGN(const PredictedCases mirrored, Predict());
  EXPECT_EQ(mirrored.written, 3);
}

TEST_F(Prediction, NeverWritesOverManualLabels) {
  Write(in_ / "scan.nii.gz", 1);
  WriteText(out_ / "scan.nii.gz", "drawn by hand");

  ASSERT_OK_AND_ASSIGN(const PredictedCases cases, Predict());

  EXPECT_THAT(cases.refused, SizeIs(1));
  EXPECT_EQ(TextOf(out_ / "scan.nii.gz"), "drawn by hand");
}

TEST_F(Prediction, TakesChannelsByTheirNumbers) {
  request_.study.channels = {"T1w", "FLAIR"};
  Write(in_ / "a_0000.nii.gz", 1);
  Write(in_ / "a_0001.nii.gz", 1);
  Write(in_ / "b_0000.nii.gz", 2);
  Write(in_ / "c.nii.gz", 3);
  // Two channels of one image would be no case.
  Volume other = Scan(1);
  std::reverse(other.voxels.begin(), other.voxels.end());
  ASSERT_OK(WriteVolume(in_ / "a_0001.nii.gz", other));

  ASSERT_OK_AND_ASSIGN(const PredictedCases cases, Predict());
  EXPECT_EQ(cases.written, 1);
  EXPECT_EQ(channels_, 2);
  EXPECT_THAT(cases.left_out, UnorderedElementsAre(HasSubstr("c.nii.gz: its name does not end"),
                                                   HasSubstr("no image of channel 1, \"FLAIR\"")));

  // One of a case's files stands for the case.
  request_.input.folder = in_ / "a_0000.nii.gz";
  request_.output = folder_.path() / "alone.nii.gz";
  ASSERT_OK_AND_ASSIGN(const PredictedCases alone, Predict());
  EXPECT_EQ(alone.written, 1);
  EXPECT_EQ(channels_, 2);
  EXPECT_EQ(TextOf(request_.output), TextOf(out_ / "a.nii.gz"));

  request_.input.folder = in_ / "c.nii.gz";
  EXPECT_THAT(Predict(), StatusIs(absl::StatusCode::kInvalidArgument,
                                  AllOf(HasSubstr("one image"), HasSubstr("2 channels"))));
}

TEST_F(Prediction, TakesTrainingAndTestImagesOfNnunetApartWhereTheyHaveOneName) {
  WriteText(in_ / "dataset.json",
            R"({"channel_names": {"0": "T1w"}, "labels": {"background": 0, "x": 1},
                "file_ending": ".nii.gz"})");
  Write(in_ / "imagesTr/a_0000.nii.gz", 1);
  Write(in_ / "imagesTs/a_0000.nii.gz", 2);
  Write(in_ / "imagesTs/b_0000.nii.gz", 3);

  ASSERT_OK(Predict());

  EXPECT_THAT(FilesIn(out_),
              UnorderedElementsAre("imagesTr/a.nii.gz", "imagesTr/a.json", "imagesTs/a.nii.gz",
                                   "imagesTs/a.json", "b.nii.gz", "b.json"));
}

// A study would hold one of them out and train on the other; a prediction has no such trouble.
TEST_F(Prediction, PredictsAnImageThatIsThereTwice) {
  Write(in_ / "a.nii.gz", 1);
  Write(in_ / "b.nii.gz", 1);

  ASSERT_OK_AND_ASSIGN(const PredictedCases cases, Predict());

  EXPECT_EQ(cases.written, 2);
  EXPECT_THAT(cases.refused, IsEmpty());
}

TEST_F(Prediction, RefusesWhatIntakeQuarantinesAndWhatFailsAlone) {
  for (int number = 1; number <= 4; ++number) {
    Write(in_ / fmt::format("case-{}.nii.gz", number), number);
  }
  Volume empty = Scan(2);
  std::fill(empty.voxels.begin(), empty.voxels.end(), 3.0F);
  ASSERT_OK(WriteVolume(in_ / "case-2.nii.gz", empty));
  failure_ = {2, absl::ResourceExhaustedError("out of memory")};

  ASSERT_OK_AND_ASSIGN(const PredictedCases cases, Predict());

  EXPECT_EQ(cases.written, 2);
  ASSERT_THAT(cases.refused, SizeIs(2));
  EXPECT_EQ(cases.refused[0].name, "case-2");
  EXPECT_EQ(cases.refused[1].name, "case-3");
  EXPECT_EQ(cases.refused[1].reason, "out of memory");
  EXPECT_FALSE(fs::exists(out_ / "case-2.nii.gz"));
}

TEST_F(Prediction, EndsWithAnErrorThatIsNotOfOneCase) {
  Write(in_ / "a.nii.gz", 1);
  failure_ = {1, absl::InternalError("the device is gone")};

  EXPECT_THAT(Predict(), StatusIs(absl::StatusCode::kInternal, "the device is gone"));
}

TEST_F(Prediction, GoesOnAfterItWasStopped) {
  for (int number = 1; number <= 3; ++number) {
    Write(in_ / fmt::format("case-{}.nii.gz", number), number);
  }
  failure_ = {2, absl::CancelledError("interrupted")};
  EXPECT_THAT(Predict(), StatusIs(absl::StatusCode::kCancelled, HasSubstr("goes on from here")));
  failure_.reset();

  ASSERT_OK_AND_ASSIGN(const PredictedCases cases, Predict());

  EXPECT_EQ(cases.kept, 1);
  EXPECT_EQ(cases.written, 2);
}

TEST_F(Prediction, RemovesWhatAKilledProcessLeft) {
  Write(in_ / "scan.nii.gz", 1);
  WriteText(out_ / "scan.nii.gz.tmp-0123abcd", "half");
  WriteText(out_ / "scan.json.tmp-0123abcd", "half");
  WriteText(out_ / "other.nii.gz.tmp-0123abcd", "somebody's");

  ASSERT_OK(Predict());

  EXPECT_THAT(FilesIn(out_),
              UnorderedElementsAre("scan.nii.gz", "scan.json", "other.nii.gz.tmp-0123abcd"));
}

TEST_F(Prediction, RefusesACaseThatTakesMoreMemoryThanThereIs) {
  Write(in_ / "scan.nii.gz", 1);
  request_.network_bytes = 2 * AvailableMemoryBytes();

  ASSERT_OK_AND_ASSIGN(const PredictedCases cases, Predict());

  EXPECT_THAT(seen_, IsEmpty());
  ASSERT_THAT(cases.refused, SizeIs(1));
  EXPECT_THAT(cases.refused.front().reason, HasSubstr("GiB of memory"));
}

TEST_F(Prediction, RefusesPlacesThatWouldMixInputAndOutput) {
  Write(in_ / "sub-1/anat/sub-1_T1w.nii.gz", 1);
  const auto into = [this](const fs::path& output) {
    request_.output = output;
    return Predict().status();
  };

  EXPECT_THAT(into(in_), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("lie inside")));
  EXPECT_THAT(into(in_ / "derivatives"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("below its derivatives/")));
  EXPECT_THAT(into(in_ / "derivatives/../x"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("lie inside")));
  EXPECT_OK(into(in_ / "derivatives/isoscan"));

  WriteText(out_ / "dataset_description.json", R"({"Name": "raw", "BIDSVersion": "1.8.0"})");
  EXPECT_THAT(into(out_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("another dataset")));
  EXPECT_THAT(FilesIn(out_), ElementsAre("dataset_description.json"));
}

TEST_F(Prediction, RefusesOneFileForSeveralCases) {
  Write(in_ / "a.nii.gz", 1);
  Write(in_ / "b.nii.gz", 2);
  request_.output = folder_.path() / "labels.nii.gz";

  EXPECT_THAT(Predict(), StatusIs(absl::StatusCode::kInvalidArgument,
                                  AllOf(HasSubstr("one file"), HasSubstr("2 cases"))));
}

TEST_F(Prediction, NamesAnInputThatIsNotThereOrHoldsNothing) {
  EXPECT_THAT(Predict(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("there is no")));
  fs::create_directories(in_);
  EXPECT_THAT(Predict(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("no image in")));
  EXPECT_FALSE(fs::exists(out_));
}

}  // namespace
}  // namespace isoscan
