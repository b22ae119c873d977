#include "client/federation/grpc_federation_session.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "client/federation/enrolment.h"
#include "common/tls/keys.h"
#include "common/transfer/chunks.h"
#include "common/weights/sha256.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/test_authority.h"
#include "tests/unit/client/federation/connect_proxy.h"
#include "tests/unit/client/federation/fake_federation_service.h"

namespace isoscan {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

constexpr auto kChunk = static_cast<std::int64_t>(kChunkBytes);

/// Two and a half chunks that differ everywhere.
std::string SomeWeights() {
  std::string weights(kChunkBytes * 5 / 2, '\0');
  RandomStream random(1, "weights");
  for (char& byte : weights) byte = static_cast<char>(random.NextBits());
  return weights;
}

std::string ContentOf(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

v1::Assignments TrainAssignment(int round) {
  v1::Assignments list;
  v1::Assignment& assignment = *list.add_assignments();
  assignment.set_kind(v1::Assignment::KIND_TRAIN);
  assignment.set_study("hippocampus");
  assignment.set_study_digest(Sha256Of("the study"));
  assignment.set_model_digest(Sha256Of("the model"));
  assignment.set_round(round);
  return list;
}

class GrpcFederationSession : public testing::Test {
 protected:
  std::unique_ptr<FederationSession> Connect(const RetryPolicy& policy = Patient()) {
    return ConnectOverGrpc(server_.address(), authority_.Site("north"), policy);
  }
  static RetryPolicy Patient() {
    return {.first_delay = milliseconds(1), .longest_delay = milliseconds(10)};
  }

  const TestAuthority authority_;
  FakeFederationService server_{authority_.Server("server.test")};
  const TemporaryDirectory folder_;
  const std::stop_token never_;
  const TransferObserver unobserved_ = [](std::int64_t, std::int64_t) {};
};

TEST_F(GrpcFederationSession, GoesOnDownloadingFromTheByteThatItHas) {
  server_.model = SomeWeights();
  server_.downloads = {{.chunks = 1}, {.chunks = 1}};
  const std::filesystem::path path = folder_.path() / "model";

  ASSERT_OK(Connect()->DownloadModel("hippocampus", Sha256Of(server_.model),
                                     static_cast<std::int64_t>(server_.model.size()), path,
                                     unobserved_, never_));

  EXPECT_THAT(server_.download_offsets, ElementsAre(0, kChunk, 2 * kChunk));
  EXPECT_EQ(ContentOf(path), server_.model);
}

TEST_F(GrpcFederationSession, AnotherProcessGoesOnWithADownload) {
  server_.model = SomeWeights();
  server_.downloads = {{.chunks = 2}};
  const std::filesystem::path path = folder_.path() / "model";
  const auto bytes = static_cast<std::int64_t>(server_.model.size());
  const std::string digest = Sha256Of(server_.model);

  EXPECT_THAT(
      Connect(RetryPolicy::Once())->DownloadModel("s", digest, bytes, path, unobserved_, never_),
      StatusIs(absl::StatusCode::kUnavailable));
  ASSERT_OK(
      Connect(RetryPolicy::Once())->DownloadModel("s", digest, bytes, path, unobserved_, never_));

  EXPECT_THAT(server_.download_offsets, ElementsAre(0, 2 * kChunk));
  EXPECT_EQ(ContentOf(path), server_.model);
}

TEST_F(GrpcFederationSession, AsksForAModelThatArrivesBrokenUntilItIsMended) {
  server_.model = SomeWeights();
  // More often than anything is tried that is not tried for ever.
  server_.downloads.assign(5, {.broken = true});
  const auto bytes = static_cast<std::int64_t>(server_.model.size());
  const std::string digest = Sha256Of(server_.model);
  const std::filesystem::path path = folder_.path() / "model";

  ASSERT_OK(Connect()->DownloadModel("s", digest, bytes, path, unobserved_, never_));
  EXPECT_EQ(ContentOf(path), server_.model);
  EXPECT_THAT(server_.download_offsets, ElementsAre(0, 0, 0, 0, 0, 0));

  server_.downloads = {{.broken = true}};
  EXPECT_THAT(
      Connect(RetryPolicy::Once())
          ->DownloadModel("s", digest, bytes, folder_.path() / "other", unobserved_, never_),
      StatusIs(absl::StatusCode::kUnavailable,
               AllOf(HasSubstr("damaged model"), HasSubstr(digest))));
}

TEST_F(GrpcFederationSession, TellsHowManyBytesOfATransferHaveGoneBy) {
  server_.model = SomeWeights();
  const auto bytes = static_cast<std::int64_t>(server_.model.size());
  const std::filesystem::path path = folder_.path() / "model";
  std::vector<std::int64_t> seen;
  const TransferObserver observe = [&](std::int64_t done, std::int64_t total) {
    EXPECT_EQ(total, bytes);
    seen.push_back(done);
  };

  ASSERT_OK(Connect()->DownloadModel("s", Sha256Of(server_.model), bytes, path, observe, never_));
  EXPECT_THAT(seen, ElementsAre(kChunk, 2 * kChunk, bytes));
  seen.clear();
  ASSERT_OK(Connect()->UploadWeights("s", 1, Sha256Of(server_.model), path, observe, never_));
  EXPECT_THAT(seen, ElementsAre(kChunk, 2 * kChunk, bytes));
}

TEST_F(GrpcFederationSession, UploadsNoByteTwiceAfterACutLink) {
  const std::string weights = SomeWeights();
  const std::filesystem::path path = folder_.path() / "update";
  ASSERT_OK(WriteFileAtomically(path, weights));
  server_.upload_cuts = {1};

  ASSERT_OK(Connect()->UploadWeights("s", 1, Sha256Of(weights), path, unobserved_, never_));

  EXPECT_EQ(server_.uploaded, weights);
  EXPECT_EQ(server_.uploads, 2);
  EXPECT_EQ(server_.upload_bytes_received, static_cast<std::int64_t>(weights.size()));
}

TEST_F(GrpcFederationSession, UploadsNothingThatTheServerHas) {
  const std::string weights = SomeWeights();
  const std::filesystem::path path = folder_.path() / "update";
  ASSERT_OK(WriteFileAtomically(path, weights));
  server_.uploaded = weights;

  ASSERT_OK(Connect()->UploadWeights("s", 1, Sha256Of(weights), path, unobserved_, never_));

  EXPECT_EQ(server_.uploads, 0);
}

TEST_F(GrpcFederationSession, UploadsAgainWhatArrivedBroken) {
  const std::string weights = SomeWeights();
  const std::filesystem::path path = folder_.path() / "update";
  ASSERT_OK(WriteFileAtomically(path, weights));
  server_.uploaded = "other bytes from an earlier life";

  ASSERT_OK(Connect()->UploadWeights("s", 1, Sha256Of(weights), path, unobserved_, never_));

  EXPECT_EQ(server_.uploaded, weights);
  EXPECT_EQ(server_.uploads, 2);
}

TEST_F(GrpcFederationSession, SubmitsAnUpdateAgainWhoseAnswerWasLost) {
  server_.lost_answers = 2;
  RoundUpdate update;
  update.study = "hippocampus";
  update.round = 3;
  update.training_cases = 12;
  update.model_scores = {
      {.index = 0,
       .cohort = "",
       .labels = {{.reference_voxels = 4, .predicted_voxels = 4, .common_voxels = 2}}}};

  ASSERT_OK(Connect()->SubmitUpdate(update, never_));

  ASSERT_THAT(server_.submissions, SizeIs(3));
  EXPECT_EQ(server_.submissions.back().model_scores().cases(0).labels(0).dice(), 0.5);
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(server_.submissions.front(),
                                                                 server_.submissions.back()));
}

TEST_F(GrpcFederationSession, OpensTheAssignmentStreamAgainAfterALoss) {
  server_.Script({TrainAssignment(1)}, {grpc::StatusCode::UNAVAILABLE, "restarting"});
  server_.Script({TrainAssignment(2)}, grpc::Status::OK);
  std::vector<int> rounds;
  std::stop_source stop;

  EXPECT_THAT(Connect()->Watch(
                  [&](const std::vector<SiteAssignment>& assignments) {
                    rounds.push_back(assignments.at(0).round);
                    if (rounds.back() == 2) stop.request_stop();
                  },
                  stop.get_token()),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT(rounds, ElementsAre(1, 2));
}

TEST_F(GrpcFederationSession, DoesNotFightAnotherClientOfTheSameSiteForTheStream) {
  server_.Script({TrainAssignment(1)}, {grpc::StatusCode::ABORTED, "replaced"});

  EXPECT_THAT(Connect()->Watch([](const std::vector<SiteAssignment>&) {}, never_),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("stop one of the two")));
}

// Names become paths, and lines of the site's log.
TEST_F(GrpcFederationSession, EndsAWatchThatAsksForWhatCannotBe) {
  for (const std::string study : {"../models", "a\nforged line", ""}) {
    v1::Assignments list = TrainAssignment(1);
    list.mutable_assignments(0)->set_study(study);
    server_.Script({list}, grpc::Status::OK);

    EXPECT_THAT(
        Connect()->Watch([](const std::vector<SiteAssignment>&) { FAIL(); }, never_),
        StatusIs(absl::StatusCode::kDataLoss, AllOf(HasSubstr("cannot be"), Not(HasSubstr("\n")))));
  }
}

TEST_F(GrpcFederationSession, EndsAWatchThatTheServerRefuses) {
  server_.Script({}, {grpc::StatusCode::PERMISSION_DENIED, "north is suspended"});

  EXPECT_THAT(Connect()->Watch([](const std::vector<SiteAssignment>&) {}, never_),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("north is suspended")));
}

TEST_F(GrpcFederationSession, TakesNoCertificateOfAnotherSite) {
  const Invitation invitation{.server = server_.address(),
                              .site = "north",
                              .token = "token",
                              .authority = authority_.Site("north").authority};
  const std::string request =
      *CreateSigningRequest(*CreatePrivateKey(), {Identity::Role::kSite, "north"});

  server_.certificate = authority_.Site("south").certificate;
  EXPECT_THAT(RequestCertificate(invitation, request, never_),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("no certificate of north")));
  server_.certificate = authority_.Site("north").certificate;
  EXPECT_THAT(RequestCertificate(invitation, request, never_), IsOkAndHolds(server_.certificate));
}

TEST_F(GrpcFederationSession, SaysWhichVersionsDoNotFit) {
  server_.hello = {grpc::StatusCode::UNIMPLEMENTED, "update isoscan-client to 0.2"};

  EXPECT_THAT(Connect()->Hello(never_),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("update isoscan-client")));
}

/// The pause after a failed try is ten seconds and more here. Only a session that lets the
/// connection come back meanwhile, and then ends the pause, is through in time.
TEST_F(GrpcFederationSession, IsBackAsSoonAsTheServerIsHoweverLongThePause) {
  auto server = std::make_unique<FakeFederationService>(authority_.Server("server.test"));
  const int port = server->port();
  const auto session =
      ConnectOverGrpc(server->address(), authority_.Site("north"),
                      {.first_delay = milliseconds(20'000), .longest_delay = milliseconds(20'000)});
  ASSERT_OK(session->Hello(never_));
  server.reset();
  std::atomic<bool> answered = false;
  std::jthread caller([&](const std::stop_token& stop) { answered = session->Hello(stop).ok(); });
  std::this_thread::sleep_for(milliseconds(300));  // Into the pause.

  server = std::make_unique<FakeFederationService>(authority_.Server("server.test"), port);

  const auto start = std::chrono::steady_clock::now();
  while (!answered && std::chrono::steady_clock::now() - start < milliseconds(8'000)) {
    std::this_thread::sleep_for(milliseconds(20));
  }
  EXPECT_TRUE(answered);
}

TEST_F(GrpcFederationSession, EndsAPauseWhenItIsStopped) {
  const auto session =
      ConnectOverGrpc("127.0.0.1:1", authority_.Site("north"),
                      {.first_delay = milliseconds(60'000), .longest_delay = milliseconds(60'000)});
  std::stop_source stop;
  const auto start = std::chrono::steady_clock::now();
  std::jthread stopper([&] {
    std::this_thread::sleep_for(milliseconds(200));
    stop.request_stop();
  });

  EXPECT_THAT(session->Hello(stop.get_token()), StatusIs(absl::StatusCode::kCancelled));

  EXPECT_LT(std::chrono::steady_clock::now() - start, milliseconds(5'000));
}

TEST_F(GrpcFederationSession, SaysThatNothingListens) {
  const auto session =
      ConnectOverGrpc("127.0.0.1:1", authority_.Site("north"), RetryPolicy::Once());

  EXPECT_THAT(session->Hello(never_),
              StatusIs(absl::StatusCode::kUnavailable,
                       AllOf(HasSubstr("127.0.0.1:1"), HasSubstr("nothing listens there"))));
}

TEST_F(GrpcFederationSession, SaysThatTheServerIsOfAnotherAuthority) {
  const TestAuthority other;
  TlsFiles files = authority_.Site("north");
  files.authority = other.certificate();
  const auto session = ConnectOverGrpc(server_.address(), files, RetryPolicy::Once());

  EXPECT_THAT(session->Hello(never_),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("certificate is not from this site's authority")));
}

TEST_F(GrpcFederationSession, SaysThatTheSitesCertificateMayHaveBeenRefused) {
  const TestAuthority other;
  TlsFiles files = other.Site("north");
  files.authority = authority_.certificate();
  const auto session = ConnectOverGrpc(server_.address(), files, RetryPolicy::Once());

  EXPECT_THAT(session->Hello(never_), StatusIs(absl::StatusCode::kUnavailable,
                                               HasSubstr("or it refused this site's certificate")));
}

/// Sets a variable for the life of one test.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const std::string& value) : name_(name) {
    setenv(name, value.c_str(), /*overwrite=*/1);
  }
  ~ScopedVariable() { unsetenv(name_); }
  ScopedVariable(const ScopedVariable&) = delete;
  ScopedVariable& operator=(const ScopedVariable&) = delete;

 private:
  const char* name_;
};

TEST_F(GrpcFederationSession, GoesThroughTheProxyThatTheEnvironmentNames) {
  ConnectProxy proxy(server_.port());
  const ScopedVariable variable("https_proxy", proxy.url());
  // No resolver knows this name: only the proxy brings it anywhere.
  const auto session =
      ConnectOverGrpc("server.test:50051", authority_.Site("north"), RetryPolicy::Once());

  ASSERT_OK(session->Hello(never_));

  EXPECT_THAT(proxy.requests(), ElementsAre(HasSubstr("CONNECT server.test:50051")));
}

TEST_F(GrpcFederationSession, NeverTakesLoopbackToTheProxy) {
  const ScopedVariable variable("https_proxy", "http://127.0.0.1:1");

  EXPECT_OK(Connect(RetryPolicy::Once())->Hello(never_));
}

TEST_F(GrpcFederationSession, NamesTheProxyThatCannotBeReached) {
  const ScopedVariable variable("https_proxy", "http://user:secret@127.0.0.1:1");
  const auto session =
      ConnectOverGrpc("server.test:50051", authority_.Site("north"), RetryPolicy::Once());

  EXPECT_THAT(session->Hello(never_), StatusIs(absl::StatusCode::kUnavailable,
                                               AllOf(HasSubstr("through the proxy 127.0.0.1:1"),
                                                     testing::Not(HasSubstr("secret")))));
}

}  // namespace
}  // namespace isoscan
