#include <fstream>
#include <limits>

#include "common/weights/safetensors.h"
#include "common/weights/sha256.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/server/rounds/federation_in_memory.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kTooLate = absl::StatusCode::kFailedPrecondition;

class CoordinatorSubmission : public testing::Test {
 protected:
  CoordinatorSubmission() { federation_.CreateAndStart({.sites = {"berlin", "charite"}}); }

  // Uploads these bytes as berlin's update of round 1.
  SiteUpdate UploadBytes(const std::string& bytes) {
    SiteUpdate update;
    update.study = "tiny";
    update.round = 1;
    update.weights_digest = Sha256Of(bytes);
    update.training_cases = 10;
    const auto path = coordinator().UploadPath("berlin", "tiny", 1, update.weights_digest,
                                               static_cast<std::int64_t>(bytes.size()));
    EXPECT_OK(path);
    if (path.ok()) std::ofstream(*path, std::ios::binary) << bytes;
    return update;
  }
  NamedTensors ModelWeights() {
    const auto path = coordinator().ModelOfRound("tiny", 0);
    return SafetensorsFile::Open(*path)->ReadAll();
  }
  Coordinator& coordinator() { return federation_.coordinator(); }

  FederationInMemory federation_;
};

TEST_F(CoordinatorSubmission, IsTakenAgainWithoutChange) {
  ASSERT_OK_AND_ASSIGN(const SiteUpdate update, federation_.Upload("berlin"));
  ASSERT_OK(coordinator().SubmitUpdate("berlin", update));

  EXPECT_OK(coordinator().SubmitUpdate("berlin", update));
  ASSERT_OK(federation_.Train("charite"));
  ASSERT_OK(coordinator().Advance());
  EXPECT_OK(coordinator().SubmitUpdate("berlin", update)) << "its answer may have been lost";

  ASSERT_OK_AND_ASSIGN(const StudyRecord record, coordinator().Record("tiny"));
  EXPECT_THAT(record.scores, SizeIs(2));
}

TEST_F(CoordinatorSubmission, ReplacesAnEarlierOneWhileTheRoundIsOpen) {
  ASSERT_OK_AND_ASSIGN(SiteUpdate update, federation_.Upload("berlin", "tiny", 7));
  update.model_scores = FederationInMemory::Scores(0.77);
  ASSERT_OK(coordinator().SubmitUpdate("berlin", update));

  ASSERT_OK(federation_.Train("berlin"));
  ASSERT_OK(federation_.Train("charite"));
  ASSERT_OK(coordinator().Advance());

  FederationInMemory undisturbed;
  undisturbed.CreateAndStart({.sites = {"berlin", "charite"}});
  ASSERT_OK(undisturbed.Train("berlin"));
  ASSERT_OK(undisturbed.Train("charite"));
  ASSERT_OK(undisturbed.coordinator().Advance());
  EXPECT_EQ(federation_.NewestModel(), undisturbed.NewestModel());
  ASSERT_OK_AND_ASSIGN(const StudyRecord record, coordinator().Record("tiny"));
  EXPECT_DOUBLE_EQ(record.scores.front().cases.front().labels.front().dice, 0.1);
}

TEST_F(CoordinatorSubmission, IsRefusedWhenItComesLate) {
  ASSERT_OK_AND_ASSIGN(SiteUpdate update, federation_.Upload("berlin", "tiny", 7));
  ASSERT_OK(federation_.Train("berlin"));
  ASSERT_OK(federation_.Train("charite"));
  ASSERT_OK(coordinator().Advance());

  EXPECT_THAT(coordinator().SubmitUpdate("berlin", update),
              StatusIs(kTooLate, HasSubstr("round 1 is not open: round 2 of tiny is open")));
  EXPECT_THAT(coordinator().UploadPath("berlin", "tiny", 1, update.weights_digest, 100),
              StatusIs(kTooLate, HasSubstr("round 1 is not open")));
  EXPECT_THAT(coordinator().ReportProgress("berlin", "tiny", 1, "training", 1, 2),
              StatusIs(kTooLate, HasSubstr("round 1 is not open")));
  update.round = 5;
  EXPECT_THAT(coordinator().SubmitUpdate("berlin", update),
              StatusIs(kTooLate, HasSubstr("round 5 is not open")));
}

TEST_F(CoordinatorSubmission, IsRefusedFromASiteThatTakesNoPart) {
  ASSERT_OK_AND_ASSIGN(const SiteUpdate update, federation_.Upload("berlin"));

  EXPECT_THAT(coordinator().SubmitUpdate("st-marys", update),
              StatusIs(kTooLate, HasSubstr("st-marys takes no part in tiny")));
  EXPECT_THAT(coordinator().SubmitUpdate("charite", update),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("upload them")))
      << "an upload belongs to the site that sent it";
  EXPECT_THAT(coordinator().Model("st-marys", "tiny", federation_.NewestModel()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no model")));
  EXPECT_THAT(coordinator().UploadPath("st-marys", "tiny", 1, update.weights_digest, 100),
              StatusIs(kTooLate, HasSubstr("takes no part")));
}

TEST_F(CoordinatorSubmission, AsksForWeightsAgainThatTheServersOwnDiskDamaged) {
  ASSERT_OK_AND_ASSIGN(const SiteUpdate update, federation_.Upload("berlin"));
  const auto staged = federation_.folder() / federation_.StagedFiles().front();
  const auto damage = [&](const std::string& how) {
    if (how == "cut") return std::filesystem::resize_file(staged, 100);
    std::fstream file(staged, std::ios::in | std::ios::out | std::ios::binary);
    // The last value, which becomes NaN.
    file.seekp(how == "header" ? 20 : -4, how == "header" ? std::ios::beg : std::ios::end);
    file.write("\xff\xff\xff\xff", 4);
  };
  for (const std::string how : {"cut", "header", "value"}) {
    damage(how);

    EXPECT_THAT(coordinator().SubmitUpdate("berlin", update),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("upload them again")))
        << how;

    EXPECT_FALSE(std::filesystem::exists(staged)) << "what is damaged is not kept";
    ASSERT_OK(federation_.Upload("berlin"));
  }
  EXPECT_OK(coordinator().SubmitUpdate("berlin", update));
}

TEST_F(CoordinatorSubmission, RefusesWeightsThatAreNotFiniteAndTheStudyGoesOn) {
  NamedTensors weights = ModelWeights();
  weights.at("decoder.seg_layers.0.weight").values[1] = std::numeric_limits<float>::quiet_NaN();
  SiteUpdate update = UploadBytes(EncodeSafetensors(weights, {}));
  update.mean_loss = std::numeric_limits<double>::quiet_NaN();

  EXPECT_THAT(
      coordinator().SubmitUpdate("berlin", update),
      StatusIs(kInvalid, AllOf(HasSubstr("berlin"), HasSubstr("decoder.seg_layers.0.weight"))));

  EXPECT_EQ(federation_.AskedOf("berlin")->round, 1) << "a better update is welcome";
  ASSERT_OK(federation_.Train("charite"));
  ASSERT_OK(coordinator().Advance());
  EXPECT_EQ(federation_.Status().round, 1);
  ASSERT_OK(federation_.Train("berlin"));
  ASSERT_OK(coordinator().Advance());
  EXPECT_EQ(federation_.Status().round, 2);
}

TEST_F(CoordinatorSubmission, RefusesAnUpdateForAnotherHarmonisationByBothDigests) {
  HarmonizationPlan other;
  other.mask = HarmonizationPlan::Mask::kOtsu;
  const SiteUpdate update =
      UploadBytes(EncodeSafetensors(ModelWeights(), HarmonizationMetadata(other)));

  EXPECT_THAT(coordinator().SubmitUpdate("berlin", update),
              StatusIs(kInvalid, AllOf(HasSubstr("berlin"), HasSubstr(HarmonizationDigest(other)),
                                       HasSubstr(HarmonizationDigest(HarmonizationPlan())))));
  EXPECT_THAT(
      coordinator().SubmitUpdate("berlin", UploadBytes(EncodeSafetensors(ModelWeights(), {}))),
      StatusIs(kInvalid, HasSubstr("does not say which harmonisation")));

  EXPECT_OK(federation_.Train("berlin"));
}

TEST_F(CoordinatorSubmission, RefusesWeightsOfAnotherNetworkOrDamagedOnes) {
  NamedTensors fewer = ModelWeights();
  fewer.erase("decoder.seg_layers.0.bias");
  EXPECT_THAT(coordinator().SubmitUpdate("berlin", UploadBytes(EncodeSafetensors(fewer, {}))),
              StatusIs(kInvalid, HasSubstr("decoder.seg_layers.0.bias")));

  std::string truncated = EncodeSafetensors(ModelWeights(), {});
  truncated.resize(truncated.size() / 2);
  EXPECT_THAT(coordinator().SubmitUpdate("berlin", UploadBytes(truncated)),
              StatusIs(kInvalid, HasSubstr("berlin")));
  EXPECT_THAT(federation_.StagedFiles(), SizeIs(1)) << "a new upload replaces a refused one";
}

TEST_F(CoordinatorSubmission, RefusesNumbersThatCannotBe) {
  ASSERT_OK_AND_ASSIGN(const SiteUpdate good, federation_.Upload("berlin"));
  const auto refused = [&](auto change) {
    SiteUpdate update = good;
    change(update);
    return coordinator().SubmitUpdate("berlin", update);
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();

  EXPECT_THAT(refused([](SiteUpdate& update) { update.training_cases = 11; }),
              StatusIs(kInvalid, HasSubstr("berlin claims 11 training cases, it declared 10")));
  EXPECT_THAT(refused([](SiteUpdate& update) { update.training_cases = 0; }),
              StatusIs(kInvalid, HasSubstr("claims 0 training cases")));
  EXPECT_THAT(refused([&](SiteUpdate& update) { update.mean_loss = nan; }),
              StatusIs(kInvalid, HasSubstr("mean_loss = nan")));
  EXPECT_THAT(refused([](SiteUpdate& update) { update.model_scores[0].case_index = 2; }),
              StatusIs(kInvalid, HasSubstr("scored held-out case 2, but declared 2")));
  EXPECT_THAT(refused([](SiteUpdate& update) { update.model_scores[0].case_index = 1; }),
              StatusIs(kInvalid, HasSubstr("case 1 twice")));
  EXPECT_THAT(refused([](SiteUpdate& update) { update.model_scores[0].labels.pop_back(); }),
              StatusIs(kInvalid, HasSubstr("scored 1 labels of case 0, the study has 2")));
  EXPECT_THAT(refused([&](SiteUpdate& update) { update.model_scores[0].labels[1].dice = nan; }),
              StatusIs(kInvalid, HasSubstr("berlin, case 0, label right: Dice is nan")));
  EXPECT_THAT(refused([](SiteUpdate& update) { update.model_scores[0].labels[1].dice = 1.5; }),
              StatusIs(kInvalid, HasSubstr("Dice is 1.5")));
  EXPECT_THAT(
      refused([](SiteUpdate& update) { update.model_scores[0].labels[1].common_voxels = 11; }),
      StatusIs(kInvalid, HasSubstr("11 common voxels of 10 reference")));
  EXPECT_THAT(refused([](SiteUpdate& update) { update.model_scores[0].labels[1] = {.dice = 1}; }),
              StatusIs(kInvalid, HasSubstr("both empty")));
  EXPECT_EQ(federation_.AskedOf("berlin")->round, 1);

  EXPECT_OK(refused([&](SiteUpdate& update) { update.model_scores[0].labels[1] = {.dice = nan}; }))
      << "NaN is the score of a label that is neither there nor predicted";
}

// There the loss decides how much the update counts for.
TEST_F(CoordinatorSubmission, RefusesALossThatCannotBeWhereSitesAreWeighedByIt) {
  FederationInMemory federation;
  federation.CreateAndStart({.sites = {"berlin"}, .aggregation = "qfedavg"});
  ASSERT_OK_AND_ASSIGN(SiteUpdate update, federation.Upload("berlin"));
  EXPECT_THAT(federation.coordinator().SubmitUpdate("berlin", update),
              StatusIs(kInvalid, HasSubstr("berlin sent no loss_before, which qfedavg")));
  for (const double loss :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -1.1}) {
    update.loss_before = loss;
    EXPECT_THAT(federation.coordinator().SubmitUpdate("berlin", update),
                StatusIs(kInvalid, HasSubstr("berlin sent loss_before = ")))
        << loss;
  }
  update.loss_before = -0.97;
  EXPECT_OK(federation.coordinator().SubmitUpdate("berlin", update));
}

TEST_F(CoordinatorSubmission, RefusesNumbersThatWouldOverflowSumsOverSites) {
  constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();
  SiteRecord cohort = FederationInMemory::CohortOf("st-marys");
  FederationInMemory federation;
  federation.Create({.sites = {}}, {"berlin"});
  cohort.training_cases = kLargest;
  EXPECT_THAT(
      federation.coordinator().Approve("st-marys", "tiny", federation.Status().digest, cohort),
      StatusIs(kInvalid, HasSubstr("training cases, allowed are 0 to 100000")));

  ASSERT_OK_AND_ASSIGN(SiteUpdate update, federation_.Upload("berlin"));
  update.model_scores[0].labels[1].reference_voxels = kLargest;
  EXPECT_THAT(coordinator().SubmitUpdate("berlin", update),
              StatusIs(kInvalid, HasSubstr("berlin, case 0, label right: 9223372036854775807")));
  update.model_scores = FederationInMemory::Scores();
  update.seconds_training = 1e300;
  EXPECT_THAT(coordinator().SubmitUpdate("berlin", update),
              StatusIs(kInvalid, HasSubstr("seconds_training = 1e+300")));
}

TEST_F(CoordinatorSubmission, RefusesTextThatCouldDriveATerminal) {
  EXPECT_THAT(coordinator().ReportProgress("berlin", "tiny", 1, "\x1b]0;title\a", 1, 2),
              StatusIs(kInvalid, HasSubstr("'?]0;title?'")));
  EXPECT_OK(coordinator().ReportProgress("berlin", "tiny", 1, "training", 1, 2));

  ASSERT_OK_AND_ASSIGN(SiteUpdate update, federation_.Upload("berlin"));
  update.model_scores[0].cohort = "ward\n7";
  EXPECT_THAT(coordinator().SubmitUpdate("berlin", update),
              StatusIs(kInvalid, HasSubstr("'ward?7'")));
}

TEST_F(CoordinatorSubmission, AnswersUploadsThatCannotFit) {
  const std::string digest(64, 'a');

  EXPECT_THAT(coordinator().UploadPath("berlin", "tiny", 1, "../../journal.db", 10),
              StatusIs(kInvalid, HasSubstr("digest")));
  EXPECT_THAT(coordinator().UploadPath("berlin", "tiny", 1, digest, 1 << 30),
              StatusIs(kInvalid, HasSubstr("announced 1073741824 bytes")));
  EXPECT_THAT(coordinator().UploadPath("berlin", "tiny", 1, digest, 0),
              StatusIs(kInvalid, HasSubstr("announced 0 bytes")));
  EXPECT_THAT(coordinator().UploadPath("berlin", "absent", 1, digest, 10),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("absent")));
}

TEST_F(CoordinatorSubmission, KeepsOnlyTheUploadThatCounts) {
  ASSERT_OK(federation_.Train("berlin"));
  ASSERT_OK(federation_.Upload("berlin", "tiny", 1));
  ASSERT_OK(federation_.Upload("berlin", "tiny", 2));

  EXPECT_THAT(federation_.StagedFiles(), SizeIs(2)) << "the one that counts, and the newest";
}

TEST_F(CoordinatorSubmission, TakesFinalScoresOnlyWhenTheyAreAskedFor) {
  using Kind = Assignment::Kind;
  EXPECT_THAT(federation_.Score("berlin"),
              StatusIs(kTooLate, HasSubstr("round 1 of tiny is open")));
  for (int round = 1; round <= 2; ++round) {
    ASSERT_OK(federation_.Train("berlin"));
    ASSERT_OK(federation_.Train("charite"));
    ASSERT_OK(coordinator().Advance());
  }

  EXPECT_THAT(
      coordinator().SubmitScores("berlin", "tiny", Kind::kLocalOnly, FederationInMemory::Scores()),
      StatusIs(kTooLate, HasSubstr("local-only")));
  EXPECT_THAT(
      coordinator().SubmitScores("berlin", "tiny", Kind::kTrain, FederationInMemory::Scores()),
      StatusIs(kInvalid, HasSubstr("asks for none")));
  EXPECT_THAT(coordinator().SubmitScores("berlin", "tiny", Kind::kScore,
                                         FederationInMemory::Scores(), InvarianceCertificate()),
              StatusIs(kInvalid, HasSubstr("certificate that tiny does not ask for")));
  EXPECT_THAT(coordinator().SubmitScores("berlin", "tiny", Kind::kScore, {}),
              StatusIs(kInvalid, HasSubstr("no scores")));
  ASSERT_OK(federation_.Score("berlin"));
  EXPECT_OK(federation_.Score("berlin"));
  ASSERT_OK(federation_.Score("charite"));
  ASSERT_OK(coordinator().Advance());
  EXPECT_EQ(federation_.Status().phase, StudyPhase::kFinished);
  EXPECT_OK(federation_.Score("berlin")) << "its answer may have been lost";
}

}  // namespace
}  // namespace isoscan
