#include "common/config/config_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include <sys/stat.h>
#include <unistd.h>

namespace isoscan {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr ConfigReader::IntegerRange kRounds = {.minimum = 1, .maximum = 10'000};

ConfigReader Read(std::string_view text) {
  absl::StatusOr<ConfigReader> reader = ConfigReader::Parse(text, "study.toml");
  if (!reader.ok()) throw std::invalid_argument(reader.status().ToString());
  return *std::move(reader);
}

TEST(ConfigReader, ReadsEveryTypeOfValue) {
  ConfigReader reader = Read(R"(
name = "hippocampus"
norm = "batch"
rounds = 10
learning_rate = 3e-5
weight = 1
mirror = true
channels = ["T1w", "T2w"]
patch_size = [40, 56, 40]
spacing_mm = [1, 0.5, 2.0]
strides = [[1, 1, 1], [2, 2]]
caudate = [71, "head", 72]
putamen = 73
)");

  EXPECT_EQ(reader.Text("name"), "hippocampus");
  EXPECT_EQ(reader.Choice("norm", {"instance", "batch"}), "batch");
  EXPECT_EQ(reader.Integer("rounds", kRounds), 10);
  EXPECT_EQ(reader.Number("learning_rate", {}), 3e-5);
  EXPECT_EQ(reader.Number("weight", {}), 1.0);
  EXPECT_TRUE(reader.Flag("mirror"));
  EXPECT_THAT(reader.Texts("channels"), ElementsAre("T1w", "T2w"));
  EXPECT_THAT(reader.Integers("patch_size", {}), ElementsAre(40, 56, 40));
  EXPECT_THAT(reader.Numbers("spacing_mm", {}), ElementsAre(1.0, 0.5, 2.0));
  EXPECT_THAT(reader.IntegerLists("strides", {}),
              ElementsAre(ElementsAre(1, 1, 1), ElementsAre(2, 2)));
  EXPECT_THAT(reader.Values("caudate"), ElementsAre("71", "head", "72"));
  EXPECT_THAT(reader.Values("putamen"), ElementsAre("73"));
  EXPECT_OK(reader.Finish());
}

TEST(ConfigReader, AnswersWithTheFallbackForAnAbsentKey) {
  ConfigReader reader = Read("");

  EXPECT_EQ(reader.Text("name", "none"), "none");
  EXPECT_EQ(reader.Choice("norm", {"instance", "batch"}, "instance"), "instance");
  EXPECT_EQ(reader.Integer("rounds", kRounds, 7), 7);
  EXPECT_EQ(reader.Number("rate", {}, 0.5), 0.5);
  EXPECT_TRUE(reader.Flag("mirror", true));
  EXPECT_THAT(reader.Texts("channels", {{"T1w"}}), ElementsAre("T1w"));
  EXPECT_THAT(reader.Integers("patch_size", {}, {{8}}), ElementsAre(8));
  EXPECT_THAT(reader.Numbers("spacing_mm", {}, {{1.0}}), ElementsAre(1.0));
  EXPECT_THAT(reader.IntegerLists("strides", {}, {{{1, 2}}}), ElementsAre(ElementsAre(1, 2)));
  EXPECT_THAT(reader.Values("caudate", {{"1"}}), ElementsAre("1"));
  EXPECT_EQ(reader.Table("network").Integer("levels", {}, 3), 3);
  EXPECT_THAT(reader.Tables("cohort"), IsEmpty());
  EXPECT_FALSE(reader.Has("name"));
  EXPECT_OK(reader.Finish());
}

TEST(ConfigReader, NamesTheLineTheValueAndTheRange) {
  ConfigReader reader = Read("# how many\n\nrounds = 0\n");

  EXPECT_EQ(reader.Integer("rounds", kRounds), 1);

  EXPECT_THAT(reader.Finish(),
              StatusIs(kInvalid, "study.toml:3: rounds is 0, allowed are 1 to 10000"));
}

TEST(ConfigReader, SaysOpenRangesInWords) {
  ConfigReader reader = Read("steps = 0\n");
  reader.Integer("steps", {.minimum = 1});
  EXPECT_THAT(reader.Finish(), StatusIs(kInvalid, HasSubstr("steps is 0, allowed are 1 or more")));

  reader = Read("rate = -0.5\n");
  reader.Number("rate", {.minimum = 0});
  EXPECT_THAT(reader.Finish(),
              StatusIs(kInvalid, HasSubstr("rate is -0.5, allowed are 0 or more")));

  reader = Read("share = 1.5\n");
  reader.Number("share", {.maximum = 1});
  EXPECT_THAT(reader.Finish(), StatusIs(kInvalid, HasSubstr("allowed are 1 or less")));
}

TEST(ConfigReader, RefusesNumbersThatAreNotFinite) {
  for (const char* text : {"rate = nan\n", "rate = inf\n", "rate = -inf\n"}) {
    ConfigReader reader = Read(text);
    reader.Number("rate", {});
    EXPECT_THAT(reader.Finish(), StatusIs(kInvalid, AllOf(StartsWith("study.toml:1: rate is "),
                                                          EndsWith("which is no finite number"))));
  }
}

TEST(ConfigReader, NamesTheChoices) {
  ConfigReader reader = Read("[network]\nnorm = \"layer\"\n");

  EXPECT_EQ(reader.Table("network").Choice("norm", {"instance", "batch"}), "instance");

  EXPECT_THAT(
      reader.Finish(),
      StatusIs(kInvalid, "study.toml:2: network.norm is \"layer\", allowed are instance, batch"));
}

TEST(ConfigReader, NamesAWrongType) {
  const auto problem_of = [](const char* text, const auto& read) {
    ConfigReader reader = Read(text);
    read(reader);
    return reader.Finish();
  };

  EXPECT_THAT(problem_of("rounds = \"ten\"", [](auto& r) { r.Integer("rounds", kRounds); }),
              StatusIs(kInvalid,
                       "study.toml:1: rounds is \"ten\", expected a whole number "
                       "(1 to 10000)"));
  EXPECT_THAT(problem_of("rounds = 3.0", [](auto& r) { r.Integer("rounds", {}); }),
              StatusIs(kInvalid, HasSubstr("rounds is 3.0, expected a whole number")));
  EXPECT_THAT(problem_of("rate = true", [](auto& r) { r.Number("rate", {}); }),
              StatusIs(kInvalid, HasSubstr("rate is true, expected a number")));
  EXPECT_THAT(problem_of("name = 5", [](auto& r) { r.Text("name"); }),
              StatusIs(kInvalid, HasSubstr("name is 5, expected text in quotes")));
  EXPECT_THAT(problem_of("name = [1]", [](auto& r) { r.Text("name"); }),
              StatusIs(kInvalid, HasSubstr("name is an array, expected text in quotes")));
  EXPECT_THAT(problem_of("mirror = 1", [](auto& r) { r.Flag("mirror"); }),
              StatusIs(kInvalid, HasSubstr("mirror is 1, expected true or false")));
  EXPECT_THAT(problem_of("channels = \"T1w\"", [](auto& r) { r.Texts("channels"); }),
              StatusIs(kInvalid, HasSubstr("channels is \"T1w\", expected an array of texts")));
  EXPECT_THAT(problem_of("network = 3", [](auto& r) { r.Table("network"); }),
              StatusIs(kInvalid, HasSubstr("network is 3, expected a table [network]")));
  EXPECT_THAT(problem_of("[cohort]", [](auto& r) { r.Tables("cohort"); }),
              StatusIs(kInvalid, HasSubstr("cohort is a table, expected tables [[cohort]]")));
  EXPECT_THAT(problem_of("caudate = [true]", [](auto& r) { r.Values("caudate"); }),
              StatusIs(kInvalid, HasSubstr("entry 1 of caudate is true, expected a whole number "
                                           "or text in quotes")));
}

TEST(ConfigReader, NamesTheEntryOfAnArrayAndItsOwnLine) {
  ConfigReader reader = Read("strides = [\n  [1, 1, 1],\n  [2, \"x\", 2],\n]\n");

  EXPECT_THAT(reader.IntegerLists("strides", {}, {{{1}}}), ElementsAre(ElementsAre(1)));

  EXPECT_THAT(reader.Finish(), StatusIs(kInvalid, StartsWith("study.toml:3: entry 2 of entry 2 of "
                                                             "strides is \"x\", expected")));
}

TEST(ConfigReader, SuggestsTheNearestKeyForAnUnknownOne) {
  ConfigReader reader = Read("[rounds]\nrounds = 3\nagregation = \"fedavg\"\n");
  ConfigReader rounds = reader.Table("rounds");
  rounds.Integer("rounds", kRounds);
  rounds.Text("aggregation", "fedavg");

  EXPECT_THAT(reader.Finish(), StatusIs(kInvalid,
                                        "study.toml:3: unknown key rounds.agregation, did "
                                        "you mean rounds.aggregation?"));
}

TEST(ConfigReader, SuggestsTheTableInWhichAnUnknownKeyIsKnown) {
  ConfigReader reader = Read("batch_size = 4\n");
  reader.Text("name", "");
  reader.Table("training").Integer("batch_size", {}, 2);

  EXPECT_THAT(reader.Finish(), StatusIs(kInvalid,
                                        "study.toml:1: unknown key batch_size, did you "
                                        "mean training.batch_size?"));
}

TEST(ConfigReader, ListsTheKnownKeysWhenNoneIsNear) {
  ConfigReader reader = Read("[rounds]\ncolour = 1\n");
  ConfigReader rounds = reader.Table("rounds");
  rounds.Integer("rounds", kRounds, 1);
  rounds.Text("aggregation", "fedavg");

  EXPECT_THAT(reader.Finish(), StatusIs(kInvalid,
                                        "study.toml:2: unknown key rounds.colour; known "
                                        "here: aggregation, rounds"));
}

TEST(ConfigReader, NeverSuggestsAKeyThatIsThere) {
  ConfigReader reader = Read("site = 1\nsites = 2\n");
  reader.Integer("site", {});

  EXPECT_THAT(reader.Finish(),
              StatusIs(kInvalid, HasSubstr("unknown key sites; known here: site")));
}

TEST(ConfigReader, RefusesATableThatNobodyRead) {
  ConfigReader reader = Read("name = \"a\"\n\n[netwrok]\nlevels = 3\n");
  reader.Text("name");
  reader.Table("network");

  EXPECT_THAT(reader.Finish(),
              StatusIs(kInvalid, "study.toml:3: unknown key netwrok, did you mean network?"));
}

TEST(ConfigReader, NamesAMissingKeyWithTheLineOfItsTable) {
  ConfigReader reader = Read("\n[network]\nlevels = 3\n");
  ConfigReader network = reader.Table("network");
  network.Integer("levels", {});
  EXPECT_THAT(network.Integers("features", {}), IsEmpty());
  EXPECT_THAT(reader.Finish(), StatusIs(kInvalid, "study.toml:2: network.features is missing"));

  reader = Read("");
  reader.Text("name");
  EXPECT_THAT(reader.Finish(), StatusIs(kInvalid, "study.toml: name is missing"));

  reader = Read("");
  reader.Table("network").Text("norm");
  EXPECT_THAT(reader.Finish(), StatusIs(kInvalid, "study.toml: network.norm is missing"));
}

TEST(ConfigReader, PrefersAMisspeltKeyToTheMissingOne) {
  ConfigReader reader = Read("chanels = [\"T1w\"]\n");
  reader.Texts("channels");

  EXPECT_THAT(reader.Finish(),
              StatusIs(kInvalid, "study.toml:1: unknown key chanels, did you mean channels?"));
}

TEST(ConfigReader, TellsTheProblemOfTheFirstLineWhateverTheOrderOfReading) {
  ConfigReader reader = Read("a = 1\nb = \"x\"\nc = \"y\"\n");
  reader.Integer("c", {});
  reader.Integer("b", {});
  reader.Integer("a", {});

  EXPECT_THAT(reader.Finish(), StatusIs(kInvalid, StartsWith("study.toml:2: b is")));
}

TEST(ConfigReader, ReadsArraysOfTablesInOrder) {
  ConfigReader reader = Read(R"(
[[cohort]]
name = "north"
[cohort.labels]
putamen = [2]
caudate = [1]
[[cohort]]
name = "south"
[[cohort]]
)");
  std::vector<ConfigReader> cohorts = reader.Tables("cohort");

  ASSERT_EQ(cohorts.size(), 3);
  ConfigReader labels = cohorts[0].Table("labels");
  EXPECT_THAT(labels.Keys(), ElementsAre("putamen", "caudate"));
  for (const std::string& label : labels.Keys()) labels.Integers(label, {});
  EXPECT_EQ(cohorts[0].Text("name"), "north");
  EXPECT_EQ(cohorts[1].Text("name"), "south");
  EXPECT_OK(reader.Finish());

  cohorts[2].Text("name");
  EXPECT_THAT(reader.Finish(), StatusIs(kInvalid, "study.toml:9: cohort.name is missing"));
}

TEST(ConfigReader, PlacesTheCallersProblemAtTheLineOfItsKey) {
  ConfigReader reader = Read("[network]\nfeatures = [16, 32]\nstrides = [[1, 1, 1]]\n");
  ConfigReader network = reader.Table("network");
  network.Integers("features", {});
  network.IntegerLists("strides", {});
  network.Refuse("strides", "has 1 level, features has 2");

  EXPECT_THAT(reader.Finish(),
              StatusIs(kInvalid, "study.toml:3: network.strides has 1 level, features has 2"));
}

TEST(ConfigReader, NamesLineAndColumnOfTextThatIsNotToml) {
  EXPECT_THAT(ConfigReader::Parse("a = 1\nb = = 2\n", "study.toml"),
              StatusIs(kInvalid, StartsWith("study.toml:2:5: ")));
  EXPECT_THAT(ConfigReader::Parse("a = 1\na = 2\n", "study.toml"),
              StatusIs(kInvalid, StartsWith("study.toml:2:")));
  EXPECT_THAT(ConfigReader::Parse("a = \"\xff\"\n", "study.toml"),
              StatusIs(kInvalid, StartsWith("study.toml:1:")));
}

TEST(ConfigReader, LoadsAFileAndNamesItsPath) {
  const TemporaryDirectory folder;
  const std::filesystem::path path = folder.path() / "client.toml";
  std::ofstream(path) << "site = 3\n";

  ASSERT_OK_AND_ASSIGN(ConfigReader reader, ConfigReader::Load(path));
  reader.Text("site");

  EXPECT_THAT(reader.Finish(), StatusIs(kInvalid, StartsWith(path.string() + ":1: site is 3")));
}

TEST(ConfigReader, ReadsNoFurtherThanAnyConfigurationGoes) {
  EXPECT_THAT(ConfigReader::Load("/dev/zero"),
              StatusIs(kInvalid, HasSubstr("more than 1048576 bytes")));
}

TEST(ConfigReader, TellsAMissingFileFromAFolderAndAForbiddenFile) {
  const TemporaryDirectory folder;
  const std::filesystem::path path = folder.path() / "client.toml";
  EXPECT_THAT(ConfigReader::Load(path),
              StatusIs(absl::StatusCode::kNotFound, "there is no file " + path.string()));
  EXPECT_THAT(ConfigReader::Load(folder.path()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("is a folder")));

  if (geteuid() == 0) GTEST_SKIP() << "root may read every file";
  std::ofstream(path) << "site = 3\n";
  chmod(path.c_str(), 0);
  EXPECT_THAT(ConfigReader::Load(path),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("Permission denied")));
}

}  // namespace
}  // namespace isoscan
