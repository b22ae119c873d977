/// `isoscan-client harmonize` as a process: killed, out of disk, and with a study's model.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

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
#include "common/study/study.h"
#include "common/weights/safetensors.h"
#include "deploy/sandbox/child_process.h"
#include "tests/support/file_content.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/imaging/phantom.h"
#include <signal.h>

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using std::chrono::milliseconds;
using testing::AllOf;
using testing::HasSubstr;

constexpr int kKilled = 128 + SIGKILL;

using Content = std::map<std::string, std::string>;
Content ContentOrNone(const fs::path& folder) {
  return fs::exists(folder) ? ContentOf(folder) : Content{};
}

bool IsTemporary(const std::string& name) { return name.find(".tmp-") != std::string::npos; }

/// Names alone: the bytes of images would fill pages.
void ExpectSame(const Content& content, const Content& expected) {
  std::vector<std::string> wrong;
  for (const auto& [name, bytes] : expected) {
    const auto found = content.find(name);
    if (found == content.end()) {
      wrong.push_back(name + " is missing");
    } else if (found->second != bytes) {
      wrong.push_back(name + " differs");
    }
  }
  for (const auto& [name, bytes] : content) {
    if (!expected.contains(name)) wrong.push_back(name + " is too much");
  }
  EXPECT_THAT(wrong, testing::IsEmpty());
}

class HarmonizeCommand : public testing::Test {
 protected:
  static constexpr int kSubjects = 6;

  void MakeCohort(const std::array<std::int64_t, 3>& size) const {
    for (int subject = 1; subject <= kSubjects; ++subject) {
      const std::string name = fmt::format("sub-{}", subject);
      const fs::path anat = in_ / name / "anat";
      fs::create_directories(anat);
      // Unlike each other, and too noisy for gzip to make little of them.
      Volume volume = SmoothVolume(ObliqueGeometry(size));
      std::uint32_t noise = static_cast<std::uint32_t>(subject);
      for (float& voxel : volume.voxels) {
        noise = noise * 1664525U + 1013904223U;
        voxel += static_cast<float>(noise >> 16) / 4096;
      }
      ASSERT_OK(WriteVolume(anat / (name + "_T1w.nii.gz"), volume));
      WriteText(anat / (name + "_T1w.json"), R"({"MagneticFieldStrength": 3})");
      const fs::path masks = in_ / "derivatives/manual" / name / "anat";
      fs::create_directories(masks);
      ASSERT_OK(WriteLabelMap(masks / (name + "_label-x_mask.nii.gz"), BoxLabels(volume.geometry)));
    }
    WriteText(in_ / "participants.tsv", "participant_id\n");
  }

  std::vector<std::string> Arguments(const fs::path& out,
                                     const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments{std::string(ISOSCAN_PROGRAMS) + "/isoscan-client",
                                       "harmonize", in_.string(), out.string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  ChildProcess Start(std::vector<std::string> arguments) const {
    std::error_code ignored;
    fs::remove(log(), ignored);
    auto child = ChildProcess::Start(
        {.title = "harmonize", .arguments = std::move(arguments), .log = log(), .environment = {}});
    EXPECT_OK(child);
    return *std::move(child);
  }

  void Run(std::vector<std::string> arguments, int code) const {
    ChildProcess child = Start(std::move(arguments));
    ASSERT_TRUE(child.WaitFor(std::chrono::minutes(2), {})) << "harmonize hangs";
    EXPECT_EQ(child.exit_code(), code) << TextOf(log());
  }

  /// Kills it at the first moment that `is_time`; false when it had ended before.
  bool RunAndKill(const std::vector<std::string>& arguments,
                  const std::function<bool()>& is_time) const {
    ChildProcess child = Start(arguments);
    while (!child.WaitFor(milliseconds(1), {})) {
      if (is_time()) ::kill(child.id(), SIGKILL);
    }
    EXPECT_TRUE(child.exit_code() == kKilled || child.exit_code() == 0) << TextOf(log());
    return child.exit_code() == kKilled;
  }

  /// Files of the output by their names, while somebody may be writing there.
  std::size_t Count(const std::function<bool(const std::string&)>& fits) const {
    std::size_t files = 0;
    std::error_code error;
    fs::recursive_directory_iterator entry(out_, error);
    for (const fs::recursive_directory_iterator end; !error && entry != end;
         entry.increment(error)) {
      files += fits(entry->path().filename().string()) ? 1 : 0;
    }
    return files;
  }

  void KillAtManyMoments(int rounds) const;

  fs::path log() const { return folder_.path() / "log"; }

  TemporaryDirectory folder_;
  const fs::path in_ = folder_.path() / "in";
  const fs::path out_ = folder_.path() / "out";
};

/// Four kills in each round: before any image, in the middle of one, after an image (maybe before
/// its record), and after a record.
void HarmonizeCommand::KillAtManyMoments(int rounds) const {
  MakeCohort({64, 64, 48});
  const fs::path undisturbed = folder_.path() / "undisturbed";
  Run(Arguments(undisturbed), 0);
  const Content expected = ContentOrNone(undisturbed);
  ASSERT_EQ(expected.size(), 4 * kSubjects + 1);

  const auto is_image = [](const std::string& name) { return name.ends_with("T1w.nii.gz"); };
  const auto is_half = [](const std::string& name) {
    return name.find("T1w.nii.gz.tmp-") != std::string::npos;
  };
  const auto is_record = [](const std::string& name) {
    return name.ends_with(".harmonization.json");
  };
  // A busy machine may let a whole run pass between two looks: then the moment is tried again.
  const auto kill_when = [&](const char* moment, const auto& happens, const auto& is_left) {
    for (int tries = 0; tries < 10; ++tries) {
      // Half of the work is there to be done, whatever the last process has left.
      for (int subject = 1; subject <= kSubjects; subject += 2) {
        fs::remove_all(out_ / fmt::format("sub-{}", subject));
      }
      const bool killed = RunAndKill(Arguments(out_), happens());
      for (const auto& [name, bytes] : ContentOrNone(out_)) {
        if (IsTemporary(name)) continue;
        ASSERT_TRUE(expected.contains(name)) << name;
        EXPECT_TRUE(expected.at(name) == bytes) << name << " has other bytes after a kill";
      }
      if (killed && is_left()) return;
    }
    FAIL() << "no process could be killed at the moment: " << moment;
  };
  const auto always = [] { return true; };
  // One more than before: what is there already is no moment of this process.
  const auto more = [this](const auto& fits) {
    return [this, fits] {
      return [this, fits, before = Count(fits)] { return Count(fits) > before; };
    };
  };
  for (int round = 0; round < rounds; ++round) {
    fs::remove_all(out_);
    kill_when("the folder is there", more([](const std::string&) { return true; }), always);
    kill_when("half of an image", more(is_half), [&] { return Count(is_half) > 0; });
    kill_when("an image", more(is_image), always);
    kill_when("a record", more(is_record), always);

    Run(Arguments(out_), 0);
    ExpectSame(ContentOrNone(out_), expected);
  }
}

TEST_F(HarmonizeCommand, KilledAtFourMomentsEndsWithTheBytesOfAnUndisturbedRun) {
  KillAtManyMoments(1);
}

using SlowHarmonizeCommand = HarmonizeCommand;
TEST_F(SlowHarmonizeCommand, KilledAtManyMomentsEndsWithTheBytesOfAnUndisturbedRun) {
  KillAtManyMoments(5);
}

TEST_F(HarmonizeCommand, KilledGoesOnWithAnotherPlanAsIfNothingHadBeen) {
  MakeCohort({64, 64, 48});
  const std::vector<std::string> other = {"--normalize", "zscore", "--mask", "otsu"};
  const fs::path undisturbed = folder_.path() / "undisturbed";
  Run(Arguments(undisturbed, other), 0);

  EXPECT_TRUE(RunAndKill(Arguments(out_), [this] {
    return fs::exists(out_ / "sub-2/anat/sub-2_T1w.nii.gz") ||
           fs::exists(out_ / "sub-1/anat/sub-1_T1w.nii.gz");
  }));
  Run(Arguments(out_, other), 0);

  ExpectSame(ContentOrNone(out_), ContentOrNone(undisturbed));
}

// A limit on the size of files stands for a full disk: the write fails in the same place.
TEST_F(HarmonizeCommand, WithoutRoomForAnImageNamesTheFolderAndLeavesNoPartOfIt) {
  MakeCohort({64, 64, 48});
  std::string command = "ulimit -f 64; exec";
  for (const std::string& argument : Arguments(out_)) command += " '" + argument + "'";

  Run({"/bin/sh", "-c", command}, 7);

  EXPECT_THAT(TextOf(log()), AllOf(HasSubstr("cannot write sub-"), HasSubstr("File too large"),
                                   HasSubstr("(in " + out_.string() + "/sub-")));
  for (const auto& [name, bytes] : ContentOrNone(out_)) {
    EXPECT_FALSE(IsTemporary(name)) << name;
    EXPECT_TRUE(bytes == TextOf(in_ / name)) << name << " is no whole copy";
  }
  Run(Arguments(out_), 0);
  const fs::path undisturbed = folder_.path() / "undisturbed";
  Run(Arguments(undisturbed), 0);
  ExpectSame(ContentOrNone(out_), ContentOrNone(undisturbed));
}

std::string NyulStudy(const std::string& more = "") {
  return "name = \"blob\"\nchannels = [\"T1w\"]\nlabels = [\"blob\"]\n[harmonization]\n"
         "normalize = \"nyul\"\n" +
         more +
         "[network]\nfeatures = [2, 4]\nstrides = [[1, 1, 1], [2, 2, 2]]\n"
         "[training]\npatch_size = [8, 8, 8]\n";
}

TEST_F(HarmonizeCommand, TakesTheSitesStandardFromAModelOfTheStudy) {
  MakeCohort({12, 10, 9});
  const fs::path toml = folder_.path() / "study.toml";
  const fs::path model = folder_.path() / "model.safetensors";
  const fs::path other = folder_.path() / "other.safetensors";
  WriteText(toml, NyulStudy());
  ASSERT_OK_AND_ASSIGN(Study study, LoadStudy(toml));
  for (int landmark = 1; landmark <= 11; ++landmark) {
    study.harmonization.standard.push_back(9 * landmark);
  }
  ASSERT_OK(WriteSafetensors(model, {}, WeightsMetadataOf(study, 1)));
  const std::string digest = HarmonizationDigest(study.harmonization);
  study.harmonization.mask = HarmonizationPlan::Mask::kOtsu;
  ASSERT_OK(WriteSafetensors(other, {}, WeightsMetadataOf(study, 1)));

  Run(Arguments(out_, {"--study", toml}), 6);
  EXPECT_THAT(TextOf(log()), HasSubstr("--model"));
  Run(Arguments(out_, {"--study", toml, "--model", other}), 2);
  EXPECT_THAT(TextOf(log()), AllOf(HasSubstr(HarmonizationDigest(study.harmonization)),
                                   HasSubstr(digest), HasSubstr("other.safetensors")));
  Run(Arguments(out_, {"--model", model}), 2);
  EXPECT_THAT(TextOf(log()), HasSubstr("--study"));
  EXPECT_FALSE(fs::exists(out_));

  Run(Arguments(out_, {"--study", toml, "--model", model}), 0);
  const json record = json::parse(TextOf(out_ / "sub-1/anat/sub-1_T1w.harmonization.json"));
  EXPECT_EQ(record["harmonization_sha256"], digest);
  EXPECT_EQ(record["channel"], "T1w");
}

TEST_F(HarmonizeCommand, RefusesAFormThatTheStudyDoesNotReadAndTakesItWithoutOne) {
  MakeCohort({12, 10, 9});
  const fs::path toml = folder_.path() / "study.toml";
  WriteText(toml, NyulStudy("standard = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]\n"));
  const fs::path config = folder_.path() / "client.toml";
  WriteText(config, fmt::format("server = \"a:1\"\nsite = \"north\"\n[[cohort]]\nfolder = \"{}\"\n"
                                "geometry = \"qform\"\n",
                                in_.string()));
  const auto geometry = [this] {
    return json::parse(TextOf(out_ / "sub-1/anat/sub-1_T1w.harmonization.json"))["geometry"];
  };
  const std::vector<std::string> study{"--config", config, "--study", toml};

  Run(Arguments(out_, {"--config", config, "--study", toml, "--geometry", "sform"}), 2);
  EXPECT_THAT(TextOf(log()),
              AllOf(HasSubstr("--geometry sform contradicts"), HasSubstr("geometry = \"qform\"")));
  EXPECT_FALSE(fs::exists(out_));

  Run(Arguments(out_, study), 0);
  EXPECT_EQ(geometry(), "qform");
  Run(Arguments(out_, {"--config", config, "--geometry", "sform"}), 0);
  EXPECT_EQ(geometry(), "sform") << "without a study the command line decides";
  Run(Arguments(out_, {"--study", toml, "--geometry", "sform"}), 0);
  EXPECT_EQ(geometry(), "sform") << "no client.toml names a form";
}

// A link that leads nowhere stands for a folder that cannot be searched just now.
TEST_F(HarmonizeCommand, ReadsAsTheInnermostCohortOfClientTomlSays) {
  MakeCohort({12, 10, 9});
  fs::create_symlink("loop", folder_.path() / "loop");
  const fs::path config = folder_.path() / "client.toml";
  const auto harmonised_as = [&](const std::string& cohorts) {
    WriteText(config, "server = \"a:1\"\nsite = \"north\"\n" + cohorts);
    Run(Arguments(out_, {"--config", config}), 0);
    return json::parse(TextOf(out_ / "sub-1/anat/sub-1_T1w.harmonization.json"))["geometry"];
  };
  const auto cohort = [](const std::string& name, const fs::path& folder,
                         const std::string& geometry) {
    return fmt::format("[[cohort]]\nname = \"{}\"\nfolder = \"{}\"\ngeometry = \"{}\"\n", name,
                       folder.string(), geometry);
  };

  EXPECT_EQ(harmonised_as(cohort("a", folder_.path() / "loop/x", "sform")), "agreed");
  EXPECT_EQ(harmonised_as(cohort("a", folder_.path(), "sform") + cohort("b", in_, "qform")),
            "qform");
}

}  // namespace
}  // namespace isoscan
