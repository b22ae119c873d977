#include "server/storage/sqlite_journal.h"

#include <cmath>

#include "server/storage/migrations.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

class SqliteJournalTest : public testing::Test {
 protected:
  SqliteJournalTest() {
    Reopen();
    Study study;
    study.name = "tiny";
    study.digest = std::string(64, 'd');
    study.toml = "name = \"tiny\"";
    EXPECT_OK(journal_->CreateStudy(study, {0, std::string(64, '0'), 100}, At(1)));
    for (const std::string site : {"berlin", "charite"}) {
      SiteRecord cohort;
      cohort.name = site;
      cohort.training_cases = 10;
      cohort.held_out_cases = 2;
      cohort.raw = {-1.5, 2.5, {1, 0, 3}};
      cohort.standard = {.sum = {1, 0.1, 1.0 / 3}, .cases = 7};
      EXPECT_OK(journal_->Approve("tiny", cohort, {}, At(2)));
    }
    EXPECT_OK(journal_->StartStudy("tiny", {1, 0.1, 1.0 / 3}, {"berlin"}, At(3)));
  }

  static Time At(int minutes) { return Time(std::chrono::minutes(minutes)); }
  static SiteUpdate Update(int round, double dice) {
    SiteUpdate update;
    update.study = "tiny";
    update.round = round;
    update.weights_digest = std::string(64, 'w');
    update.training_cases = 9;
    update.mean_loss = 0.5;
    update.model_scores = {{0, "3T", {{dice, 4, 5, 3}, {std::nan(""), 0, 0, 0}}}};
    return update;
  }
  void Reopen() {
    journal_.reset();
    auto journal = SqliteJournal::Open(folder_.path() / "journal.db");
    ASSERT_OK(journal);
    journal_ = *std::move(journal);
  }
  JournaledStudy Read() {
    Reopen();
    auto studies = journal_->Studies();
    EXPECT_OK(studies);
    EXPECT_THAT(*studies, SizeIs(1));
    return studies->front();
  }

  TemporaryDirectory folder_;
  std::unique_ptr<SqliteJournal> journal_;
};

TEST_F(SqliteJournalTest, RemembersAStudyAndItsSites) {
  const JournaledStudy study = Read();

  EXPECT_EQ(study.toml, "name = \"tiny\"");
  EXPECT_EQ(study.phase, StudyPhase::kRunning);
  EXPECT_EQ(study.created, At(1));
  EXPECT_EQ(study.phase_since, At(3));
  EXPECT_EQ(study.round, 1);
  EXPECT_EQ(study.round_opened, At(3));
  EXPECT_THAT(study.asked, ElementsAre("berlin"));
  ASSERT_THAT(study.participants, SizeIs(2));
  EXPECT_EQ(study.participants[0].cohort.name, "berlin");
  EXPECT_TRUE(study.participants[0].at_start);
  EXPECT_EQ(study.participants[0].cohort.raw.low, -1.5);
  EXPECT_THAT(study.participants[0].cohort.raw.counts, ElementsAre(1, 0, 3));
  EXPECT_THAT(study.participants[0].cohort.harmonized.counts, IsEmpty());
  EXPECT_EQ(study.participants[0].cohort.standard, (CaseSum{{1, 0.1, 1.0 / 3}, 7}));
  EXPECT_EQ(study.standard, (std::vector<double>{1, 0.1, 1.0 / 3}));
  ASSERT_THAT(study.models, SizeIs(1));
  EXPECT_EQ(study.models[0].bytes, 100);
  EXPECT_OK(journal_->CheckIntegrity());
}

TEST_F(SqliteJournalTest, KeepsOneUpdatePerSiteAndRoundWithItsScores) {
  ASSERT_OK(journal_->TakeUpdate("berlin", Update(1, 0.25), At(4)));
  ASSERT_OK(journal_->TakeUpdate("berlin", Update(1, 0.75), At(5)));

  const JournaledStudy study = Read();

  ASSERT_THAT(study.updates, SizeIs(1));
  EXPECT_EQ(study.updates[0].training_cases, 9);
  ASSERT_OK_AND_ASSIGN(const auto scores, journal_->Scores("tiny"));
  ASSERT_THAT(scores, SizeIs(1));
  EXPECT_EQ(scores[0].after_round, 0);
  ASSERT_THAT(scores[0].cases, SizeIs(1));
  ASSERT_THAT(scores[0].cases[0].labels, SizeIs(2));
  EXPECT_EQ(scores[0].cases[0].labels[0].dice, 0.75);
  EXPECT_TRUE(std::isnan(scores[0].cases[0].labels[1].dice));
  EXPECT_THAT(journal_->TakenWeights("tiny", 1, "berlin"), IsOkAndHolds(std::string(64, 'w')));
  EXPECT_THAT(journal_->TakenWeights("tiny", 1, "charite"), IsOkAndHolds(std::nullopt));
}

TEST_F(SqliteJournalTest, TakesAnUpdateAsAWholeOrNotAtAll) {
  SiteUpdate update = Update(1, 0.5);
  update.model_scores.push_back(update.model_scores.front());  // The same case twice.

  EXPECT_THAT(journal_->TakeUpdate("berlin", update, At(4)),
              StatusIs(absl::StatusCode::kInternal, testing::HasSubstr("UNIQUE")));

  EXPECT_THAT(Read().updates, IsEmpty());
  EXPECT_THAT(*journal_->Scores("tiny"), IsEmpty());
}

TEST_F(SqliteJournalTest, ClosesARoundAndOpensTheNext) {
  ASSERT_OK(journal_->TakeUpdate("berlin", Update(1, 0.5), At(4)));
  using Outcome = ParticipationRecord::Outcome;
  RoundRecord closed;
  closed.round = 1;
  closed.closed = At(6);
  closed.seconds_aggregating = 0.5;
  closed.sites.resize(2);
  closed.sites[0].site = "berlin";
  closed.sites[0].weight = 1;
  closed.sites[1].site = "charite";
  closed.sites[1].outcome = Outcome::kNotAsked;
  closed.sites[1].reason = "no progress";
  ASSERT_OK(journal_->CloseRound("tiny", {closed, {1, std::string(64, '1'), 101}}, {"charite"}));

  const JournaledStudy study = Read();

  EXPECT_EQ(study.round, 2);
  EXPECT_EQ(study.round_opened, At(6));
  EXPECT_THAT(study.asked, ElementsAre("charite"));
  EXPECT_THAT(study.updates, IsEmpty());
  EXPECT_THAT(study.models, SizeIs(2));
  ASSERT_OK_AND_ASSIGN(const std::vector<RoundRecord> rounds, journal_->ClosedRounds("tiny"));
  ASSERT_THAT(rounds, SizeIs(1));
  EXPECT_EQ(rounds[0].opened, At(3));
  EXPECT_EQ(rounds[0].closed, At(6));
  EXPECT_EQ(rounds[0].model_digest, std::string(64, '1'));
  ASSERT_THAT(rounds[0].sites, SizeIs(2));
  EXPECT_EQ(rounds[0].sites[0].outcome, Outcome::kContributed);
  EXPECT_EQ(rounds[0].sites[0].training_cases, 9);
  EXPECT_EQ(rounds[0].sites[1].outcome, Outcome::kNotAsked) << "round 1 asked berlin alone";
  EXPECT_EQ(rounds[0].sites[1].reason, "no progress");
}

TEST_F(SqliteJournalTest, RemembersWhyTrainingEndedEarly) {
  RoundRecord closed;
  closed.round = 1;
  closed.closed = At(6);
  closed.ends_training = "nothing gained";
  EXPECT_FALSE(Read().early_end.has_value());
  ASSERT_OK(journal_->CloseRound("tiny", {closed, {1, std::string(64, '1'), 101}}, {"berlin"}));

  const JournaledStudy study = Read();

  ASSERT_TRUE(study.early_end.has_value());
  EXPECT_EQ(study.early_end->round, 1);
  EXPECT_EQ(study.early_end->reason, "nothing gained");
  ASSERT_OK_AND_ASSIGN(const std::vector<RoundRecord> rounds, journal_->ClosedRounds("tiny"));
  EXPECT_EQ(rounds.at(0).ends_training, "nothing gained");
}

TEST_F(SqliteJournalTest, ReadsTheScoresOfGlobalModelsFromOneRoundOn) {
  using Model = ModelScoresRecord::Model;
  const auto cases = Update(1, 0.5).model_scores;
  ASSERT_OK(journal_->TakeScores("tiny", {Model::kLocalOnly, 0, "berlin", cases}));
  for (int round = 0; round < 4; ++round) {
    ASSERT_OK(journal_->TakeScores("tiny", {Model::kGlobal, round, "berlin", cases}));
  }

  ASSERT_OK_AND_ASSIGN(const auto scores, journal_->GlobalScores("tiny", 2));

  ASSERT_THAT(scores, SizeIs(2));
  EXPECT_EQ(scores[0].after_round, 2);
  EXPECT_EQ(scores[1].after_round, 3);
}

TEST_F(SqliteJournalTest, KeepsTheStateOfTheNewestRoundAlone) {
  const auto close = [&](int round, ServerState state) {
    RoundRecord record;
    record.round = round;
    record.closed = At(4 + round);
    return journal_->CloseRound(
        "tiny", {record, {round, std::string(64, '1'), 101}, std::move(state)}, {"berlin"});
  };
  EXPECT_EQ(Read().state, ServerState());
  const ServerState first{.digest = std::string(64, 'a'), .bytes = 7, .site_weights = {}};
  ASSERT_OK(close(1, first));
  EXPECT_EQ(Read().state, first);
  // No decimal of a weight is lost.
  const ServerState second{.digest = std::string(64, 'b'),
                           .bytes = 8,
                           .site_weights = {{"berlin", 1.0 / 3}, {"charite", 0.1 + 0.2}}};
  ASSERT_OK(close(2, second));
  EXPECT_EQ(Read().state, second);
  ASSERT_OK(close(3, {}));
  EXPECT_EQ(Read().state, ServerState());
}

TEST_F(SqliteJournalTest, KnowsTheLossBeforeTrainingWhereItWasSent) {
  SiteUpdate update = Update(1, 0.5);
  ASSERT_OK(journal_->TakeUpdate("berlin", update, At(4)));
  update.loss_before = -0.1 - 0.2;
  ASSERT_OK(journal_->TakeUpdate("charite", update, At(4)));

  const JournaledStudy study = Read();

  ASSERT_THAT(study.updates, SizeIs(2));
  EXPECT_EQ(study.updates[0].loss_before, std::nullopt);
  EXPECT_EQ(study.updates[1].loss_before, -0.1 - 0.2);
}

TEST_F(SqliteJournalTest, TellsAnUpdateThatWasNotChosenFromOneThatNeverCame) {
  ASSERT_OK(journal_->TakeUpdate("berlin", Update(1, 0.5), At(4)));
  ASSERT_OK(journal_->TakeUpdate("charite", Update(1, 0.5), At(4)));
  RoundRecord closed;
  closed.round = 1;
  closed.closed = At(6);
  closed.sites.resize(2);
  closed.sites[0].site = "berlin";
  closed.sites[0].weight = 1;
  closed.sites[1].site = "charite";
  closed.sites[1].reason = "not chosen: too far from the others";
  ASSERT_OK(journal_->CloseRound("tiny", {closed, {1, std::string(64, '1'), 101}}, {"berlin"}));

  ASSERT_OK_AND_ASSIGN(const std::vector<RoundRecord> rounds, journal_->ClosedRounds("tiny"));
  const ParticipationRecord& charite = rounds.at(0).sites.at(1);
  EXPECT_EQ(charite.outcome, ParticipationRecord::Outcome::kLeftOut);
  EXPECT_EQ(charite.reason, "not chosen: too far from the others");
  EXPECT_EQ(charite.training_cases, 9);
  EXPECT_EQ(charite.mean_loss, 0.5);
}

TEST_F(SqliteJournalTest, WithdrawalTakesTheOpenRoundsUpdateBack) {
  ASSERT_OK(journal_->TakeUpdate("berlin", Update(1, 0.5), At(4)));
  ASSERT_OK(journal_->TakeUpdate("charite", Update(1, 0.5), At(4)));

  ASSERT_OK(journal_->Withdraw("tiny", "berlin", {.round = 1, .sites = {"charite"}}));

  const JournaledStudy study = Read();
  EXPECT_TRUE(study.participants[0].cohort.withdrawn);
  EXPECT_FALSE(study.participants[1].cohort.withdrawn);
  EXPECT_THAT(study.updates, SizeIs(1));
  EXPECT_THAT(study.asked, ElementsAre("berlin", "charite")) << "who was asked stays on record";
  EXPECT_THAT(*journal_->Scores("tiny"), SizeIs(1));
}

TEST_F(SqliteJournalTest, TakesTheSitesOfAnOlderServersRoundsAsAsked) {
  const std::filesystem::path path = folder_.path() / "older.db";
  {
    ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Database> older, Database::Open(path));
    const absl::MutexLock lock(&older->mutex());
    ASSERT_OK(Migrate(*older, At(1), /*up_to=*/4));
    ASSERT_OK(older->RunScript(R"sql(
      INSERT INTO studies VALUES ('tiny', 'd', 'name = "tiny"', 'running', 1, 2, 2);
      INSERT INTO participants VALUES ('tiny', 'berlin', 9, 2, 0, 0, 1, '', 0, 1, '', 1, 1, 0);
      INSERT INTO participants VALUES ('tiny', 'charite', 9, 2, 0, 0, 1, '', 0, 1, '', 1, 1, 1);
      INSERT INTO rounds VALUES ('tiny', 1, 3, 4, 0.5), ('tiny', 2, 4, NULL, NULL);
      INSERT INTO models VALUES ('tiny', 0, '0', 1), ('tiny', 1, '1', 1);
      INSERT INTO participation VALUES ('tiny', 1, 'berlin', 0, 'no progress for 30 minutes'),
        ('tiny', 1, 'charite', 0, 'has withdrawn from the study'),
        ('tiny', 1, 'st-marys', 0, 'had not approved the study');
    )sql"));
  }
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<SqliteJournal> journal, SqliteJournal::Open(path));

  ASSERT_OK_AND_ASSIGN(const std::vector<JournaledStudy> studies, journal->Studies());
  ASSERT_OK_AND_ASSIGN(const std::vector<RoundRecord> rounds, journal->ClosedRounds("tiny"));

  EXPECT_THAT(studies.at(0).asked, ElementsAre("berlin"));
  using Outcome = ParticipationRecord::Outcome;
  ASSERT_THAT(rounds.at(0).sites, SizeIs(3));
  EXPECT_EQ(rounds[0].sites[0].outcome, Outcome::kLeftOut);
  EXPECT_EQ(rounds[0].sites[1].outcome, Outcome::kNotAsked);
  EXPECT_EQ(rounds[0].sites[2].outcome, Outcome::kNotAsked);
  EXPECT_OK(journal->CheckIntegrity());
}

TEST_F(SqliteJournalTest, TellsScoresOfTheFinalAndTheLocalOnlyModelApart) {
  using Model = ModelScoresRecord::Model;
  const auto cases = Update(1, 0.5).model_scores;
  ASSERT_OK(journal_->TakeScores("tiny", {Model::kLocalOnly, 0, "charite", cases}));
  ASSERT_OK(journal_->TakeScores("tiny", {Model::kGlobal, 0, "berlin", cases}));

  const JournaledStudy study = Read();

  EXPECT_THAT(study.scored, ElementsAre("berlin"));
  EXPECT_THAT(study.scored_local_only, ElementsAre("charite"));
  ASSERT_OK_AND_ASSIGN(const auto scores, journal_->Scores("tiny"));
  ASSERT_THAT(scores, SizeIs(2));
  EXPECT_EQ(scores[0].model, Model::kGlobal);
  EXPECT_EQ(scores[1].model, Model::kLocalOnly);
}

TEST_F(SqliteJournalTest, KeepsACertificateBesideTheScoresOfItsModel) {
  using Model = ModelScoresRecord::Model;
  const auto cases = Update(1, 0.5).model_scores;
  InvarianceCertificate certificate{.cases = 5,
                                    .largest_logit_change = 2.5e-6,
                                    .scale = 1e-5,
                                    .bias = -100,
                                    .voxels_changed = 1,
                                    .voxels_compared = 1000};
  certificate.curves = {{Perturbation::kRicianNoise, {{0, 5, 0, 0.8}, {0.09, 4, 0.25, 0.5}}},
                        {Perturbation::kNegativeScale, {{-1, 5, 1, std::nan("")}}}};
  ASSERT_OK(journal_->TakeScores("tiny", {Model::kGlobal, 1, "berlin", cases}));
  ASSERT_OK(journal_->TakeScores("tiny", {Model::kGlobal, 2, "berlin", cases, certificate}));
  ASSERT_OK(journal_->TakeScores("tiny", {Model::kGlobal, 2, "berlin", cases, certificate}))
      << "the answer to the first time may have been lost";
  Reopen();

  ASSERT_OK_AND_ASSIGN(const auto scores, journal_->Scores("tiny"));

  ASSERT_THAT(scores, SizeIs(2));
  EXPECT_FALSE(scores[0].certificate.has_value());
  ASSERT_TRUE(scores[1].certificate.has_value());
  EXPECT_EQ(scores[1].certificate->largest_logit_change, 2.5e-6);
  EXPECT_EQ(scores[1].certificate->bias, -100);
  EXPECT_EQ(scores[1].certificate->voxels_compared, 1000);
  const auto& curves = scores[1].certificate->curves;
  const auto& noise = curves[static_cast<std::size_t>(Perturbation::kRicianNoise)].points;
  ASSERT_THAT(noise, SizeIs(2));
  EXPECT_EQ(noise[1].amount, 0.09);
  EXPECT_EQ(noise[1].cases, 4);
  EXPECT_EQ(noise[1].flipped, 0.25);
  EXPECT_EQ(noise[1].dice, 0.5);
  EXPECT_TRUE(
      std::isnan(curves[static_cast<std::size_t>(Perturbation::kNegativeScale)].points.at(0).dice));
}

Fingerprint ExampleFingerprint() {
  Fingerprint fingerprint = Fingerprint::Empty(2, 3);
  const std::vector<float> first = {-0.1F, 0.25F, 7e5F};
  const std::vector<float> second = {3};
  for (int i = 0; i < 6; ++i) {
    EXPECT_OK(fingerprint.AddCase({.spacing_mm = {3.6, 0.625, 1.0 / 3},
                                   .size = {20, 300 + i, 319},
                                   .relative_size = 0.7,
                                   .foreground = {first, second}}));
  }
  return fingerprint;
}

TEST_F(SqliteJournalTest, RemembersWhatADraftIsToBePlannedFrom) {
  Study draft;
  draft.name = "draft";
  draft.digest = std::string(64, 'a');
  draft.toml = "name = \"draft\"";
  ASSERT_OK(journal_->CreateStudy(draft, {0, std::string(64, '1'), 10}, At(4)));
  SiteRecord cohort;
  cohort.name = "berlin";
  cohort.training_cases = 6;
  cohort.held_out_cases = 2;
  cohort.fingerprint = Disclosed(Fingerprint::Empty(2, 3));
  ASSERT_OK(journal_->Approve("draft", cohort, {}, At(5)));
  cohort.fingerprint = ExampleFingerprint();
  ASSERT_OK(journal_->Approve("draft", cohort, {}, At(5)))
      << "again, and it takes the first one's place";
  cohort.name = "charite";
  ASSERT_OK(journal_->Approve("draft", cohort, {}, At(5)));
  ASSERT_OK(journal_->Withdraw("draft", "charite", {}));

  Reopen();
  ASSERT_OK_AND_ASSIGN(std::vector<JournaledStudy> studies, journal_->Studies());

  ASSERT_THAT(studies, SizeIs(2));
  ASSERT_THAT(studies[0].participants, SizeIs(2));
  EXPECT_EQ(studies[0].participants[0].cohort.fingerprint, ExampleFingerprint());
  EXPECT_EQ(studies[0].participants[1].cohort.fingerprint, std::nullopt) << "it has withdrawn";
  EXPECT_EQ(studies[1].participants[0].cohort.fingerprint, std::nullopt);

  Study planned = draft;
  planned.digest = std::string(64, 'b');
  planned.toml = "name = \"draft\"  # planned";
  ASSERT_OK(journal_->PlanStudy(planned, {0, std::string(64, '2'), 20}, At(6)));
  Reopen();
  ASSERT_OK_AND_ASSIGN(studies, journal_->Studies());

  EXPECT_EQ(studies[0].toml, planned.toml);
  EXPECT_EQ(studies[0].draft_digest, draft.digest);
  ASSERT_THAT(studies[0].models, SizeIs(1));
  EXPECT_EQ(studies[0].models[0].digest, std::string(64, '2'));
  ASSERT_THAT(studies[0].participants, SizeIs(1)) << "who has withdrawn";
  EXPECT_TRUE(studies[0].participants[0].cohort.withdrawn);
  EXPECT_THAT(studies[1].participants, SizeIs(2)) << "of another study";
  EXPECT_OK(journal_->CheckIntegrity());
}

}  // namespace
}  // namespace isoscan
