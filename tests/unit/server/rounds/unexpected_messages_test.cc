// docs/protocol.md, "What unexpected messages are answered", row by row: what comes late, early,
// twice, from the wrong site or out of shape is answered as it says, and does not show in the bits
// of the final model, whenever the server is restarted.

#include <fmt/format.h>

#include <fstream>
#include <functional>
#include <limits>
#include <ostream>

#include "common/weights/safetensors.h"
#include "common/weights/sha256.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/server/rounds/federation_in_memory.h"

namespace isoscan {
namespace {

using absl::StatusCode;
using testing::HasSubstr;
using testing::IsEmpty;
using Kind = Assignment::Kind;

// Where berlin and charite are in their study of two rounds when the message comes.
enum class Stage { kCreated, kFirst, kSecond, kPaused, kFinal, kFinished, kStopped };

struct Scene {
  FederationInMemory federation;
  SiteUpdate first;  ///< Of berlin, which round 1 took.

  Coordinator& coordinator() { return federation.coordinator(); }
  void TrainRound() {
    const absl::StatusOr<SiteUpdate> update = federation.Upload("berlin");
    ASSERT_OK(update);
    if (update->round == 1) first = *update;
    ASSERT_OK(coordinator().SubmitUpdate("berlin", *update));
    ASSERT_OK(federation.Train("charite"));
    ASSERT_OK(coordinator().Advance());
  }
  void ScoreFinalModel() {
    ASSERT_OK(federation.Score("berlin"));
    ASSERT_OK(federation.Score("charite"));
    ASSERT_OK(coordinator().Advance());
  }
  void GoTo(Stage stage) {
    federation.Create({.sites = {"berlin", "charite"}, .rounds = 2});
    if (stage == Stage::kCreated) return;
    ASSERT_OK(coordinator().StartStudy("tiny"));
    if (stage == Stage::kFirst) return;
    TrainRound();
    if (stage == Stage::kPaused) {
      ASSERT_OK(coordinator().PauseStudy("tiny"));
    }
    if (stage == Stage::kStopped) {
      ASSERT_OK(coordinator().StopStudy("tiny"));
    }
    if (stage <= Stage::kPaused || stage == Stage::kStopped) return;
    TrainRound();
    if (stage == Stage::kFinished) ScoreFinalModel();
  }
  /// From wherever it is; false where it is over already.
  bool Finish() {
    const StudyStatus status = federation.Status();
    if (status.phase == StudyPhase::kCreated) {
      EXPECT_OK(coordinator().StartStudy("tiny"));
    }
    if (status.phase == StudyPhase::kPaused) {
      EXPECT_OK(coordinator().ResumeStudy("tiny"));
    }
    if (IsOver(status.phase)) return false;
    EXPECT_OK(coordinator().Advance());
    while (!federation.Status().final_scores && !testing::Test::HasFailure()) TrainRound();
    ScoreFinalModel();
    return true;
  }

  /// berlin's update of the open round, with its numbers changed, handed in by `site`.
  absl::Status Submit(const std::function<void(SiteUpdate&)>& change,
                      const std::string& site = "berlin") {
    ASSIGN_OR_RETURN(SiteUpdate update, federation.Upload("berlin"));
    change(update);
    return coordinator().SubmitUpdate(site, update);
  }
  /// These bytes as berlin's weights of round 1.
  absl::Status SubmitBytes(const std::string& bytes) {
    SiteUpdate update;
    update.study = "tiny";
    update.round = 1;
    update.weights_digest = Sha256Of(bytes);
    update.training_cases = 10;
    update.steps = 1;
    ASSIGN_OR_RETURN(const std::filesystem::path path,
                     coordinator().UploadPath("berlin", "tiny", 1, update.weights_digest,
                                              static_cast<std::int64_t>(bytes.size())));
    std::ofstream(path, std::ios::binary) << bytes;
    return coordinator().SubmitUpdate("berlin", update);
  }
  absl::Status Scores(Kind kind, const std::string& site = "berlin") {
    return coordinator().SubmitScores(site, "tiny", kind, FederationInMemory::Scores());
  }
  absl::Status Progress(int round, const std::string& site = "berlin",
                        const std::string& activity = "training") {
    return coordinator().ReportProgress(site, "tiny", round, activity, 1, 2);
  }
  absl::Status Begin(int round, const std::string& site, std::int64_t bytes = 100) {
    return coordinator().UploadPath(site, "tiny", round, std::string(64, 'a'), bytes).status();
  }
};

struct Row {
  std::string name;
  Stage stage;
  std::function<absl::Status(Scene&)> send;
  StatusCode code = StatusCode::kOk;
  std::string words = "";
};

void PrintTo(const Row& row, std::ostream* out) { *out << row.name; }

void Nothing(SiteUpdate& /*update*/) {}
std::function<absl::Status(Scene&)> Changed(std::function<void(SiteUpdate&)> change) {
  return [change = std::move(change)](Scene& scene) { return scene.Submit(change); };
}

std::vector<Row> Table() {
  constexpr StatusCode kRefused = StatusCode::kFailedPrecondition;
  constexpr StatusCode kInvalid = StatusCode::kInvalidArgument;
  const auto verb = [](auto method) {
    return [method](Scene& scene) { return (scene.coordinator().*method)("tiny").status(); };
  };
  std::vector<Row> rows = {
      // Twice.
      {"TheSameUpdateTwice", Stage::kFirst,
       [](Scene& scene) {
         EXPECT_OK(scene.Submit(Nothing));
         return scene.Submit(Nothing);
       }},
      {"TheUpdateOfAClosedRoundAgain", Stage::kSecond,
       [](Scene& scene) { return scene.coordinator().SubmitUpdate("berlin", scene.first); }},
      {"TheUpdateOfAClosedRoundAgainAtTheEnd", Stage::kFinished,
       [](Scene& scene) { return scene.coordinator().SubmitUpdate("berlin", scene.first); }},
      {"AnotherUpdateForTheOpenRound", Stage::kFirst,
       [](Scene& scene) -> absl::Status {
         ASSIGN_OR_RETURN(const SiteUpdate other, scene.federation.Upload("berlin", "tiny", 7));
         return scene.coordinator().SubmitUpdate("berlin", other);
       }},
      {"FinalScoresTwice", Stage::kFinal,
       [](Scene& scene) {
         EXPECT_OK(scene.Scores(Kind::kScore));
         return scene.Scores(Kind::kScore);
       }},
      {"FinalScoresAgainAfterTheEnd", Stage::kFinished,
       [](Scene& scene) { return scene.Scores(Kind::kScore); }},
      {"AnApprovalTwice", Stage::kSecond,
       [](Scene& scene) { return scene.federation.Approve("berlin"); }},
      {"TheSameStudyTwice", Stage::kSecond,
       [](Scene& scene) {
         return scene.coordinator()
             .CreateStudy(TinyStudy{.sites = {"berlin", "charite"}, .rounds = 2}.toml())
             .status();
       }},
      // Late.
      {"AnotherUpdateOfAClosedRound", Stage::kSecond,
       [](Scene& scene) {
         SiteUpdate late = scene.first;
         late.weights_digest = std::string(64, 'b');
         return scene.coordinator().SubmitUpdate("berlin", late);
       },
       kRefused, "round 1 is not open: round 2 of tiny is open"},
      {"AnUploadForAClosedRound", Stage::kSecond,
       [](Scene& scene) { return scene.Begin(1, "berlin"); }, kRefused, "round 1 is not open"},
      {"ProgressOfAClosedRound", Stage::kSecond, [](Scene& scene) { return scene.Progress(1); },
       kRefused, "round 1 is not open"},
      {"AnUpdateDuringTheFinalScores", Stage::kFinal, Changed(Nothing), kRefused,
       "tiny collects its final scores"},
      {"AnUpdateAfterTheEnd", Stage::kFinished, Changed(Nothing), kRefused, "tiny has finished"},
      {"AnUpdateOfAStoppedStudy", Stage::kStopped, Changed(Nothing), kRefused,
       "tiny has been stopped"},
      {"ProgressOfAStoppedStudy", Stage::kStopped, [](Scene& scene) { return scene.Progress(2); },
       kRefused, "tiny has been stopped"},
      {"FinalScoresOfAStoppedStudy", Stage::kStopped,
       [](Scene& scene) { return scene.Scores(Kind::kScore); }, kRefused, "has been stopped"},
      {"AnApprovalAfterTheEnd", Stage::kFinished,
       [](Scene& scene) { return scene.federation.Approve("berlin"); }, kRefused, "too late"},
      {"AWithdrawalAfterTheEnd", Stage::kFinished,
       [](Scene& scene) { return scene.coordinator().Withdraw("berlin", "tiny"); }, kRefused,
       "too late to withdraw"},
      // Early.
      {"AnUpdateBeforeTheStart", Stage::kCreated,
       [](Scene& scene) { return scene.Begin(1, "berlin"); }, kRefused, "has not been started"},
      {"ProgressBeforeTheStart", Stage::kCreated, [](Scene& scene) { return scene.Progress(0); },
       kRefused, "has not been started"},
      {"AnUpdateOfARoundToCome", Stage::kFirst,
       Changed([](SiteUpdate& update) { update.round = 2; }), kRefused, "round 2 is not open"},
      {"AnUpdateOfARoundThatWillNeverBe", Stage::kFirst,
       Changed([](SiteUpdate& update) { update.round = std::numeric_limits<int>::max(); }),
       kRefused, "is not open"},
      {"AnUpdateOfRoundZero", Stage::kFirst, Changed([](SiteUpdate& update) { update.round = 0; }),
       kRefused, "round 0 is not open"},
      {"AnUpdateOfANegativeRound", Stage::kFirst,
       Changed([](SiteUpdate& update) { update.round = -1; }), kRefused, "round -1 is not open"},
      {"FinalScoresBeforeTheirTime", Stage::kSecond,
       [](Scene& scene) { return scene.Scores(Kind::kScore); }, kRefused,
       "final scores are not asked for now"},
      {"AnUpdateBeforeItsWeights", Stage::kFirst,
       Changed([](SiteUpdate& update) { update.weights_digest = std::string(64, 'c'); }),
       StatusCode::kDataLoss, "upload them"},
      // Foreign.
      {"AnUpdateForAStudyThatIsNone", Stage::kFirst,
       Changed([](SiteUpdate& update) { update.study = "other"; }), StatusCode::kNotFound,
       "no study other"},
      {"AnUpdateOfASiteThatTakesNoPart", Stage::kFirst,
       [](Scene& scene) { return scene.Submit(Nothing, "st-marys"); }, kRefused,
       "st-marys takes no part in tiny"},
      {"AnUploadOfASiteThatTakesNoPart", Stage::kFirst,
       [](Scene& scene) { return scene.Begin(1, "st-marys"); }, kRefused, "takes no part"},
      {"ProgressOfASiteThatTakesNoPart", Stage::kFirst,
       [](Scene& scene) { return scene.Progress(1, "st-marys"); }, kRefused, "takes no part"},
      {"FinalScoresOfASiteThatTakesNoPart", Stage::kFinal,
       [](Scene& scene) { return scene.Scores(Kind::kScore, "st-marys"); }, kRefused,
       "takes no part"},
      {"AModelForASiteThatTakesNoPart", Stage::kFirst,
       [](Scene& scene) {
         return scene.coordinator()
             .Model("st-marys", "tiny", scene.federation.NewestModel())
             .status();
       },
       StatusCode::kNotFound, "no model"},
      {"AnApprovalByAnUndeclaredSite", Stage::kFirst,
       [](Scene& scene) { return scene.federation.Approve("st-marys"); }, kRefused, "none of them"},
      {"AnUpdateOfAnotherSitesUpload", Stage::kFirst,
       [](Scene& scene) { return scene.Submit(Nothing, "charite"); }, StatusCode::kDataLoss,
       "upload them"},
      {"AnApprovalOfAnotherText", Stage::kCreated,
       [](Scene& scene) {
         return scene.coordinator().Approve("berlin", "tiny", std::string(64, '0'),
                                            FederationInMemory::CohortOf("berlin"));
       },
       kRefused, "read the study again"},
      {"AnotherStudyOfThisName", Stage::kSecond,
       [](Scene& scene) {
         return scene.coordinator()
             .CreateStudy(TinyStudy{.sites = {"berlin"}, .rounds = 9}.toml())
             .status();
       },
       StatusCode::kAlreadyExists, "another study tiny"},
      // Out of shape.
      {"ADigestThatIsNone", Stage::kFirst,
       Changed([](SiteUpdate& update) { update.weights_digest = "../../etc/passwd"; }), kInvalid,
       "handed in weights with the digest"},
      {"WeightsThatAreNone", Stage::kFirst,
       [](Scene& scene) { return scene.SubmitBytes("no safetensors"); }, kInvalid, "berlin"},
      {"WeightsOfNothing", Stage::kFirst,
       [](Scene& scene) { return scene.SubmitBytes(EncodeSafetensors({}, {})); }, kInvalid,
       "berlin"},
      {"AnUploadThatIsTooLarge", Stage::kFirst,
       [](Scene& scene) { return scene.Begin(1, "berlin", 1 << 30); }, kInvalid, "at most"},
      {"AnUploadOfLessThanNothing", Stage::kFirst,
       [](Scene& scene) { return scene.Begin(1, "berlin", -1); }, kInvalid, "-1 bytes"},
      {"MoreCasesThanDeclared", Stage::kFirst,
       Changed([](SiteUpdate& update) { update.training_cases = 11; }), kInvalid,
       "berlin claims 11 training cases"},
      {"ALossThatIsNoNumber", Stage::kFirst, Changed([](SiteUpdate& update) {
         update.mean_loss = std::numeric_limits<double>::infinity();
       }),
       kInvalid, "mean_loss"},
      {"ScoresOfACaseThatIsNone", Stage::kFirst,
       Changed([](SiteUpdate& update) { update.model_scores[0].case_index = 2; }), kInvalid,
       "held-out case 2"},
      {"ADiceThatCannotBe", Stage::kFirst,
       Changed([](SiteUpdate& update) { update.model_scores[0].labels[0].dice = 1.5; }), kInvalid,
       "berlin"},
      {"AnActivityThatCannotBePrinted", Stage::kFirst,
       [](Scene& scene) { return scene.Progress(1, "berlin", "\x1b[2J"); }, kInvalid,
       "cannot be printed"},
      {"AnActivityWithoutEnd", Stage::kFirst,
       [](Scene& scene) { return scene.Progress(1, "berlin", std::string(1000, 'x')); }, kInvalid,
       "1000 bytes"},
      {"ScoresForWorkThatHasNone", Stage::kFinal,
       [](Scene& scene) { return scene.Scores(Kind::kTrain); }, kInvalid, "asks for none"},
      {"ScoresThatTheStudyDoesNotAskFor", Stage::kFinal,
       [](Scene& scene) { return scene.Scores(Kind::kLocalOnly); }, kRefused,
       "does not compare with local-only"},
      {"NoScoresAtAll", Stage::kFinal,
       [](Scene& scene) {
         return scene.coordinator().SubmitScores("berlin", "tiny", Kind::kScore, {});
       },
       kInvalid, "sent no scores"},
      {"ACertificateThatTheStudyDoesNotAskFor", Stage::kFinal,
       [](Scene& scene) {
         return scene.coordinator().SubmitScores("berlin", "tiny", Kind::kScore,
                                                 FederationInMemory::Scores(),
                                                 InvarianceCertificate{.cases = 3});
       },
       kInvalid, "does not ask for"},
      // Paused: as if it were running.
      {"AnUpdateWhilePaused", Stage::kPaused, Changed(Nothing)},
      {"ProgressWhilePaused", Stage::kPaused, [](Scene& scene) { return scene.Progress(2); }},
      // The coordinator's verbs in every state.
      {"StartAgain", Stage::kSecond, verb(&Coordinator::StartStudy), kRefused, "started before"},
      {"StartWhilePaused", Stage::kPaused, verb(&Coordinator::StartStudy), kRefused, "resume it"},
      {"StartAfterTheEnd", Stage::kFinished, verb(&Coordinator::StartStudy), kRefused,
       "started before"},
      {"PauseBeforeTheStart", Stage::kCreated, verb(&Coordinator::PauseStudy), kRefused,
       "has not been started"},
      {"PauseTwice", Stage::kPaused, verb(&Coordinator::PauseStudy), kRefused, "paused already"},
      {"PauseAfterTheEnd", Stage::kFinished, verb(&Coordinator::PauseStudy), kRefused,
       "has finished"},
      {"ResumeWhatRuns", Stage::kSecond, verb(&Coordinator::ResumeStudy), kRefused, "is running"},
      {"ResumeAfterAStop", Stage::kStopped, verb(&Coordinator::ResumeStudy), kRefused,
       "has been stopped"},
      {"StopAfterTheEnd", Stage::kFinished, verb(&Coordinator::StopStudy), kRefused,
       "has finished"},
      {"StopTwice", Stage::kStopped, verb(&Coordinator::StopStudy), kRefused, "has been stopped"},
      {"PlanWhatIsNoDraft", Stage::kSecond, verb(&Coordinator::PlanStudy)},
  };
  return rows;
}

class UnexpectedMessage : public testing::TestWithParam<Row> {};

TEST_P(UnexpectedMessage, IsAnsweredAsTheProtocolSaysAndDoesNotShowInTheEnd) {
  const Row& row = GetParam();
  Scene undisturbed;
  undisturbed.GoTo(row.stage);
  Scene scene;
  scene.GoTo(row.stage);
  ASSERT_FALSE(HasFailure());

  EXPECT_THAT(row.send(scene), StatusIs(row.code, HasSubstr(row.words)));

  const StudyStatus before = scene.federation.Status();
  EXPECT_EQ(before.round, undisturbed.federation.Status().round);
  EXPECT_EQ(before.phase, undisturbed.federation.Status().phase);
  scene.federation.Restart();
  EXPECT_EQ(scene.federation.Status().round, before.round);
  EXPECT_EQ(scene.federation.Status().phase, before.phase);
  EXPECT_EQ(scene.Finish(), undisturbed.Finish());
  EXPECT_EQ(scene.federation.NewestModel(), undisturbed.federation.NewestModel());
  EXPECT_EQ(scene.federation.Status().phase, undisturbed.federation.Status().phase);
}

INSTANTIATE_TEST_SUITE_P(Protocol, UnexpectedMessage, testing::ValuesIn(Table()),
                         [](const testing::TestParamInfo<Row>& row) { return row.param.name; });

class StopInStage : public testing::TestWithParam<Stage> {};

TEST_P(StopInStage, EndsTheStudyForGoodWithWhatItHas) {
  Scene scene;
  scene.GoTo(GetParam());
  const std::size_t models = scene.coordinator().Models("tiny")->size();

  ASSERT_OK(scene.coordinator().StopStudy("tiny"));
  scene.federation.Restart();

  EXPECT_EQ(scene.federation.Status().phase, StudyPhase::kStopped);
  for (const std::string site : {"berlin", "charite"}) {
    EXPECT_EQ(scene.federation.AskedOf(site)->kind, Kind::kStudyEnded);
    EXPECT_THAT(scene.Submit(Nothing, site), StatusIs(StatusCode::kFailedPrecondition));
  }
  EXPECT_THAT(scene.federation.StagedFiles(), IsEmpty());
  EXPECT_EQ(scene.coordinator().Models("tiny")->size(), models);
  EXPECT_EQ(scene.coordinator().NextDeadline(), std::nullopt);
  EXPECT_OK(scene.coordinator().Record("tiny"));
}

INSTANTIATE_TEST_SUITE_P(Protocol, StopInStage,
                         testing::Values(Stage::kCreated, Stage::kFirst, Stage::kSecond,
                                         Stage::kPaused, Stage::kFinal));

TEST(LastSiteThatLeavesInARound, LeavesItOpenForWhoComesBack) {
  Scene scene;
  scene.GoTo(Stage::kSecond);
  ASSERT_OK(scene.federation.Train("berlin"));
  ASSERT_OK(scene.coordinator().Withdraw("berlin", "tiny"));
  ASSERT_OK(scene.coordinator().Withdraw("charite", "tiny"));
  scene.federation.clock().Advance(std::chrono::hours(1000));
  ASSERT_OK(scene.coordinator().Advance());
  scene.federation.Restart();

  EXPECT_EQ(scene.federation.Status().phase, StudyPhase::kRunning);
  EXPECT_EQ(scene.federation.Status().round, 2);
  EXPECT_THAT(scene.federation.Status().waiting_for, HasSubstr("the update of any site"));
  EXPECT_THAT(scene.federation.StagedFiles(), IsEmpty());
  EXPECT_EQ(scene.coordinator().Models("tiny")->size(), 2U) << "nothing never makes a model";

  ASSERT_OK(scene.federation.Approve("charite"));
  ASSERT_OK(scene.federation.Train("charite"));
  ASSERT_OK(scene.coordinator().Advance());
  EXPECT_TRUE(scene.federation.Status().final_scores);
}

TEST(QuorumThatIsNeverReached, KeepsTheStudyFromStarting) {
  FederationInMemory federation;
  federation.Create({.quorum = "policy = \"at_least\"\nminimum_sites = 3"}, {"berlin", "charite"});

  EXPECT_THAT(federation.coordinator().StartStudy("tiny"),
              StatusIs(StatusCode::kFailedPrecondition,
                       HasSubstr("approvals of at least 3 sites (2 so far)")));
}

TEST(QuorumThatIsNeverReached, KeepsTheRoundOpenAndSaysWhatIsMissingUntilItIsStopped) {
  FederationInMemory federation;
  federation.CreateAndStart({.quorum = "policy = \"at_least\"\nminimum_sites = 3"});
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.coordinator().Withdraw("st-marys", "tiny"));
  federation.clock().Advance(std::chrono::hours(24 * 365));
  ASSERT_OK(federation.coordinator().Advance());
  federation.Restart();
  ASSERT_OK(federation.coordinator().Advance());

  EXPECT_EQ(federation.Status().round, 1);
  EXPECT_THAT(federation.Status().waiting_for, HasSubstr("updates of at least 3 sites (1 so far)"));
  ASSERT_OK(federation.coordinator().StopStudy("tiny"));
  EXPECT_EQ(federation.AskedOf("berlin")->kind, Kind::kStudyEnded);
}

TEST(Straggler, ComesTooLateForARoundThatItsQuorumClosedAndIsAskedInTheNext) {
  FederationInMemory federation;
  federation.CreateAndStart({.quorum = "policy = \"at_least\"\nminimum_sites = 2"});
  ASSERT_OK_AND_ASSIGN(const SiteUpdate late, federation.Upload("st-marys"));
  ASSERT_OK(federation.Train("berlin"));
  ASSERT_OK(federation.Train("charite"));
  federation.clock().Advance(std::chrono::minutes(30));
  ASSERT_OK(federation.coordinator().Advance());
  ASSERT_EQ(federation.Status().round, 2);

  EXPECT_THAT(federation.coordinator().SubmitUpdate("st-marys", late),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("round 1 is not open")));
  EXPECT_EQ(federation.AskedOf("st-marys")->round, 2);
  EXPECT_THAT(federation.StagedFiles(), IsEmpty());
}

}  // namespace
}  // namespace isoscan
