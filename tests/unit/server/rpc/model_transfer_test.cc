#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "common/transfer/chunks.h"
#include "common/weights/block_sums.h"
#include "common/weights/sha256.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/server/rpc/started_study.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using FederationStub = v1::Federation::Stub;
using OperationsStub = v1::Operations::Stub;

class ModelTransfer : public StartedStudy {
 protected:
  const std::string bytes_ = UpdateBytes(toml(), "north");
  const std::string digest_ = Sha256Of(bytes_);

  absl::StatusOr<std::int64_t> Begin(const std::string& digest) {
    v1::BeginUploadRequest request;
    request.set_study("tiny");
    request.set_round(1);
    request.set_weights_digest(digest);
    request.set_weights_bytes(static_cast<std::int64_t>(bytes_.size()));
    ASSIGN_OR_RETURN(const v1::BeginUploadResponse response,
                     Call(*north(), &FederationStub::BeginUpload, request));
    return response.offset();
  }

  v1::UploadChunk Chunk(const std::string& digest, std::size_t offset, std::size_t size) const {
    v1::UploadChunk chunk;
    chunk.set_study("tiny");
    chunk.set_weights_digest(digest);
    chunk.set_offset(static_cast<std::int64_t>(offset));
    chunk.set_data(bytes_.substr(offset, size));
    return chunk;
  }

  absl::Status Send(const v1::UploadChunk& chunk) {
    TestContext context;
    v1::UploadResponse response;
    const auto stream = north()->Upload(&context, &response);
    stream->Write(chunk);
    stream->WritesDone();
    return FromGrpcStatus(stream->Finish());
  }
};

TEST_F(ModelTransfer, UploadGoesOnWhereACutLinkLeftIt) {
  constexpr std::size_t kFirst = 1000;
  ASSERT_THAT(Begin(digest_), IsOkAndHolds(0));
  EXPECT_THAT(Send(Chunk(digest_, 0, kFirst)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("1000 of")));

  ASSERT_THAT(Begin(digest_), IsOkAndHolds(kFirst));
  EXPECT_OK(Send(Chunk(digest_, kFirst, bytes_.size())));
  EXPECT_THAT(Begin(digest_), IsOkAndHolds(bytes_.size()));
}

TEST_F(ModelTransfer, UploadGoesOnAfterTheServersRestart) {
  ASSERT_THAT(Begin(digest_), IsOkAndHolds(0));
  EXPECT_THAT(Send(Chunk(digest_, 0, 10)), StatusIs(absl::StatusCode::kFailedPrecondition));

  Restart();

  EXPECT_THAT(Send(Chunk(digest_, 10, bytes_.size())),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("BeginUpload")));
  ASSERT_THAT(Begin(digest_), IsOkAndHolds(10));
  EXPECT_OK(Send(Chunk(digest_, 10, bytes_.size())));
}

TEST_F(ModelTransfer, UploadOfOtherBytesThanAnnouncedStartsAgain) {
  const std::string wrong = Sha256Of("other bytes");
  ASSERT_THAT(Begin(wrong), IsOkAndHolds(0));

  EXPECT_THAT(Send(Chunk(wrong, 0, bytes_.size())),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr(wrong)));
  EXPECT_THAT(Begin(wrong), IsOkAndHolds(0));
}

TEST_F(ModelTransfer, UploadRefusesAGapAndBytesBeyondTheEnd) {
  ASSERT_THAT(Begin(digest_), IsOkAndHolds(0));
  EXPECT_THAT(Send(Chunk(digest_, 5, 10)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("byte 0 is next")));

  ASSERT_THAT(Begin(digest_), IsOkAndHolds(0));
  v1::UploadChunk long_chunk = Chunk(digest_, 0, bytes_.size());
  long_chunk.mutable_data()->append("more");
  EXPECT_THAT(Send(long_chunk), StatusIs(absl::StatusCode::kInvalidArgument));

  ASSERT_THAT(Begin(digest_), IsOkAndHolds(0));
  long_chunk.mutable_data()->resize((1 << 20) + 1);
  EXPECT_THAT(Send(long_chunk),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1048577 bytes")));
}

TEST_F(ModelTransfer, DownloadStartsAtAnyByte) {
  v1::ListModelsResponse models = *Call(*operations(), &OperationsStub::ListModels, StudyRequest());
  v1::DownloadModelRequest request;
  request.set_study("tiny");
  request.set_model_digest(models.models(0).digest());
  const auto read = [&](std::int64_t offset) {
    request.set_offset(offset);
    std::vector<v1::ModelChunk> chunks;
    EXPECT_OK(CallStream(*north(), &FederationStub::DownloadModel, request, &chunks));
    std::string bytes;
    for (const v1::ModelChunk& chunk : chunks) {
      EXPECT_EQ(chunk.offset(), offset + static_cast<std::int64_t>(bytes.size()));
      EXPECT_LE(chunk.data().size(), kChunkBytes);
      bytes += chunk.data();
    }
    return bytes;
  };

  const std::string whole = read(0);

  EXPECT_EQ(Sha256Of(whole), request.model_digest());
  EXPECT_EQ(static_cast<std::int64_t>(whole.size()), models.models(0).bytes());
  EXPECT_EQ(read(777), whole.substr(777));
  EXPECT_EQ(read(static_cast<std::int64_t>(whole.size())), "");
}

TEST_F(ModelTransfer, DownloadSendsNoByteOfAModelThatWasDamagedAndGoesOnOnceItIsMended) {
  const v1::ListModelsResponse models =
      *Call(*operations(), &OperationsStub::ListModels, StudyRequest());
  v1::DownloadModelRequest request;
  request.set_study("tiny");
  request.set_model_digest(models.models(0).digest());
  const auto file = server().folder().models() / (request.model_digest() + ".safetensors");
  const auto sums = BlockSums::PathFor(file);
  const auto flip_a_bit = [&] {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(-3, std::ios::end);
    const int byte = stream.get();
    stream.seekp(-3, std::ios::end);
    stream.put(static_cast<char>(byte ^ 1));
  };
  for (const bool sums_are_kept : {true, false}) {
    flip_a_bit();
    if (!sums_are_kept) std::filesystem::remove(sums);
    EXPECT_THAT(CallStream(*north(), &FederationStub::DownloadModel, request),
                StatusIs(absl::StatusCode::kUnavailable,
                         AllOf(HasSubstr("trouble"), HasSubstr("is damaged"))));

    flip_a_bit();
    EXPECT_OK(CallStream(*north(), &FederationStub::DownloadModel, request));
    EXPECT_TRUE(std::filesystem::exists(sums));
  }
}

TEST_F(ModelTransfer, DownloadKnowsOnlyModelsOfTheSitesStudies) {
  v1::DownloadModelRequest request;
  request.set_study("tiny");
  request.set_model_digest(digest_);
  EXPECT_THAT(CallStream(*north(), &FederationStub::DownloadModel, request),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(digest_)));

  request.set_model_digest("../../authority/authority.key");
  EXPECT_THAT(CallStream(*north(), &FederationStub::DownloadModel, request),
              StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(ModelTransfer, OperatorGetsTheModelOfARoundWithItsDigest) {
  v1::DownloadGlobalModelRequest request;
  request.set_study("tiny");
  std::vector<v1::GlobalModelChunk> chunks;

  ASSERT_OK(CallStream(*operations(), &OperationsStub::DownloadGlobalModel, request, &chunks));

  std::string bytes;
  for (const v1::GlobalModelChunk& chunk : chunks) bytes += chunk.data();
  EXPECT_EQ(Sha256Of(bytes), chunks.front().digest());
  request.set_round(7);
  EXPECT_THAT(CallStream(*operations(), &OperationsStub::DownloadGlobalModel, request),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("7")));
}

}  // namespace
}  // namespace isoscan
