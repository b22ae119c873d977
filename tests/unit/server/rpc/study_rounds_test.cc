#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/version.h"
#include "common/weights/sha256.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/server/rpc/started_study.h"

namespace isoscan {
namespace {

using testing::HasSubstr;
using FederationStub = v1::Federation::Stub;
using OperationsStub = v1::Operations::Stub;

/// One site's stream of assignments.
class Watch {
 public:
  explicit Watch(FederationStub& stub) {
    v1::WatchRequest request;
    request.set_protocol_version(kProtocolVersion);
    stream_ = stub.WatchAssignments(&context_, request);
  }

  /// The next list; one with an assignment of no kind when the stream has ended.
  v1::Assignments Next() {
    v1::Assignments assignments;
    if (!stream_->Read(&assignments)) assignments.add_assignments();
    return assignments;
  }
  /// Reads on until something of `kind` is asked, alone.
  v1::Assignment WaitFor(v1::Assignment::Kind kind) {
    while (true) {
      const v1::Assignments assignments = Next();
      if (assignments.assignments_size() != 1) continue;
      const v1::Assignment& assignment = assignments.assignments(0);
      if (assignment.kind() == kind) return assignment;
      if (assignment.kind() == v1::Assignment::KIND_UNSPECIFIED) return assignment;
    }
  }
  absl::Status End() {
    v1::Assignments ignored;
    while (stream_->Read(&ignored)) {
    }
    return FromGrpcStatus(stream_->Finish());
  }

 private:
  TestContext context_;
  std::unique_ptr<grpc::ClientReader<v1::Assignments>> stream_;
};

v1::SiteScores Scores() {
  v1::SiteScores scores;
  v1::CaseScore& score = *scores.add_cases();
  for (int label = 0; label < 2; ++label) {
    v1::LabelScore& entry = *score.add_labels();
    entry.set_dice(0.5);
    entry.set_reference_voxels(10);
    entry.set_predicted_voxels(10);
    entry.set_common_voxels(5);
  }
  return scores;
}

class StudyRounds : public StartedStudy {
 protected:
  absl::Status Contribute(FederationStub& stub, const std::string& site) {
    const std::string bytes = UpdateBytes(toml(), site);
    v1::BeginUploadRequest announcement;
    announcement.set_study("tiny");
    announcement.set_round(1);
    announcement.set_weights_digest(Sha256Of(bytes));
    announcement.set_weights_bytes(static_cast<std::int64_t>(bytes.size()));
    RETURN_IF_ERROR(Call(stub, &FederationStub::BeginUpload, announcement).status());
    TestContext context;
    v1::UploadResponse response;
    const auto stream = stub.Upload(&context, &response);
    v1::UploadChunk chunk;
    chunk.set_study("tiny");
    chunk.set_weights_digest(announcement.weights_digest());
    chunk.set_data(bytes);
    stream->Write(chunk);
    stream->WritesDone();
    RETURN_IF_ERROR(FromGrpcStatus(stream->Finish()));
    v1::SubmitUpdateRequest update;
    update.set_study("tiny");
    update.set_round(1);
    update.set_weights_digest(announcement.weights_digest());
    update.set_training_cases(4);
    update.set_steps(1);
    *update.mutable_model_scores() = Scores();
    return Call(stub, &FederationStub::SubmitUpdate, update).status();
  }

  absl::Status Score(FederationStub& stub) {
    v1::SubmitScoresRequest request;
    request.set_study("tiny");
    request.set_kind(v1::Assignment::KIND_SCORE);
    *request.mutable_scores() = Scores();
    return Call(stub, &FederationStub::SubmitScores, request).status();
  }
};

TEST_F(StudyRounds, ArePushedFromTheFirstAssignmentToTheEnd) {
  Watch north_watch(*north());
  Watch south_watch(*south());

  EXPECT_THAT(Call(*operations(), &OperationsStub::GetBestModel, StudyRequest()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no model of tiny")));
  const v1::Assignment first = north_watch.WaitFor(v1::Assignment::KIND_TRAIN);
  EXPECT_EQ(first.study(), "tiny");
  EXPECT_EQ(first.study_digest(), digest_of_study());
  EXPECT_EQ(first.round(), 1);
  ASSERT_OK(Contribute(*north(), "north"));
  ASSERT_OK(Contribute(*south(), "south"));

  const v1::Assignment last = north_watch.WaitFor(v1::Assignment::KIND_SCORE);
  EXPECT_EQ(last.round(), 2);
  EXPECT_NE(last.model_digest(), first.model_digest());
  EXPECT_EQ(south_watch.WaitFor(v1::Assignment::KIND_SCORE).model_digest(), last.model_digest());
  ASSERT_OK(Score(*north()));
  ASSERT_OK(Score(*south()));

  EXPECT_EQ(north_watch.WaitFor(v1::Assignment::KIND_STUDY_ENDED).study(), "tiny");
  std::vector<v1::StudyState> states;
  EXPECT_OK(CallStream(*operations(), &OperationsStub::WatchStudy, StudyRequest(), &states));
  ASSERT_FALSE(states.empty());
  EXPECT_EQ(states.back().phase(), v1::STUDY_PHASE_FINISHED);
  EXPECT_TRUE(states.back().final_scores());
  ASSERT_OK_AND_ASSIGN(const v1::BestModelResponse best,
                       Call(*operations(), &OperationsStub::GetBestModel, StudyRequest()));
  EXPECT_EQ(best.model().round(), 0) << "both models score 0.5: the earlier one";
  EXPECT_EQ(best.model().digest(), first.model_digest());
  EXPECT_EQ(best.score(), 0.5);
  EXPECT_EQ(best.by(), "cases");
  EXPECT_EQ(best.judges_size(), 2);
  EXPECT_EQ(best.models(), 2);
}

TEST_F(StudyRounds, ReportComesInPieces) {
  std::vector<v1::ReportPiece> pieces;
  ASSERT_OK(CallStream(*operations(), &OperationsStub::GetReport, StudyRequest(), &pieces));

  std::string html;
  std::string json;
  for (const v1::ReportPiece& piece : pieces) {
    html += piece.html();
    json += piece.json();
  }
  EXPECT_THAT(html, HasSubstr("</html>"));
  EXPECT_THAT(json, HasSubstr("\"sites\""));
}

TEST_F(StudyRounds, SecondStreamOfASiteEndsTheFirst) {
  Watch first(*north());
  first.WaitFor(v1::Assignment::KIND_TRAIN);

  Watch second(*north());

  EXPECT_THAT(first.End(), StatusIs(absl::StatusCode::kAborted, HasSubstr("north")));
  EXPECT_EQ(second.WaitFor(v1::Assignment::KIND_TRAIN).round(), 1);
  ASSERT_OK_AND_ASSIGN(const v1::ListSitesResponse sites,
                       Call(*operations(), &OperationsStub::ListSites, v1::ListSitesRequest()));
  EXPECT_TRUE(sites.sites(0).connected());
  EXPECT_FALSE(sites.sites(1).connected());
}

TEST_F(StudyRounds, PauseTakesAssignmentsBackAndResumeGivesThemAgain) {
  Watch watch(*north());
  watch.WaitFor(v1::Assignment::KIND_TRAIN);

  ASSERT_OK(Call(*operations(), &OperationsStub::PauseStudy, StudyRequest()));
  EXPECT_EQ(watch.Next().assignments_size(), 0);
  ASSERT_OK(Call(*operations(), &OperationsStub::ResumeStudy, StudyRequest()));
  EXPECT_EQ(watch.WaitFor(v1::Assignment::KIND_TRAIN).round(), 1);
}

TEST_F(StudyRounds, OperatorSeesWhatASiteIsDoing) {
  TestContext context;
  const auto stream = operations()->WatchStudy(&context, StudyRequest());
  v1::StudyState state;
  ASSERT_TRUE(stream->Read(&state));
  v1::ProgressRequest progress;
  progress.set_study("tiny");
  progress.set_round(1);
  progress.set_activity("training");
  progress.set_step(3);
  progress.set_steps(40);

  ASSERT_OK(Call(*north(), &FederationStub::ReportProgress, progress));

  ASSERT_TRUE(stream->Read(&state));
  EXPECT_EQ(state.sites(0).site(), "north");
  EXPECT_EQ(state.sites(0).activity(), "training");
  EXPECT_EQ(state.sites(0).step(), 3);
  EXPECT_EQ(state.sites(0).steps(), 40);
}

TEST_F(StudyRounds, SitesSeeTheirStudiesAndNoOtherSite) {
  ASSERT_OK_AND_ASSIGN(const v1::ListStudiesResponse studies,
                       Call(*north(), &FederationStub::ListStudies, v1::ListStudiesRequest()));

  ASSERT_EQ(studies.studies_size(), 1);
  EXPECT_EQ(studies.studies(0).toml(), toml());
  ASSERT_EQ(studies.studies(0).sites_size(), 1);
  EXPECT_EQ(studies.studies(0).sites(0).site(), "north");
}

TEST_F(StudyRounds, StoppedServerEndsItsStreamsAndTheNextOneGoesOn) {
  Watch watch(*north());
  const v1::Assignment before = watch.WaitFor(v1::Assignment::KIND_TRAIN);
  absl::Status end;
  std::thread waiting([&] { end = watch.End(); });

  Restart();
  waiting.join();

  EXPECT_THAT(end, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("shutting down")));
  Watch again(*north());
  EXPECT_EQ(again.WaitFor(v1::Assignment::KIND_TRAIN).SerializeAsString(),
            before.SerializeAsString());
}

TEST_F(StudyRounds, ScoresOfATrainingAssignmentAreRefused) {
  v1::SubmitScoresRequest request;
  request.set_study("tiny");
  request.set_kind(v1::Assignment::KIND_TRAIN);

  EXPECT_THAT(Call(*north(), &FederationStub::SubmitScores, request),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("KIND_SCORE")));
}

}  // namespace
}  // namespace isoscan
