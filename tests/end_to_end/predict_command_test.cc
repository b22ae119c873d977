/// `isoscan-client predict` as a process: every layout, killed, out of disk, damaged scans and
/// models of something else. The model is made by hand: it labels what is bright, so that where the
/// labels must lie is known to the voxel.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "client/imaging/image_file.h"
#include "common/study/initial_weights.h"
#include "common/study/study.h"
#include "common/weights/safetensors.h"
#include "deploy/sandbox/child_process.h"
#include "tests/support/file_content.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/imaging/dicom_files.h"
#include "tests/unit/client/imaging/phantom.h"
#include <signal.h>

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using std::chrono::milliseconds;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr int kKilled = 128 + SIGKILL;

constexpr char kStudy[] =
    "name = \"bright-things\"\nchannels = [\"T1w\"]\nlabels = [\"bright\"]\n"
    "[network]\nfeatures = [2, 4]\nstrides = [[1, 1, 1], [2, 2, 2]]\n"
    "[training]\npatch_size = [16, 16, 16]\nmirror_axes = [0, 1, 2]\n";

/// Passes the image through the skip of the finest level and labels what is above its window's
/// mean by some deviations: a small bright box before one value.
NamedTensors BrightnessModel(const Study& study) {
  NamedTensors weights = InitialWeights(study);
  for (auto& [name, tensor] : weights) {
    if (tensor.shape.size() == 5) std::fill(tensor.values.begin(), tensor.values.end(), 0.0F);
  }
  const auto pass = [&weights](const std::string& convolution, std::size_t from) {
    // Of the first output, the middle of the 3 x 3 x 3 kernel of input `from`.
    weights.at(convolution + ".conv.weight").values[from * 27 + 13] = 1;
  };
  pass("encoder.stages.0.0.convs.0", 0);
  pass("encoder.stages.0.0.convs.1", 0);
  pass("decoder.stages.0.convs.0", 2);  // Behind what comes up.
  pass("decoder.stages.0.convs.1", 0);
  weights.at("decoder.seg_layers.0.weight").values[2] = 1;  // Label 1, first feature.
  weights.at("decoder.seg_layers.0.bias").values[1] = -0.5;
  return weights;
}

/// One value, and a box of another one, away from the middle on every axis.
Volume BoxIn(const Geometry& geometry) {
  Volume volume{.geometry = geometry, .voxels = {}};
  const auto [width, height, depth] = geometry.size;
  for (std::int64_t z = 0; z < depth; ++z) {
    for (std::int64_t y = 0; y < height; ++y) {
      for (std::int64_t x = 0; x < width; ++x) {
        const bool inside = x >= 2 && x < 6 && y >= 8 && y < 11 && z >= depth - 5 && z < depth - 3;
        volume.voxels.push_back(inside ? 400.0F : 100.0F);
      }
    }
  }
  return volume;
}

/// As scanners store sagittal slices: axes in another order, two of them turned about.
Geometry StoredGrid(const std::array<std::int64_t, 3>& size) {
  const Geometry oblique = ObliqueGeometry(size);
  Geometry stored = oblique;
  constexpr std::array<std::size_t, 3> kAxes{1, 2, 0};
  constexpr std::array<double, 3> kSigns{1, -1, -1};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    stored.spacing_mm[axis] = oblique.spacing_mm[kAxes[axis]];
    for (std::size_t row = 0; row < 3; ++row) {
      stored.direction[row][axis] = kSigns[axis] * oblique.direction[row][kAxes[axis]];
    }
  }
  return stored;
}

/// The labels lie where the image is bright, in the image's own order of voxels and place.
void ExpectLabelsOf(const Volume& image, const fs::path& path) {
  ASSERT_TRUE(fs::exists(path)) << path;
  ASSERT_OK_AND_ASSIGN(const Volume labels, ReadLabelValues(path));
  EXPECT_LT(GreatestCornerDistance(labels.geometry, image.geometry), 1e-3);
  ASSERT_EQ(labels.voxels.size(), image.voxels.size());
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < image.voxels.size(); ++i) {
    wrong += labels.voxels[i] != (image.voxels[i] > 200 ? 1.0F : 0.0F) ? 1 : 0;
  }
  EXPECT_EQ(wrong, 0U) << path;
}

/// Both forms with their codes, from the header of an uncompressed or compressed NIfTI.
GeometryAudit FormsOf(const fs::path& path, GeometrySource source) {
  const absl::StatusOr<GeometryAudit> audit = AuditGeometry(path, source);
  EXPECT_OK(audit);
  return audit.ok() ? *audit : GeometryAudit();
}

class PredictCommand : public testing::Test {
 protected:
  static constexpr int kSubjects = 4;

  void SetUp() override {
    WriteText(toml_, kStudy);
    const absl::StatusOr<Study> study = LoadStudy(toml_);
    ASSERT_OK(study);
    study_ = *study;
    ASSERT_OK(WriteSafetensors(model_, BrightnessModel(study_), WeightsMetadataOf(study_, 3)));
  }

  static fs::path ScanOf(const std::string& subject) {
    return fs::path(subject) / "anat" / (subject + "_T1w.nii.gz");
  }
  static fs::path LabelsOf(const std::string& subject) {
    return fs::path(subject) / "anat" / (subject + "_desc-brightthings_dseg.nii.gz");
  }

  /// sub-1, ... of a BIDS cohort without a label; each another size.
  std::map<std::string, Volume> MakeBids(const std::array<std::int64_t, 3>& size) const {
    std::map<std::string, Volume> scans;
    for (int subject = 1; subject <= kSubjects; ++subject) {
      const std::string name = fmt::format("sub-{}", subject);
      const Volume scan = BoxIn(StoredGrid({size[0] + subject, size[1], size[2] + subject}));
      fs::create_directories((in_ / ScanOf(name)).parent_path());
      EXPECT_OK(WriteVolume(in_ / ScanOf(name), scan));
      scans.emplace(name, scan);
    }
    return scans;
  }

  std::vector<std::string> Arguments(const fs::path& input, const fs::path& output,
                                     const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments{std::string(ISOSCAN_PROGRAMS) + "/isoscan-client",
                                       "predict",
                                       input.string(),
                                       output.string(),
                                       "--device",
                                       "cpu",
                                       "--study",
                                       toml_.string()};
    if (std::find(more.begin(), more.end(), "--model") == more.end()) {
      arguments.insert(arguments.end(), {"--model", model_.string()});
    }
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  ChildProcess Start(std::vector<std::string> arguments) const {
    std::error_code ignored;
    fs::remove(log(), ignored);
    auto child = ChildProcess::Start(
        {.title = "predict", .arguments = std::move(arguments), .log = log(), .environment = {}});
    EXPECT_OK(child);
    return *std::move(child);
  }

  void Run(std::vector<std::string> arguments, int code) const {
    ChildProcess child = Start(std::move(arguments));
    ASSERT_TRUE(child.WaitFor(std::chrono::minutes(2), {})) << "predict hangs";
    EXPECT_EQ(child.exit_code(), code) << TextOf(log());
  }

  fs::path log() const { return folder_.path() / "log"; }

  TemporaryDirectory folder_;
  const fs::path in_ = folder_.path() / "in";
  const fs::path out_ = folder_.path() / "out";
  const fs::path toml_ = folder_.path() / "study.toml";
  const fs::path model_ = folder_.path() / "model.safetensors";
  Study study_;
};

TEST_F(PredictCommand, MakesABidsDerivativeOfABidsCohort) {
  const std::map<std::string, Volume> scans = MakeBids({18, 17, 14});
  const fs::path out = in_ / "derivatives/isoscan";

  Run(Arguments(in_, out), 0);

  EXPECT_THAT(TextOf(log()),
              AllOf(HasSubstr("predicting 4 cases in "), HasSubstr(" MB (the program"),
                    HasSubstr("4 written, 0 kept, 0 refused")));
  for (const auto& [subject, scan] : scans) {
    ExpectLabelsOf(scan, out / LabelsOf(subject));
    const json record =
        json::parse(TextOf(out / subject / "anat" / (subject + "_desc-brightthings_dseg.json")));
    EXPECT_EQ(record["study"], "bright-things");
    EXPECT_EQ(record["study_sha256"], study_.digest);
    EXPECT_EQ(record["harmonization_sha256"], HarmonizationDigest(study_.harmonization));
    EXPECT_EQ(record["Sources"][0], "bids:raw:" + ScanOf(subject).string());
    EXPECT_EQ(record["labels"][0]["name"], "bright");
    EXPECT_EQ(record["labels"][0]["voxels"], 4 * 3 * 2);
    EXPECT_GT(record["inputs"][0]["statistics"]["mean"], 100);
    EXPECT_GT(record["windows"], 1);
  }
  const json description = json::parse(TextOf(out / "dataset_description.json"));
  EXPECT_EQ(description["DatasetType"], "derivative");
  EXPECT_EQ(description["GeneratedBy"][0]["Name"], "Isoscan");
  EXPECT_EQ(description["SourceDatasets"][0]["URL"], "../..");
  EXPECT_EQ(TextOf(out / "desc-brightthings_dseg.tsv"), "index\tname\n0\tbackground\n1\tbright\n");
}

TEST_F(PredictCommand, TakesTheTrainingAndTheTestImagesOfADecathlon) {
  const Volume training = BoxIn(StoredGrid({18, 17, 14}));
  const Volume test = BoxIn(StoredGrid({17, 19, 15}));
  fs::create_directories(in_ / "imagesTr");
  fs::create_directories(in_ / "imagesTs");
  ASSERT_OK(WriteVolume(in_ / "imagesTr/box_1.nii.gz", training));
  ASSERT_OK(WriteVolume(in_ / "imagesTs/box_2.nii.gz", test));
  WriteText(in_ / "dataset.json",
            R"({"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "x"},
                "training": [{"image": "./imagesTr/box_1.nii.gz",
                              "label": "./labelsTr/box_1.nii.gz"}],
                "test": ["./imagesTs/box_2.nii.gz"]})");

  Run(Arguments(in_, out_, {"--mirror", "--json"}), 0);

  ExpectLabelsOf(training, out_ / "box_1.nii.gz");
  ExpectLabelsOf(test, out_ / "box_2.nii.gz");
  EXPECT_EQ(json::parse(TextOf(out_ / "box_2.json"))["mirror_axes"], (json{0, 1, 2}));
  const std::string printed = TextOf(log());
  const json result = json::parse(printed.substr(printed.find("{\n")));
  EXPECT_EQ(result["written"], 2);
  EXPECT_EQ(result["refused"], json::array());
}

TEST_F(PredictCommand, PutsTheLabelsOfADicomSeriesWhereTheScannerSaysTheyAre) {
  const Volume first = BoxIn(StoredGrid({18, 17, 14}));
  const Volume second = BoxIn(StoredGrid({17, 19, 15}));
  WriteMrSeries(in_ / "one", first);
  WriteMrSeries(in_ / "two", second);

  Run(Arguments(in_, out_), 0);
  for (const auto& [name, volume] : {std::pair{"one", &first}, std::pair{"two", &second}}) {
    ASSERT_OK_AND_ASSIGN(const Volume stored, ReadVolume(in_ / name));
    ExpectLabelsOf(stored, out_ / (std::string(name) + ".nii.gz"));
    for (const GeometrySource source : {GeometrySource::kQform, GeometrySource::kSform}) {
      const GeometryAudit forms = FormsOf(out_ / (std::string(name) + ".nii.gz"), source);
      EXPECT_EQ(forms.qform_code, 1);
      EXPECT_EQ(forms.sform_code, 1);
      EXPECT_LT(GreatestCornerDistance(forms.geometry, stored.geometry), 1e-3);
    }
  }

  Run(Arguments(in_, out_, {"--dicom-seg"}), 0);
  EXPECT_THAT(TextOf(log()), HasSubstr("2 written, 0 kept"));
  EXPECT_EQ(TextOf(out_ / "one.dcm").substr(128, 4), "DICM");
  Run(Arguments(in_, out_, {"--dicom-seg"}), 0);
  EXPECT_THAT(TextOf(log()), HasSubstr("0 written, 2 kept"));

  // The series alone, into a file.
  Run(Arguments(in_ / "two", folder_.path() / "two.nii.gz"), 0);
  EXPECT_EQ(TextOf(folder_.path() / "two.nii.gz"), TextOf(out_ / "two.nii.gz"));
}

TEST_F(PredictCommand, KeepsBothFormsOfASingleObliqueFile) {
  const Volume scan = BoxIn(StoredGrid({18, 17, 14}));
  const fs::path plain = folder_.path() / "plain.nii";
  const fs::path file = folder_.path() / "scan.nii";
  ASSERT_OK(WriteVolume(plain, scan));
  // Codes of a scanner (qform) and of an alignment (sform), a little apart.
  std::string bytes = TextOf(plain);
  bytes[252] = 1;
  bytes[254] = 2;
  float offset = 0;
  std::copy_n(bytes.data() + 268, sizeof(offset), reinterpret_cast<char*>(&offset));
  offset += 0.03F;
  std::copy_n(reinterpret_cast<const char*>(&offset), sizeof(offset), bytes.data() + 268);
  WriteText(file, bytes);

  Run(Arguments(file, folder_.path() / "labels.nii"), 0);

  const std::string labels = TextOf(folder_.path() / "labels.nii");
  EXPECT_EQ(labels.substr(252, 76), bytes.substr(252, 76)) << "codes, qform and sform, bit by bit";
  EXPECT_EQ(labels[70], 2) << "uint8";
  ASSERT_OK_AND_ASSIGN(const Volume stored, ReadVolume(file));
  ExpectLabelsOf(stored, folder_.path() / "labels.nii");
  EXPECT_TRUE(fs::exists(folder_.path() / "labels.json"));
}

TEST_F(PredictCommand, NamesADamagedCaseAndGoesOn) {
  const std::map<std::string, Volume> scans = MakeBids({18, 17, 14});
  const std::string whole = TextOf(in_ / ScanOf("sub-2"));
  WriteText(in_ / ScanOf("sub-2"), whole.substr(0, whole.size() / 2));

  Run(Arguments(in_, out_), 3);

  EXPECT_THAT(TextOf(log()), AllOf(HasSubstr("refused sub-2: "), HasSubstr("ends too early"),
                                   HasSubstr("3 written, 0 kept, 1 refused"),
                                   HasSubstr("1 of 4 cases were refused")));
  for (const auto& [subject, scan] : scans) {
    if (subject == "sub-2") {
      EXPECT_FALSE(fs::exists(out_ / LabelsOf(subject)));
    } else {
      ExpectLabelsOf(scan, out_ / LabelsOf(subject));
    }
  }

  // Mended, only that one is predicted; damaged again, what was made of it goes.
  WriteText(in_ / ScanOf("sub-2"), whole);
  Run(Arguments(in_, out_), 0);
  EXPECT_THAT(TextOf(log()), HasSubstr("1 written, 3 kept, 0 refused"));
  ExpectLabelsOf(scans.at("sub-2"), out_ / LabelsOf("sub-2"));
  WriteText(in_ / ScanOf("sub-2"), whole.substr(0, whole.size() / 2));
  Run(Arguments(in_, out_), 3);
  EXPECT_FALSE(fs::exists(out_ / LabelsOf("sub-2")));
}

TEST_F(PredictCommand, RefusesAModelOfSomethingElseBeforeAnythingIsWritten) {
  MakeBids({18, 17, 14});
  const fs::path other = folder_.path() / "other.safetensors";
  const std::string ours = HarmonizationDigest(study_.harmonization);
  Study harmonized = study_;
  harmonized.harmonization.mask = HarmonizationPlan::Mask::kOtsu;
  ASSERT_OK(WriteSafetensors(other, BrightnessModel(study_), WeightsMetadataOf(harmonized, 3)));
  Run(Arguments(in_, out_, {"--model", other}), 2);
  EXPECT_THAT(TextOf(log()), AllOf(HasSubstr(HarmonizationDigest(harmonized.harmonization)),
                                   HasSubstr(ours), HasSubstr("other.safetensors")));

  Study wider = study_;
  wider.network.features = {2, 8};
  ASSERT_OK(WriteSafetensors(other, InitialWeights(wider), WeightsMetadataOf(study_, 3)));
  Run(Arguments(in_, out_, {"--model", other}), 2);
  EXPECT_THAT(TextOf(log()), HasSubstr("decoder.transpconvs.0.weight of shape [8, 2, 2, 2, 2]"));

  Run(Arguments(in_, in_ / "out"), 2);
  EXPECT_THAT(TextOf(log()), HasSubstr("lie inside the input"));
  EXPECT_FALSE(fs::exists(out_));
  EXPECT_FALSE(fs::exists(in_ / "out"));
}

// Many windows, so that there is a middle of a case to be killed in.
TEST_F(PredictCommand, KilledAtSeveralMomentsEndsWithTheBytesOfAnUndisturbedRun) {
  MakeBids({40, 38, 36});
  const fs::path undisturbed = folder_.path() / "undisturbed";
  Run(Arguments(in_, undisturbed), 0);
  const auto expected = ContentOf(undisturbed);
  ASSERT_EQ(expected.size(), 2 * kSubjects + 2U);

  const auto there = [this](const std::string& subject) {
    return fs::exists(out_ / LabelsOf(subject));
  };
  const std::vector<std::function<bool()>> moments{
      [this] { return fs::exists(out_); },            // Before any case.
      [this] { return fs::exists(out_ / "sub-1"); },  // At its record.
      [&there] { return there("sub-1"); },            // At its labels.
      [&there] { return there("sub-2"); }, [&there] { return there("sub-3"); }};
  int killed = 0;
  for (const auto& is_time : moments) {
    ChildProcess child = Start(Arguments(in_, out_));
    while (!child.WaitFor(milliseconds(1), {})) {
      if (is_time()) ::kill(child.id(), SIGKILL);
    }
    killed += child.exit_code() == kKilled ? 1 : 0;
    for (const auto& [name, bytes] : ContentOf(out_)) {
      if (!name.ends_with("dseg.nii.gz")) continue;
      EXPECT_TRUE(expected.at(name) == bytes) << name << " has other bytes after a kill";
    }
  }
  EXPECT_GE(killed, 3) << "this machine is too fast for the moments";

  Run(Arguments(in_, out_), 0);
  const auto content = ContentOf(out_);
  std::vector<std::string> wrong;
  for (const auto& [name, bytes] : expected) {
    if (!content.contains(name) || content.at(name) != bytes) wrong.push_back(name);
  }
  for (const auto& [name, bytes] : content) {
    if (!expected.contains(name)) wrong.push_back(name);
  }
  EXPECT_THAT(wrong, testing::IsEmpty());
  Run(Arguments(in_, out_), 0);
  EXPECT_THAT(TextOf(log()), HasSubstr("0 written, 4 kept, 0 refused"));
}

TEST_F(PredictCommand, StopsAtCtrlCAndGoesOn) {
  MakeBids({40, 38, 36});
  ChildProcess child = Start(Arguments(in_, out_));
  bool told = false;  // A second signal would end it at once.
  while (!child.WaitFor(milliseconds(1), {})) {
    if (told || !fs::exists(out_ / LabelsOf("sub-1"))) continue;
    ::kill(child.id(), SIGINT);
    told = true;
  }
  if (child.exit_code() == 0) GTEST_SKIP() << "it had ended before";
  EXPECT_EQ(child.exit_code(), 130);
  EXPECT_THAT(TextOf(log()), HasSubstr("the same command goes on from here"));

  Run(Arguments(in_, out_), 0);
  EXPECT_THAT(TextOf(log()), AllOf(HasSubstr(" kept, 0 refused"), Not(HasSubstr(" 0 kept"))));
}

// A limit on the size of files stands for a full disk: the write fails in the same place.
TEST_F(PredictCommand, WithoutRoomNamesTheFolderAndLeavesNoPartOfAFile) {
  const std::map<std::string, Volume> scans = MakeBids({18, 17, 14});
  std::string command = "ulimit -f 2; exec";
  for (const std::string& argument : Arguments(in_, out_)) command += " '" + argument + "'";

  Run({"/bin/sh", "-c", command}, 7);

  EXPECT_THAT(TextOf(log()), AllOf(HasSubstr("cannot write "), HasSubstr("File too large"),
                                   HasSubstr("(in " + out_.string())));
  for (const auto& [name, bytes] : ContentOf(out_)) EXPECT_THAT(name, Not(HasSubstr(".tmp-")));
  Run(Arguments(in_, out_), 0);
  for (const auto& [subject, scan] : scans) ExpectLabelsOf(scan, out_ / LabelsOf(subject));
}

}  // namespace
}  // namespace isoscan
