#include "client/carried_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <stop_token>
#include <string>
#include <vector>

#include "common/study/exchanged_tensors.h"
#include "common/study/schedule.h"
#include "tests/unit/client/federation/hospital_client_fixture.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Key;
using testing::Not;
using testing::SizeIs;
using Kind = SiteAssignment::Kind;

constexpr char kLayer[] = "encoder.stages.0.0.convs.0.norm.bias";
constexpr char kShared[] = "encoder.stages.0.0.convs.0.conv.bias";

NamedTensors One(float value) { return {{"local.a", {{1}, {value}}}}; }

class CarriedStateTest : public testing::Test {
 protected:
  void SetUp() override {
    study_.name = "blobs";
    study_.digest = "0123";
  }

  const TemporaryDirectory directory_;
  const SiteStateFolder folder_{directory_.path()};
  Study study_;
};

TEST_F(CarriedStateTest, CountsOnceTheRoundIsAccepted) {
  const CarriedState carried(folder_, study_);
  EXPECT_THAT(carried.Before(1), IsOkAndHolds(IsEmpty()));

  ASSERT_OK(carried.KeepPending(1, "m", One(1)));
  EXPECT_TRUE(carried.HasPending(1));
  EXPECT_EQ(carried.Pending(1, "m"), One(1));
  EXPECT_EQ(carried.Pending(1, "another model"), std::nullopt);
  EXPECT_EQ(carried.Pending(2, "m"), std::nullopt);
  EXPECT_THAT(carried.Before(2), IsOkAndHolds(IsEmpty()));
  ASSERT_OK(carried.Accept(1));

  EXPECT_FALSE(carried.HasPending(1));
  EXPECT_THAT(carried.Before(2), IsOkAndHolds(One(1)));
  EXPECT_OK(carried.Accept(1));
  EXPECT_OK(carried.Accept(2));
}

TEST_F(CarriedStateTest, IsThatBeforeTheRoundHoweverOftenItIsTrained) {
  const CarriedState carried(folder_, study_);
  for (const int round : {1, 3, 4}) {
    ASSERT_OK(carried.KeepPending(round, "m", One(static_cast<float>(round))));
    ASSERT_OK(carried.Accept(round));
  }

  // Round 4 again: the server lost the update.
  EXPECT_THAT(carried.Before(4), IsOkAndHolds(One(3)));
  EXPECT_THAT(carried.Before(9), IsOkAndHolds(One(4)));
  EXPECT_THAT(carried.Before(4), IsOkAndHolds(IsEmpty())) << "what is older is removed";
}

TEST_F(CarriedStateTest, ForgetsWhatTheServerDidNotTake) {
  const CarriedState carried(folder_, study_);
  ASSERT_OK(carried.KeepPending(1, "m", One(1)));
  ASSERT_OK(carried.KeepPending(2, "m", One(2)));

  carried.Drop(2);
  carried.DropAllBut(1);
  EXPECT_TRUE(carried.HasPending(1));
  carried.DropAllBut(0);

  EXPECT_FALSE(carried.HasPending(1));
  EXPECT_FALSE(carried.HasPending(2));
}

TEST_F(CarriedStateTest, RefusesDamageAndAnotherStudy) {
  const CarriedState carried(folder_, study_);
  ASSERT_OK(carried.KeepPending(1, "m", One(1)));
  ASSERT_OK(carried.Accept(1));
  Study other = study_;
  other.digest = "4567";
  EXPECT_THAT(CarriedState(folder_, other).Before(2),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("another study called blobs")));

  std::fstream file(folder_.Carried("blobs") / "1.safetensors",
                    std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-1, std::ios::end).put('\x7f');
  file.close();

  EXPECT_THAT(carried.Before(2),
              StatusIs(absl::StatusCode::kDataLoss,
                       AllOf(HasSubstr("round 1 of study blobs"), HasSubstr("backup"))));
}

/// A site's rounds in a study where it has something of its own.
class StrategyTest : public HospitalClientTest {
 protected:
  /// The study with these lines in its tables.
  void ApproveWith(const std::string& network, const std::string& training,
                   const std::string& rounds) {
    std::string text = kStudyText;
    text.replace(text.find("local_only = true"), 17, "local_only = false");
    text.insert(text.find("[training]"), network + "\n");
    text.insert(text.find("[evaluation]"), training + "\n");
    ASSERT_NO_FATAL_FAILURE(Approve(text + rounds + "\n"));
  }

  /// The global model of a later round: what was uploaded last.
  void NextModel() {
    model_ = Sha256Of(session_.uploads.back());
    session_.models[model_] = session_.uploads.back();
  }

  NamedTensors Uploaded(std::size_t index) const {
    const auto tensors = DecodeSafetensors(session_.uploads.at(index));
    EXPECT_OK(tensors);
    return tensors.ok() ? *tensors : NamedTensors();
  }

  /// Round 1, then 2; the study then ends.
  void RunTwoRounds() {
    session_.Ask({Assignment(Kind::kTrain, 1)});
    session_.on_update = [this](const RoundUpdate& update) {
      NextModel();
      session_.Ask({update.round == 1 ? Assignment(Kind::kTrain, 2) : Ended()});
      return absl::OkStatus();
    };
    ASSERT_OK(Run());
  }

  static float First(const NamedTensors& tensors, const std::string& name) {
    return tensors.at(name).values.front();
  }
};

// --- FedBN: layers that stay at the site
// -----------------------------------------------------------

class LocalLayersTest : public StrategyTest {
 protected:
  void SetUp() override {
    HospitalClientTest::SetUp();
    ApproveWith("local_layers = [\"norm\"]", "", "");
  }
};

TEST_F(LocalLayersTest, StayAtTheSiteAndGoOnFromRoundToRound) {
  ASSERT_NO_FATAL_FAILURE(RunTwoRounds());

  ASSERT_THAT(session_.uploads, SizeIs(2));
  EXPECT_THAT(Uploaded(0), AllOf(Contains(Key(kShared)), Each(Key(Not(HasSubstr(".norm."))))));
  // FakeTrainer adds 1; the first values are those of the seed.
  ASSERT_THAT(training_.weights, SizeIs(2));
  EXPECT_EQ(training_.weights[0], InitialWeights(study_));
  EXPECT_EQ(First(training_.weights[1], kLayer), 1);
  EXPECT_EQ(First(training_.weights[1], kShared), 1);
}

TEST_F(LocalLayersTest, AreNotThoseOfAGlobalModelThatOthersTrained) {
  session_.Ask({Assignment(Kind::kTrain, 1)});
  session_.on_update = [this](const RoundUpdate& update) {
    NamedTensors others = Uploaded(0);
    for (float& value : others.at(kShared).values) value = 40;
    model_ = Offer(others);
    session_.Ask({update.round == 1 ? Assignment(Kind::kTrain, 2) : Ended()});
    return absl::OkStatus();
  };

  ASSERT_OK(Run());

  EXPECT_EQ(First(training_.weights[1], kShared), 40);
  EXPECT_EQ(First(training_.weights[1], kLayer), 1);
}

TEST_F(LocalLayersTest, BeginWithTheSeedsAtASiteThatComesLate) {
  session_.Ask({Assignment(Kind::kTrain, 2)});

  ASSERT_OK(Run());

  EXPECT_EQ(training_.weights.at(0), InitialWeights(study_));
}

TEST_F(LocalLayersTest, StayAsTheyWereWhenTheServerDoesNotTakeTheUpdate) {
  session_.Ask({Assignment(Kind::kTrain, 1)});
  session_.on_update = [this](const RoundUpdate& update) {
    session_.Ask({update.round == 1 ? Assignment(Kind::kTrain, 2) : Ended()});
    return update.round == 1 ? absl::FailedPreconditionError("round 1 is closed")
                             : absl::OkStatus();
  };

  ASSERT_OK(Run());

  ASSERT_THAT(training_.weights, SizeIs(2));
  EXPECT_EQ(First(training_.weights[1], kLayer), 0);
}

// The client dies while the server's answer is on its way. The server may then go on to round 2.
TEST_F(LocalLayersTest, CountWhereTheAnswerToTheUpdateWasLost) {
  for (const bool taken : {true, false}) {
    training_.weights.clear();
    session_.uploads.clear();
    session_.updates.clear();
    ASSERT_NO_FATAL_FAILURE(Approve(study_.toml));
    session_.Ask({Assignment(Kind::kTrain, 1)});
    session_.on_update = [](const RoundUpdate&) { return absl::UnavailableError("cut"); };
    EXPECT_THAT(Run(), StatusIs(absl::StatusCode::kUnavailable));
    NextModel();
    session_.on_update = [&](const RoundUpdate& update) {
      if (update.round == 1) {
        return taken ? absl::OkStatus() : absl::FailedPreconditionError("round 1 is closed");
      }
      session_.Ask({Ended()});
      return absl::OkStatus();
    };
    session_.Ask({Assignment(Kind::kTrain, 2)});

    ASSERT_OK(Run());

    ASSERT_THAT(training_.weights, SizeIs(2)) << "round 1 is not trained again";
    EXPECT_EQ(First(training_.weights[1], kLayer), taken ? 1 : 0);
    EXPECT_THAT(session_.updates, SizeIs(3));
  }
}

TEST_F(LocalLayersTest, AreWithTheModelThatTheSiteScoresAndKeeps) {
  session_.Ask({Assignment(Kind::kTrain, 1)});
  session_.on_update = [this](const RoundUpdate&) {
    NextModel();
    session_.Ask({Assignment(Kind::kScore, 3)});
    return absl::OkStatus();
  };

  ASSERT_OK(Run());

  const fs::path own = SiteStateFolder(config_.state).OwnModel(study_.name);
  ASSERT_OK_AND_ASSIGN(const SafetensorsFile file, SafetensorsFile::Open(own));
  EXPECT_OK(CheckShapes("own", file.shapes(), NetworkShapes(study_)));
  EXPECT_EQ(file.Values(kLayer)[0], 1);
  EXPECT_EQ(file.Values(kShared)[0], 1);
  EXPECT_EQ(file.metadata().at("round"), "2");
  EXPECT_EQ(FilesIn("carried"), 0U);
}

TEST_F(LocalLayersTest, OfTheServerAreRefused) {
  model_ = Offer(InitialWeights(study_));
  session_.Ask({Assignment(Kind::kTrain, 1), Ended()});

  ASSERT_OK(Run());

  EXPECT_THAT(training_.tasks, IsEmpty());
}

// --- SCAFFOLD: control variates
// ----------------------------------------------------------------------

constexpr char kControlOfShared[] = "control.encoder.stages.0.0.convs.0.conv.bias";

class ScaffoldTest : public StrategyTest {
 protected:
  void SetUp() override {
    HospitalClientTest::SetUp();
    ApproveWith("", "momentum = 0\nlearning_rate = 0.1", "aggregation = \"scaffold\"");
    OfferControl(0);
  }

  /// A global model whose control variates are all this.
  void OfferControl(float control) {
    NamedTensors tensors = InitialWeights(study_);
    for (const auto& [name, shape] : ExchangedShapes(study_)) {
      if (!name.starts_with(kControl)) continue;
      tensors[name] = {shape,
                       std::vector<float>(static_cast<std::size_t>(ElementCount(shape)), control)};
    }
    model_ = Offer(tensors);
  }

  double RateSum(int round) const {
    return LearningRateSum(study_.training, {.first = 3 * (round - 1), .count = 3, .total = 6});
  }
};

// FakeTrainer adds 1 to every weight: the mean gradient of a round is -1 / (sum of its rates).
TEST_F(ScaffoldTest, SendsHowItsControlVariatesHaveChangedAndCorrectsByThem) {
  std::vector<float> corrections;
  training_.on_train = [&] {
    corrections.push_back(First(*training_.tasks.back().correction, kShared));
  };
  session_.Ask({Assignment(Kind::kTrain, 1)});
  session_.on_update = [&](const RoundUpdate& update) {
    OfferControl(4);
    session_.Ask({update.round == 1 ? Assignment(Kind::kTrain, 2) : Ended()});
    return absl::OkStatus();
  };

  ASSERT_OK(Run());

  const double first = -1 / RateSum(1);
  const double second = -1 / RateSum(2);
  EXPECT_NEAR(First(Uploaded(0), kControlOfShared), first, 1e-5);
  EXPECT_NEAR(First(Uploaded(1), kControlOfShared), second - 4, 1e-4);
  ASSERT_THAT(corrections, SizeIs(2));
  EXPECT_EQ(corrections[0], 0);
  EXPECT_NEAR(corrections[1], 4 - first, 1e-5);
  EXPECT_EQ(ShapesOf(Uploaded(1)), ExchangedShapes(study_));
  EXPECT_THAT(training_.weights[1], Each(Key(Not(HasSubstr("control.")))));
}

// c is the mean of all c_i: what the server did not take must not change c_i either.
TEST_F(ScaffoldTest, KeepsItsControlVariatesWhenTheUpdateIsNotTaken) {
  session_.Ask({Assignment(Kind::kTrain, 1)});
  std::vector<float> corrections;
  training_.on_train = [&] {
    corrections.push_back(First(*training_.tasks.back().correction, kShared));
  };
  session_.on_update = [&](const RoundUpdate& update) {
    session_.Ask({update.round == 1 ? Assignment(Kind::kTrain, 2) : Ended()});
    return update.round == 1 ? absl::FailedPreconditionError("too late") : absl::OkStatus();
  };

  ASSERT_OK(Run());

  EXPECT_THAT(corrections, testing::ElementsAre(0, 0));
}

TEST_F(ScaffoldTest, SendsTheSameBytesWhenItWasKilledBeforeItsUpdateWasWritten) {
  session_.Ask({Assignment(Kind::kTrain, 1)});
  ASSERT_OK(Run());
  // What a client leaves that dies in between: tensors of its own, but no record of an update.
  ASSERT_OK(SiteStateFolder(config_.state).Prepare(study_.name));
  const CarriedState carried(SiteStateFolder(config_.state), study_);
  ASSERT_OK(carried.KeepPending(1, model_, {{"control.x", {{1}, {9}}}}));
  session_.Ask({Assignment(Kind::kTrain, 1)});

  ASSERT_OK(Run());

  ASSERT_THAT(session_.uploads, SizeIs(2));
  EXPECT_EQ(session_.uploads[0], session_.uploads[1]);
}

// --- Ditto: a model of the site's own
// ---------------------------------------------------------------

class PersonalModelTest : public StrategyTest {
 protected:
  void SetUp() override {
    HospitalClientTest::SetUp();
    ApproveWith("", "personal = 0.5", "");
  }
};

TEST_F(PersonalModelTest, IsTrainedBesideTheGlobalOneAndNeverSent) {
  std::vector<float> drawn_to;
  training_.on_train = [&] {
    const NamedTensors* const global = training_.tasks.back().drawn_to;
    if (global != nullptr) drawn_to.push_back(First(*global, kShared));
  };
  session_.Ask({Assignment(Kind::kTrain, 1)});
  session_.on_update = [&](const RoundUpdate& update) {
    NamedTensors global = InitialWeights(study_);
    global.at(kShared).values.front() = 40;
    model_ = Offer(global);
    session_.Ask({Assignment(update.round == 1 ? Kind::kTrain : Kind::kScore, update.round + 1)});
    return absl::OkStatus();
  };

  ASSERT_OK(Run());

  // In turn: its own, the global one; each round adds 1.
  ASSERT_THAT(training_.weights, SizeIs(4));
  EXPECT_EQ(First(training_.weights[0], kShared), 0);
  EXPECT_EQ(First(training_.weights[1], kShared), 0);
  EXPECT_EQ(First(training_.weights[2], kShared), 1);
  EXPECT_EQ(First(training_.weights[3], kShared), 40);
  EXPECT_THAT(drawn_to, testing::ElementsAre(0, 40));
  EXPECT_EQ(First(Uploaded(1), kShared), 41);
  EXPECT_EQ(ShapesOf(Uploaded(1)), NetworkShapes(study_));
  // Scored at the end, and kept for the site.
  EXPECT_THAT(session_.personal, SizeIs(2));
  ASSERT_OK_AND_ASSIGN(const SafetensorsFile own,
                       SafetensorsFile::Open(SiteStateFolder(config_.state).OwnModel(study_.name)));
  EXPECT_EQ(own.Values(kShared)[0], 2);
}

TEST_F(PersonalModelTest, IsNotTrainedAgainByAClientThatWasKilledAfterIt) {
  session_.Ask({Assignment(Kind::kTrain, 1)});
  std::stop_source stop;
  training_.on_train = [&] {
    if (training_.tasks.size() < 2) return;
    training_.until_stopped = true;
    stop.request_stop();
  };
  EXPECT_THAT(Run(stop.get_token()), StatusIs(absl::StatusCode::kCancelled));
  training_.until_stopped = false;
  training_.on_train = [] {};
  session_.Ask({Assignment(Kind::kTrain, 1)});

  ASSERT_OK(Run());

  ASSERT_THAT(training_.tasks, SizeIs(3));
  EXPECT_EQ(training_.tasks[2].drawn_to, nullptr);
}

TEST_F(PersonalModelTest, BeginsWithTheFirstGlobalModelThatASiteSees) {
  NamedTensors global = InitialWeights(study_);
  global.at(kShared).values.front() = 7;
  model_ = Offer(global);
  session_.Ask({Assignment(Kind::kTrain, 2)});

  ASSERT_OK(Run());

  EXPECT_EQ(First(training_.weights.at(0), kShared), 7);
}

TEST_F(PersonalModelTest, IsNotScoredWhereTheSiteNeverTrained) {
  session_.Ask({Assignment(Kind::kScore, 3)});

  ASSERT_OK(Run());

  EXPECT_THAT(session_.scores, SizeIs(1));
  EXPECT_THAT(session_.personal, IsEmpty());
}

// --- Passes over the site's own cases
// -------------------------------------------------------------

TEST_F(StrategyTest, TakesStepsInProportionToItsCases) {
  std::string text = kStudyText;
  text.replace(text.find("steps_per_round = 3"), 19, "passes_per_round = 3");
  ASSERT_NO_FATAL_FAILURE(Approve(text));
  session_.Ask({Assignment(Kind::kTrain, 2)});

  ASSERT_OK(Run());

  // 4 training cases, 2 patches per step.
  ASSERT_THAT(training_.tasks, SizeIs(1));
  EXPECT_EQ(training_.tasks[0].steps, 6);
  EXPECT_EQ(training_.tasks[0].first_step, 6);
  EXPECT_EQ(training_.tasks[0].total_steps, 12);
  EXPECT_EQ(session_.updates.at(0).steps, 6);
}

}  // namespace
}  // namespace isoscan
