#include "common/study/study.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <numeric>
#include <ostream>
#include <string>
#include <vector>

#include "common/weights/sha256.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

// The smallest study: every key that has no default, and nothing else.
constexpr char kSmallest[] = R"(name = "hippocampus"
channels = ["T1w"]
labels = ["anterior", "posterior"]

[network]
features = [16, 32, 64, 128]
strides = [[1,1,1],[2,2,2],[2,2,2],[2,2,2]]

[training]
patch_size = [40, 56, 40]
)";

constexpr char kComplete[] = R"(name = "hippocampus"
description = "both ends of the hippocampus"
seed = 9
channels = ["T1w", "FLAIR"]
labels = ["anterior", "posterior"]
sites = ["st-marys", "north"]

[held_out]
rule = "every"
fraction = 0.3
every = 4

[harmonization]
mask = "given"
threshold = 0.2
outside = "zero"
normalize = "instance"
contrasts = ["T1w", "FLAIR"]
tissue = "csf"
spacing_mm = [3.0, 1.0, 0.0]
interpolation = "bspline"

[harmonization.n4]
shrink = 2
levels = 3
iterations = 40
convergence = 1e-4
control_points = 5

[network]
features = [8, 16, 32]
strides = [[1,1,1],[1,2,2],[2,2,2]]
kernels = [[1,3,3],[3,3,3],[3,5,3]]
convolutions_per_stage = 3
norm = "batch"

[training]
patch_size = [10, 64, 32]
batch_size = 3
steps_per_round = 17
optimizer = "adamw"
learning_rate = 0.001
momentum = 0.9
weight_decay = 0
gradient_norm_limit = 1
foreground_fraction = 0.5
deep_supervision = true
augmentation = "nnunet"
mirror_axes = [0, 2]
intensity_augmentation = 0
proximal = 0.01
random_numbers = "shared"
precision = "mixed"

[evaluation]
overlap = 0.25
local_only = true
certificate = true

[rounds]
rounds = 3
aggregation = "fedavg"
maximum_site_weight = 0.4
no_progress_minutes = 0.5
round_deadline_minutes = 90

[rounds.quorum]
policy = "at_least"
minimum_sites = 2
minimum_case_fraction = 0.75
required_sites = ["north"]
)";

// `text` with `from` replaced by `to`; the test fails when `from` is not there.
std::string With(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

TEST(ParseStudy, FillsInTheDefaults) {
  const auto study = ParseStudy(kSmallest, "study.toml");

  ASSERT_OK(study);
  EXPECT_EQ(study->name, "hippocampus");
  EXPECT_EQ(study->seed, 1U);
  EXPECT_THAT(study->sites, IsEmpty());
  EXPECT_EQ(study->classes(), 3);
  EXPECT_EQ(study->held_out.kind, HeldOutRule::Kind::kHash);
  EXPECT_EQ(study->held_out.fraction, 0.2);
  EXPECT_EQ(study->harmonization, HarmonizationPlan());
  EXPECT_EQ(study->network.stages(), 4U);
  EXPECT_THAT(study->network.kernels, testing::Each(Triple{3, 3, 3}));
  EXPECT_EQ(study->network.convolutions_per_stage, 2);
  EXPECT_EQ(study->network.norm, NetworkPlan::Norm::kInstance);
  EXPECT_EQ(study->training.batch_size, 2);
  EXPECT_EQ(study->training.steps_per_round, 50);
  EXPECT_EQ(study->training.learning_rate, 0.01);
  EXPECT_THAT(study->training.mirror_axes, IsEmpty());
  EXPECT_EQ(study->training.augmentation, TrainingPlan::Augmentation::kIntensity);
  EXPECT_EQ(study->training.proximal, 0);
  EXPECT_EQ(study->rounds.rounds, 10);
  EXPECT_EQ(study->rounds.strategy.kind, StrategyPlan::Kind::kFedAvg);
  EXPECT_TRUE(study->rounds.quorum.all);
  EXPECT_EQ(study->rounds.no_progress_limit, std::chrono::minutes(30));
  EXPECT_EQ(study->rounds.round_deadline, std::chrono::hours(24));
}

TEST(ParseStudy, ReadsEveryKey) {
  const auto study = ParseStudy(kComplete, "study.toml");

  ASSERT_OK(study);
  EXPECT_EQ(study->description, "both ends of the hippocampus");
  EXPECT_EQ(study->seed, 9U);
  EXPECT_THAT(study->channels, ElementsAre("T1w", "FLAIR"));
  EXPECT_THAT(study->labels, ElementsAre("anterior", "posterior"));
  EXPECT_THAT(study->sites, ElementsAre("st-marys", "north"));
  EXPECT_EQ(study->held_out.kind, HeldOutRule::Kind::kEvery);
  EXPECT_EQ(study->held_out.fraction, 0.3);
  EXPECT_EQ(study->held_out.every, 4);
  EXPECT_EQ(
      study->harmonization.n4,
      (N4Plan{
          .shrink = 2, .levels = 3, .iterations = 40, .convergence = 1e-4, .control_points = 5}));
  EXPECT_EQ(study->harmonization.normalize, HarmonizationPlan::Normalizer::kInstance);
  EXPECT_EQ(study->harmonization.tissue, HarmonizationPlan::Tissue::kCsf);
  EXPECT_EQ(study->harmonization.mask, HarmonizationPlan::Mask::kGiven);
  EXPECT_EQ(study->harmonization.threshold, 0.2);
  EXPECT_EQ(study->harmonization.outside, HarmonizationPlan::Outside::kZero);
  EXPECT_THAT(study->harmonization.spacing_mm, ElementsAre(3, 1, 0));
  EXPECT_EQ(study->harmonization.interpolation, HarmonizationPlan::Interpolation::kBSpline);
  EXPECT_THAT(study->network.features, ElementsAre(8, 16, 32));
  EXPECT_THAT(study->network.strides,
              ElementsAre(Triple{1, 1, 1}, Triple{1, 2, 2}, Triple{2, 2, 2}));
  EXPECT_THAT(study->network.kernels,
              ElementsAre(Triple{1, 3, 3}, Triple{3, 3, 3}, Triple{3, 5, 3}));
  EXPECT_EQ(study->network.convolutions_per_stage, 3);
  EXPECT_EQ(study->network.norm, NetworkPlan::Norm::kBatch);
  EXPECT_EQ(study->training.patch_size, (Triple{10, 64, 32}));
  EXPECT_EQ(study->training.batch_size, 3);
  EXPECT_EQ(study->training.steps_per_round, 17);
  EXPECT_EQ(study->training.optimizer, TrainingPlan::Optimizer::kAdamW);
  EXPECT_EQ(study->training.learning_rate, 0.001);
  EXPECT_EQ(study->training.momentum, 0.9);
  EXPECT_EQ(study->training.weight_decay, 0);
  EXPECT_EQ(study->training.gradient_norm_limit, 1);
  EXPECT_EQ(study->training.foreground_fraction, 0.5);
  EXPECT_TRUE(study->training.deep_supervision);
  EXPECT_THAT(study->training.mirror_axes, ElementsAre(0, 2));
  EXPECT_EQ(study->training.augmentation, TrainingPlan::Augmentation::kNnunet);
  EXPECT_EQ(study->training.intensity_augmentation, 0);
  EXPECT_EQ(study->training.proximal, 0.01);
  EXPECT_EQ(study->training.random_numbers, TrainingPlan::RandomNumbers::kShared);
  EXPECT_EQ(study->training.precision, TrainingPlan::Precision::kMixed);
  EXPECT_EQ(study->evaluation.overlap, 0.25);
  EXPECT_TRUE(study->evaluation.local_only);
  EXPECT_TRUE(study->evaluation.certificate);
  EXPECT_EQ(study->rounds.rounds, 3);
  EXPECT_EQ(study->rounds.maximum_site_weight, 0.4);
  EXPECT_EQ(study->rounds.no_progress_limit, std::chrono::seconds(30));
  EXPECT_EQ(study->rounds.round_deadline, std::chrono::minutes(90));
  EXPECT_FALSE(study->rounds.quorum.all);
  EXPECT_EQ(study->rounds.quorum.minimum_sites, 2);
  EXPECT_EQ(study->rounds.quorum.minimum_case_fraction, 0.75);
  EXPECT_THAT(study->rounds.quorum.required_sites, ElementsAre("north"));
}

TEST(ParseStudy, ReadsAResidualEncoder) {
  const std::string residual =
      With(kComplete, "convolutions_per_stage = 3\nnorm = \"batch\"",
           "kind = \"residual\"\nblocks_per_stage = [1, 3, 4]\nnorm = \"none\"");

  const auto study = ParseStudy(residual, "study.toml");

  ASSERT_OK(study);
  EXPECT_EQ(study->network.kind, NetworkPlan::Kind::kResidual);
  EXPECT_THAT(study->network.blocks_per_stage, ElementsAre(1, 3, 4));
  EXPECT_EQ(study->network.convolutions_per_stage, 1);
  EXPECT_EQ(study->network.norm, NetworkPlan::Norm::kNone);
  EXPECT_THAT(ParseStudy(With(residual, "[1, 3, 4]", "[1, 3]"), "study.toml"),
              StatusIs(StatusCode::kInvalidArgument,
                       HasSubstr("blocks_per_stage has 2 numbers, features has 3 stages")));
  // Blocks that nobody builds are a misunderstanding.
  EXPECT_THAT(ParseStudy(With(residual, "kind = \"residual\"\n", ""), "study.toml"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("blocks_per_stage")));
}

TEST(ParseStudy, KeepsTheTextAndItsDigest) {
  const auto study = ParseStudy(kSmallest, "study.toml");
  ASSERT_OK(study);
  EXPECT_EQ(study->toml, kSmallest);
  EXPECT_EQ(study->digest, Sha256Of(kSmallest));

  // A comment changes nothing that is done, and yet it is another text to approve.
  const auto commented = ParseStudy(std::string(kSmallest) + "# agreed\n", "study.toml");
  ASSERT_OK(commented);
  EXPECT_NE(commented->digest, study->digest);
}

// What is refused: the change to a good study and what the message must say.
struct Refusal {
  std::string name;
  std::string from;
  std::string to;
  std::string words;

  friend void PrintTo(const Refusal& refusal, std::ostream* out) { *out << refusal.name; }
};

class RefusedStudy : public testing::TestWithParam<Refusal> {};

TEST_P(RefusedStudy, NamesTheKeyAndWhatIsWrong) {
  const Refusal& refusal = GetParam();
  EXPECT_THAT(ParseStudy(With(kComplete, refusal.from, refusal.to), "study.toml"),
              StatusIs(StatusCode::kInvalidArgument,
                       AllOf(StartsWith("study.toml"), HasSubstr(refusal.words))));
}

INSTANTIATE_TEST_SUITE_P(
    All, RefusedStudy,
    testing::Values(
        Refusal{"UnknownKey", "seed = 9", "sed = 9", "sed"},
        Refusal{"TableOfAnEarlierVersion", "[harmonization]", "[preprocessing]",
                "preprocessing is the table of an earlier version: call it [harmonization]"},
        Refusal{"NoName", "name = \"hippocampus\"\n", "", "name"},
        Refusal{"NameOfAPath", "\"hippocampus\"", "\"../etc\"", "name is '../etc'"},
        Refusal{"NameWithCapitals", "\"hippocampus\"", "\"Hippocampus\"", "lower-case letters"},
        Refusal{"NoChannel", "[\"T1w\", \"FLAIR\"]", "[]", "channels is empty"},
        Refusal{"NoLabel", "[\"anterior\", \"posterior\"]", "[]", "labels is empty"},
        Refusal{"LabelTwice", "\"posterior\"]", "\"anterior\"]", "labels has 'anterior' twice"},
        Refusal{"ChannelTwice", "\"FLAIR\"]", "\"T1w\"]", "channels has 'T1w' twice"},
        Refusal{"BackgroundAsLabel", "\"posterior\"]", "\"background\"]", "'background'"},
        Refusal{"LabelWithALineBreak", "\"posterior\"]", R"("a\nb"])", "printable"},
        Refusal{"SiteTwice", "[\"st-marys\", \"north\"]", "[\"north\", \"north\"]",
                "sites has 'north' twice"},
        Refusal{"SiteThatIsNoName", "\"st-marys\"", "\"st marys\"", "sites has 'st marys'"},
        Refusal{"NegativeSeed", "seed = 9", "seed = -1", "seed is -1"},
        Refusal{"InitialWeightsThatAreNoDigest", "norm = \"batch\"",
                "norm = \"batch\"\ninitial_weights = \"start.safetensors\"",
                "initial_weights is no SHA-256"},
        Refusal{"EverythingHeldOut", "every = 4", "every = 1", "every is 1"},
        Refusal{"ZeroOutsideOfAnOtsuMask", "mask = \"given\"", "mask = \"otsu\"",
                "outside is 'zero'"},
        Refusal{"ZeroOutsideOfRawIntensities", "normalize = \"instance\"", "normalize = \"none\"",
                "outside is 'zero'"},
        Refusal{"StandardForOneOfTwoChannels", "normalize = \"instance\"",
                "normalize = \"lsq\"\nstandard = [1, 2, 3]",
                "standard has 3 numbers, 2 channels with normalize = \"lsq\" have 6"},
        Refusal{"StandardThatFalls", "normalize = \"instance\"",
                "normalize = \"lsq\"\nstandard = [1, 2, 3, 1, 3, 2]",
                "standard does not ascend: 2 follows 3"},
        Refusal{"ContrastThatNobodyKnows",
                "normalize = \"instance\"\ncontrasts = [\"T1w\", \"FLAIR\"]",
                "normalize = \"kde\"\ncontrasts = [\"T1w\", \"CT\"]", "contrasts has 'CT'"},
        Refusal{"ContrastForOneOfTwoChannels",
                "normalize = \"instance\"\ncontrasts = [\"T1w\", \"FLAIR\"]",
                "normalize = \"kde\"\ncontrasts = [\"T1w\"]", "contrasts has 1 entries"},
        Refusal{"NoShrinking", "shrink = 2", "shrink = 0", "harmonization.n4.shrink is 0"},
        Refusal{"UnknownKeyOfN4", "shrink = 2", "shrnik = 2", "shrnik"},
        Refusal{"N4ThatIsNoTable",
                "[harmonization.n4]\nshrink = 2\nlevels = 3\niterations = 40\n"
                "convergence = 1e-4\ncontrol_points = 5\n",
                "n4 = true\n", "n4"},
        Refusal{"TwoSpacings", "[3.0, 1.0, 0.0]", "[3.0, 1.0]", "spacing_mm has 2 numbers"},
        Refusal{"SpacingThatNoMachineHolds", "[3.0, 1.0, 0.0]", "[3.0, 1e-6, 0.0]",
                "spacing_mm has 1e-06 mm"},
        Refusal{"EscapeInDescription", "both ends", "both \\u001b[8mends",
                "description has control characters"},
        Refusal{"EscapeInText", "both ends", "both \x1b[8mends", "control characters"},
        Refusal{"TextThatTurns", "seed =", "# \u202e\nseed =", "direction of writing"},
        Refusal{"NegativeSpacing", "[3.0, 1.0, 0.0]", "[3.0, -1.0, 0.0]", "spacing_mm"},
        Refusal{"OneStage", "[8, 16, 32]", "[8]", "has 1 stages, allowed are 2 to 8"},
        Refusal{"NoFeatures", "[8, 16, 32]", "[8, 0, 32]", "features"},
        Refusal{"FewerStridesThanStages", "[[1,1,1],[1,2,2],[2,2,2]]", "[[1,1,1],[1,2,2]]",
                "strides has 2 triples, features has 3 stages"},
        Refusal{"FirstStageWithAStride", "[[1,1,1],[1,2,2]", "[[1,2,2],[1,2,2]",
                "strides must begin with [1, 1, 1]"},
        Refusal{"StrideOfTwoNumbers", "[1,2,2]", "[2,2]", "strides has 2 numbers where 3"},
        Refusal{"EvenKernel", "[3,5,3]", "[3,4,3]", "kernels has [3, 4, 3]"},
        Refusal{"AbsurdNetwork", "[8, 16, 32]", "[2048, 2048, 2048]", "parameters, allowed are"},
        Refusal{"PatchThatTheStridesDoNotDivide", "[10, 64, 32]", "[10, 66, 32]",
                "patch_size is 66 along y, which the strides' product 4 does not divide; use 64 "
                "or 68"},
        Refusal{"PatchSmallerThanTheStrides", "[10, 64, 32]", "[10, 64, 3]",
                "3 along x, which the strides' product 4 does not divide; use 4"},
        Refusal{"PatchOfTwoNumbers", "[10, 64, 32]", "[64, 32]", "patch_size has 2 numbers"},
        Refusal{"PatchThatFillsAnyMemory", "[10, 64, 32]", "[1024, 1024, 1024]",
                "voxels, allowed are"},
        Refusal{"SingleVoxelAtTheBottom", "patch_size = [10, 64, 32]\nbatch_size = 3",
                "patch_size = [2, 4, 4]\nbatch_size = 1", "a single voxel at the coarsest stage"},
        Refusal{"NoStep", "steps_per_round = 17", "steps_per_round = 0", "steps_per_round is 0"},
        Refusal{"UnknownOptimizer", "\"adamw\"", "\"adam\"", "optimizer"},
        Refusal{"ForegroundAboveOne", "foreground_fraction = 0.5", "foreground_fraction = 1.5",
                "foreground_fraction"},
        Refusal{"NotANumber", "learning_rate = 0.001", "learning_rate = nan", "learning_rate"},
        Refusal{"InfiniteRate", "learning_rate = 0.001", "learning_rate = inf", "learning_rate"},
        Refusal{"MirrorAxisTwice", "[0, 2]", "[2, 2]", "mirror_axes has '2' twice"},
        Refusal{"MirroredSides", "\"posterior\"]", "\"left-posterior\"]",
                "mirror_axes has 2, left to right"},
        Refusal{"UnknownAugmentation", "\"nnunet\"", "\"nnU-Net\"", "augmentation"},
        Refusal{"NoAugmentationOfSomeStrength",
                "augmentation = \"nnunet\"\nmirror_axes = [0, 2]\nintensity_augmentation = 0",
                "augmentation = \"none\"\nmirror_axes = [0, 2]\nintensity_augmentation = 0.5",
                "intensity_augmentation is set"},
        Refusal{"NegativePull", "proximal = 0.01", "proximal = -1", "proximal"},
        Refusal{"FourthMirrorAxis", "[0, 2]", "[0, 3]", "mirror_axes"},
        Refusal{"WholeOverlap", "overlap = 0.25", "overlap = 1.0", "overlap"},
        Refusal{"UnknownAggregation", "\"fedavg\"", "\"fedmedian\"", "aggregation"},
        Refusal{"NoTimeForARound", "round_deadline_minutes = 90", "round_deadline_minutes = 0",
                "round_deadline_minutes"},
        Refusal{"QuorumOfMoreSitesThanDeclared", "minimum_sites = 2", "minimum_sites = 3",
                "minimum_sites is 3, but only 2 sites"},
        Refusal{"RequiredSiteThatIsNotDeclared", "required_sites = [\"north\"]",
                "required_sites = [\"south\"]", "required_sites has 'south'"},
        Refusal{"WrongType", "rounds = 3", "rounds = \"three\"", "rounds"}),
    [](const auto& test) { return test.param.name; });

TEST(ParseStudy, MirrorsAsNnunetDoesWhereItsAugmentationIsTakenButSidesStaySides) {
  const std::string nnunet = std::string(kSmallest) + "augmentation = \"nnunet\"\n";
  const auto study = ParseStudy(nnunet, "study.toml");
  ASSERT_OK(study);
  EXPECT_THAT(study->training.mirror_axes, ElementsAre(0, 1, 2));

  const auto sided = ParseStudy(
      With(nnunet, "\"anterior\", \"posterior\"", "\"hippocampus_L\", \"hippocampus_R\""),
      "study.toml");
  ASSERT_OK(sided);
  EXPECT_THAT(sided->training.mirror_axes, ElementsAre(0, 1));

  const auto unmirrored = ParseStudy(nnunet + "mirror_axes = []\n", "study.toml");
  ASSERT_OK(unmirrored);
  EXPECT_THAT(unmirrored->training.mirror_axes, IsEmpty());
}

TEST(ParseStudy, TurnsN4OnByItsTableAlone) {
  const auto study = ParseStudy(std::string(kSmallest) + "[harmonization.n4]\n", "study.toml");
  ASSERT_OK(study);
  EXPECT_EQ(study->harmonization.n4, N4Plan());
}

TEST(ParseStudy, ReadsEveryNormaliser) {
  using Normalizer = HarmonizationPlan::Normalizer;
  for (const Normalizer normalizer :
       {Normalizer::kInstance, Normalizer::kZScore, Normalizer::kNyul, Normalizer::kWhiteStripe,
        Normalizer::kKde, Normalizer::kFcm, Normalizer::kLsq, Normalizer::kNone}) {
    std::vector<std::int64_t> standard(StandardLength(normalizer));
    std::iota(standard.begin(), standard.end(), 1);
    const auto study =
        ParseStudy(fmt::format("{}[harmonization]\nnormalize = \"{}\"\ncontrasts = [\"T1w\"]\n"
                               "bandwidth = \"scott\"\nstandard = [{}]\n",
                               kSmallest, ToString(normalizer), fmt::join(standard, ", ")),
                   "study.toml");
    ASSERT_OK(study);
    EXPECT_EQ(study->harmonization.normalize, normalizer);
    EXPECT_EQ(study->harmonization.bandwidth, HarmonizationPlan::Bandwidth::kScott);
    EXPECT_THAT(study->harmonization.standard, testing::ElementsAreArray(standard));
  }
}

// kSmallest ends with its [training].
std::string WithStrategy(const std::string& training, const std::string& rounds,
                         const std::string& network = "") {
  return With(kSmallest, "[training]\n", network + "[training]\n") + training + "[rounds]\n" +
         rounds;
}

TEST(ParseStudy, ReadsStrategies) {
  using Kind = StrategyPlan::Kind;
  const auto parse = [](const std::string& text) {
    absl::StatusOr<Study> study = ParseStudy(text, "study.toml");
    EXPECT_OK(study);
    return study.ok() ? *study : Study();
  };
  const Study nova = parse(
      WithStrategy("passes_per_round = 1.5\npersonal = 0.1\n", "aggregation = \"fednova\"\n"));
  EXPECT_EQ(nova.rounds.strategy.kind, Kind::kFedNova);
  EXPECT_EQ(nova.training.passes_per_round, 1.5);
  EXPECT_EQ(nova.training.personal, 0.1);
  const Study scaffold = parse(WithStrategy("momentum = 0\n", "aggregation = \"scaffold\"\n",
                                            "local_layers = [\"norm\"]\n"));
  EXPECT_EQ(scaffold.rounds.strategy.kind, Kind::kScaffold);
  EXPECT_EQ(scaffold.network.local_layers, std::vector<std::string>{"norm"});
  EXPECT_EQ(parse(kSmallest).training.personal, 0);
  for (const Kind kind : StrategyKinds()) {
    const std::string word(ToString(kind));
    EXPECT_EQ(parse(WithStrategy("momentum = 0\n", "aggregation = \"" + word + "\"\n"))
                  .rounds.strategy.kind,
              kind);
  }
}

TEST(ParseStudy, RefusesStrategiesThatDoNotGoTogether) {
  const auto refuses = [](const std::string& text, const std::string& why) {
    EXPECT_THAT(ParseStudy(text, "study.toml"),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr(why)))
        << text;
  };
  const std::string nova = "aggregation = \"fednova\"\n";
  const std::string scaffold = "aggregation = \"scaffold\"\n";
  refuses(WithStrategy("optimizer = \"adamw\"\n", nova), "aggregation is 'fednova'");
  refuses(WithStrategy("proximal = 0.1\n", nova), "aggregation is 'fednova'");
  refuses(WithStrategy("", scaffold), "momentum = 0 and proximal = 0");
  refuses(WithStrategy("momentum = 0\noptimizer = \"adamw\"\n", scaffold), "'scaffold'");
  refuses(WithStrategy("momentum = 0\nproximal = 1\n", scaffold), "'scaffold'");
  refuses(WithStrategy("momentum = 0\npersonal = 1\n", scaffold), "personal gives each site");
  refuses(WithStrategy("personal = 1\n", "", "local_layers = [\"norm\"]\n"),
          "personal gives each site");
  refuses(WithStrategy("steps_per_round = 3\npasses_per_round = 1\n", ""), "passes_per_round only");
  const std::string krum = "aggregation = \"krum\"\nbyzantine_sites = 2\n";
  const auto quorum_of = [](int sites) {
    return "[rounds.quorum]\npolicy = \"at_least\"\nminimum_sites = " + std::to_string(sites) +
           "\n";
  };
  refuses(WithStrategy("", krum + quorum_of(6)),
          "a round may close with 6: set quorum.minimum_sites = 7");
  EXPECT_OK(ParseStudy(WithStrategy("", krum + quorum_of(7)), "study.toml"));
  refuses("sites = [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\"]\n" + WithStrategy("", krum),
          "aggregation needs 7 sites (krum, byzantine_sites 2), and 6 are declared");
  EXPECT_OK(ParseStudy(WithStrategy("personal = 0.1\n", krum), "study.toml"));
  refuses(WithStrategy("", krum + "sites_per_round = 6\n"), "sites_per_round is 6");
  refuses(WithStrategy("personal = -1\n", ""), "personal");
}

TEST(ParseStudy, ReadsByWhatAModelIsTheBest) {
  for (const auto rule : {RoundsPlan::BestBy::kCases, RoundsPlan::BestBy::kWorstSite}) {
    ASSERT_OK_AND_ASSIGN(const Study study, ParseStudy(fmt::format("{}[rounds]\nbest_by = \"{}\"",
                                                                   kSmallest, ToString(rule)),
                                                       "study.toml"));
    EXPECT_EQ(study.rounds.best_by, rule);
  }
}

TEST(ParseStudy, ReadsWhenTrainingEndsEarly) {
  const auto parse = [](const std::string& rounds) {
    return ParseStudy(std::string(kSmallest) + "[rounds]\n" + rounds, "study.toml");
  };
  ASSERT_OK_AND_ASSIGN(const Study study, parse("patience = 5\nleast_gain = 0.01"));
  EXPECT_EQ(study.rounds.patience, 5);
  EXPECT_EQ(study.rounds.least_gain, 0.01);
  EXPECT_THAT(parse("least_gain = 0.01"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("goes with patience only")));
  EXPECT_THAT(parse("patience = 5\nsites_per_round = 2"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("set one of the two")));
}

TEST(ParseStudy, ReadsItsPriority) {
  const auto parse = [](const std::string& rounds) {
    return ParseStudy(std::string(kSmallest) + "[rounds]\n" + rounds, "study.toml");
  };
  ASSERT_OK_AND_ASSIGN(const Study study, parse("priority = -3"));
  EXPECT_EQ(study.rounds.priority, -3);
  EXPECT_THAT(parse("priority = 11"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("-10 to 10")));
}

TEST(ParseStudy, ReadsHowManySitesARoundAsks) {
  const auto parse = [](const std::string& rounds) {
    return ParseStudy(With(kSmallest, "channels", "sites = [\"a\", \"b\", \"c\"]\nchannels") +
                          "[rounds]\n" + rounds,
                      "study.toml");
  };
  ASSERT_OK_AND_ASSIGN(const Study study, parse("sites_per_round = 2"));
  EXPECT_EQ(study.rounds.sites_per_round, 2);
  const auto refused = [](const std::string& why) {
    return StatusIs(StatusCode::kInvalidArgument, HasSubstr(why));
  };
  EXPECT_THAT(parse("sites_per_round = 4"), refused("is 4, but only 3 sites are declared"));
  const std::string quorum = "sites_per_round = 1\n[rounds.quorum]\npolicy = \"at_least\"\n";
  EXPECT_OK(parse(quorum + "required_sites = [\"c\"]"));
  EXPECT_THAT(parse(quorum + "minimum_sites = 2"), refused("minimum_sites is 2"));
  EXPECT_THAT(parse(quorum + "required_sites = [\"a\", \"b\"]"), refused("requires 2 sites"));
}

constexpr char kDraft[] = R"(name = "hippocampus"
channels = ["T1w"]
labels = ["anterior", "posterior"]

[planning]
)";

TEST(ParseStudy, TakesADraftWhoseNetworkIsToBePlanned) {
  ASSERT_OK_AND_ASSIGN(const Study draft, ParseStudy(kDraft, "draft.toml"));

  ASSERT_TRUE(draft.planning.has_value());
  EXPECT_EQ(draft.planning->preset, PlanPreset::kPlain);
  EXPECT_EQ(draft.planning->memory_gb, 8);
  EXPECT_THAT(draft.network.features, IsEmpty());
  EXPECT_THAT(CheckPlanned(draft),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("study plan hippocampus")));
  ASSERT_OK_AND_ASSIGN(const Study study, ParseStudy(kSmallest, "study.toml"));
  EXPECT_FALSE(study.planning.has_value());
  EXPECT_OK(CheckPlanned(study));
}

TEST(ParseStudy, GivesEachPresetNnunetsMemory) {
  for (const PlanPreset preset :
       {PlanPreset::kPlain, PlanPreset::kResidualM, PlanPreset::kResidualL}) {
    ASSERT_OK_AND_ASSIGN(
        const Study draft,
        ParseStudy(fmt::format("{}preset = \"{}\"\n", kDraft, ToString(preset)), "draft.toml"));
    EXPECT_EQ(draft.planning->preset, preset);
    EXPECT_EQ(draft.planning->memory_gb, DefaultMemoryGb(preset));
  }
}

TEST(ParseStudy, LeavesToADraftWhatIsNoPartOfThePlan) {
  ASSERT_OK_AND_ASSIGN(const Study draft, ParseStudy(std::string(kDraft) + R"(memory_gb = 4.5
[harmonization]
mask = "otsu"
[network]
norm = "group"
[training]
batch_size = 3
steps_per_round = 7
mirror_axes = [1]
)",
                                                     "draft.toml"));

  EXPECT_EQ(draft.planning->memory_gb, 4.5);
  EXPECT_EQ(draft.network.norm, NetworkPlan::Norm::kGroup);
  EXPECT_EQ(draft.training.batch_size, 3);
  EXPECT_EQ(draft.training.steps_per_round, 7);
}

TEST(ParseStudy, RefusesInADraftWhatThePlanFinds) {
  for (const std::string& by_hand : std::initializer_list<std::string>{
           "[network]\ninitial_weights = \"" + std::string(64, 'a') + "\"\n",
           "[harmonization]\nspacing_mm = [1, 1, 1]\n", "[network]\nfeatures = [8, 16]\n",
           "[network]\nstrides = [[1,1,1],[2,2,2]]\n", "[network]\nkernels = []\n",
           "[network]\nconvolutions_per_stage = 2\n", "[network]\nkind = \"residual\"\n",
           "[training]\npatch_size = [8, 8, 8]\n"}) {
    EXPECT_THAT(ParseStudy(kDraft + by_hand, "draft.toml"),
                StatusIs(StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("draft.toml:7: "), HasSubstr("[planning] asks for"))))
        << by_hand;
  }
  EXPECT_THAT(ParseStudy(std::string(kDraft) + "preset = \"residual_xl\"\n", "draft.toml"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("planning.preset")));
  EXPECT_THAT(ParseStudy(std::string(kDraft) + "memory_gb = 0\n", "draft.toml"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("planning.memory_gb is 0")));
}

TEST(ParseStudy, NamesFileAndLine) {
  EXPECT_THAT(ParseStudy(With(kSmallest, "[40, 56, 40]", "[41, 56, 40]"), "plans/study.toml"),
              StatusIs(StatusCode::kInvalidArgument, StartsWith("plans/study.toml:10: ")));
}

TEST(ParseStudy, LetsSitesBeRequiredThatAreNotDeclaredInAdvance) {
  EXPECT_OK(ParseStudy(With(With(kComplete, "sites = [\"st-marys\", \"north\"]\n", ""),
                            "minimum_sites = 2", "minimum_sites = 30"),
                       "study.toml"));
}

TEST(ParseStudy, RefusesAnEndlessText) {
  const std::string endless = std::string(kSmallest) + "#" + std::string(1 << 20, 'x');
  EXPECT_THAT(ParseStudy(endless, "study.toml"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("allowed are 65536")));
}

TEST(ParseStudy, RefusesAKeyThatIsNestedDeeperThanAnyStack) {
  std::string text = "a";
  for (int depth = 0; depth < 32'000; ++depth) text += ".a";
  EXPECT_THAT(ParseStudy(text + " = 1\n", "study.toml"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("32000 dots are too many")));
}

TEST(ParseStudy, RefusesEveryTruncationWithoutACrash) {
  const std::string text = kComplete;
  for (std::size_t length = 0; length < text.size(); ++length) {
    const auto study = ParseStudy(text.substr(0, length), "study.toml");
    if (study.ok()) continue;  // Tables with defaults may be missing.
    EXPECT_EQ(study.status().code(), StatusCode::kInvalidArgument) << study.status();
  }
}

TEST(LoadStudy, ReadsAFile) {
  const TemporaryDirectory folder;
  std::ofstream(folder.path() / "study.toml") << kSmallest;
  const auto study = LoadStudy(folder.path() / "study.toml");
  ASSERT_OK(study);
  EXPECT_EQ(study->digest, Sha256Of(kSmallest));
}

TEST(LoadStudy, SaysWhatItCannotRead) {
  const TemporaryDirectory folder;
  EXPECT_THAT(LoadStudy(folder.path() / "study.toml"),
              StatusIs(StatusCode::kNotFound, HasSubstr("study.toml")));
  EXPECT_THAT(LoadStudy(folder.path()), StatusIs(StatusCode::kNotFound, HasSubstr("directory")));
  std::ofstream(folder.path() / "large.toml") << std::string(1 << 20, '#');
  EXPECT_THAT(LoadStudy(folder.path() / "large.toml"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("too long")));
}

TEST(IsName, TakesDnsLabelsOnly) {
  EXPECT_TRUE(IsName("st-marys"));
  EXPECT_TRUE(IsName("7t"));
  EXPECT_TRUE(IsName(std::string(63, 'a')));
  for (const char* refused : {"", "-a", "a-", "St-Marys", "st_marys", "a.b", "a b", "a/b", "ä"}) {
    EXPECT_FALSE(IsName(refused)) << refused;
  }
  EXPECT_FALSE(IsName(std::string(64, 'a')));
}

}  // namespace
}  // namespace isoscan
