#include "common/transfer/chunks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <utility>

#include "common/weights/block_sums.h"
#include "common/weights/sha256.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using absl::StatusCode;
using testing::HasSubstr;

std::string ContentOf(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Bytes that repeat nowhere near a chunk's length.
std::string Payload(std::size_t bytes) {
  std::string text(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(i * i >> 7 ^ i);
  return text;
}

class PartialFileTest : public testing::Test {
 protected:
  absl::StatusOr<PartialFile> Open() const {
    return PartialFile::Open(path_, static_cast<std::int64_t>(payload_.size()), Sha256Of(payload_));
  }

  const TemporaryDirectory folder_;
  const std::filesystem::path path_ = folder_.path() / "update";
  const std::string payload_ = Payload(700'000);
};

TEST_F(PartialFileTest, BecomesTheFileWhenAllChunksHaveArrived) {
  auto file = Open();
  ASSERT_OK(file);
  for (std::size_t at = 0; at < payload_.size(); at += kChunkBytes) {
    ASSERT_OK(file->Append(static_cast<std::int64_t>(at), payload_.substr(at, kChunkBytes)));
  }
  EXPECT_FALSE(std::filesystem::exists(path_));

  ASSERT_OK(file->Finish());

  EXPECT_EQ(ContentOf(path_), payload_);
  EXPECT_FALSE(std::filesystem::exists(path_.string() + ".part"));
}

TEST_F(PartialFileTest, KeepsTheBlockSumsOfWhatCameWhereAsked) {
  const auto bytes = static_cast<std::int64_t>(payload_.size());
  for (const std::size_t cut : {std::size_t{0}, std::size_t{100'000}}) {
    std::filesystem::remove(path_);
    std::filesystem::remove(BlockSums::PathFor(path_));
    if (cut > 0) {
      ASSERT_OK_AND_ASSIGN(PartialFile killed, Open());
      ASSERT_OK(killed.Append(0, payload_.substr(0, cut)));
    }
    ASSERT_OK_AND_ASSIGN(PartialFile file,
                         PartialFile::Open(path_, bytes, Sha256Of(payload_),
                                           PartialFile::Options{.keep_block_sums = true}));
    ASSERT_OK(file.Append(file.offset(), payload_.substr(cut)));
    ASSERT_OK(file.Finish());

    ASSERT_OK_AND_ASSIGN(const BlockSums sums, BlockSums::ReadBeside(path_));
    EXPECT_EQ(sums.bytes(), bytes);
    EXPECT_TRUE(sums.Match(0, payload_));
  }
}

TEST_F(PartialFileTest, IsTheSameForFilesThatTheDiskBeginsToWriteEarlyAndForThoseThatNeedNotLast) {
  const std::string large = Payload(20'000'000);
  for (const bool durable : {true, false}) {
    std::filesystem::remove(path_);
    ASSERT_OK_AND_ASSIGN(PartialFile file,
                         PartialFile::Open(path_, static_cast<std::int64_t>(large.size()),
                                           Sha256Of(large), {.durable = durable}));
    for (std::size_t at = 0; at < large.size(); at += kChunkBytes) {
      ASSERT_OK(file.Append(static_cast<std::int64_t>(at), large.substr(at, kChunkBytes)));
    }
    ASSERT_OK(file.Finish());

    EXPECT_TRUE(ContentOf(path_) == large) << durable;
    EXPECT_FALSE(std::filesystem::exists(path_.string() + ".part"));
  }
}

TEST_F(PartialFileTest, ContinuesWhereAKilledProcessStopped) {
  // Every cut, also one before the first and one after the last byte.
  for (const std::size_t cut :
       {std::size_t{0}, std::size_t{1}, kChunkBytes, payload_.size() - 1, payload_.size()}) {
    std::filesystem::remove(path_);
    {
      auto killed = Open();
      ASSERT_OK(killed);
      ASSERT_OK(killed->Append(0, payload_.substr(0, cut)));
    }
    auto file = Open();
    ASSERT_OK(file);
    EXPECT_EQ(file->offset(), static_cast<std::int64_t>(cut));
    ASSERT_OK(file->Append(file->offset(), payload_.substr(cut)));
    ASSERT_OK(file->Finish());
    EXPECT_EQ(ContentOf(path_), payload_) << cut;
  }
}

TEST_F(PartialFileTest, AsksForNothingWhenTheFileIsThere) {
  std::ofstream(path_, std::ios::binary) << payload_;

  auto file = Open();

  ASSERT_OK(file);
  EXPECT_EQ(file->offset(), static_cast<std::int64_t>(payload_.size()));
  EXPECT_OK(file->Append(file->offset(), ""));
  EXPECT_OK(file->Finish());
  EXPECT_OK(file->Finish());
}

TEST_F(PartialFileTest, SaysHowManyBytesAreMissing) {
  auto file = Open();
  ASSERT_OK(file);
  ASSERT_OK(file->Append(0, payload_.substr(0, 10)));

  EXPECT_THAT(file->Finish(), StatusIs(StatusCode::kFailedPrecondition,
                                       HasSubstr("10 of 700000 bytes have arrived")));
  EXPECT_OK(file->Append(10, payload_.substr(10)));
  EXPECT_OK(file->Finish());
}

TEST_F(PartialFileTest, RefusesChunksThatAreNotNext) {
  auto file = Open();
  ASSERT_OK(file);
  ASSERT_OK(file->Append(0, payload_.substr(0, 10)));

  EXPECT_THAT(file->Append(0, payload_.substr(0, 10)),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("byte 0 came where byte 10")));
  EXPECT_THAT(file->Append(11, "x"), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(file->Append(-1, "x"), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_EQ(file->offset(), 10);
}

TEST_F(PartialFileTest, RefusesMoreBytesThanWereAnnounced) {
  auto file = Open();
  ASSERT_OK(file);
  ASSERT_OK(file->Append(0, payload_));

  EXPECT_THAT(file->Append(file->offset(), "x"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("1 bytes came where 0 of 700000")));
  EXPECT_OK(file->Finish());
}

TEST_F(PartialFileTest, StartsAgainAfterBytesThatDoNotMatchTheDigest) {
  std::string damaged = payload_;
  damaged[123] = static_cast<char>(damaged[123] ^ 1);
  auto file = Open();
  ASSERT_OK(file);
  ASSERT_OK(file->Append(0, damaged));

  EXPECT_THAT(file->Finish(), StatusIs(StatusCode::kDataLoss, HasSubstr("must start again")));
  EXPECT_FALSE(std::filesystem::exists(path_));

  auto again = Open();
  ASSERT_OK(again);
  EXPECT_EQ(again->offset(), 0);
  ASSERT_OK(again->Append(0, payload_));
  EXPECT_OK(again->Finish());
}

TEST_F(PartialFileTest, SeesDamageInThePartThatWasThereBefore) {
  std::ofstream(path_.string() + ".part", std::ios::binary) << std::string(1000, 'x');
  auto file = Open();
  ASSERT_OK(file);
  EXPECT_EQ(file->offset(), 1000);
  ASSERT_OK(file->Append(1000, payload_.substr(1000)));

  EXPECT_THAT(file->Finish(), StatusIs(StatusCode::kDataLoss));
}

TEST_F(PartialFileTest, DropsAPartThatIsLongerThanTheFile) {
  std::ofstream(path_.string() + ".part", std::ios::binary) << payload_ << "more";

  auto file = Open();

  ASSERT_OK(file);
  EXPECT_EQ(file->offset(), 0);
}

TEST_F(PartialFileTest, LetsTwoOwnersOfOneTransferFinish) {
  auto forgotten = Open();
  ASSERT_OK(forgotten);
  ASSERT_OK(forgotten->Append(0, payload_.substr(0, 1000)));
  auto current = Open();
  ASSERT_OK(current);
  ASSERT_OK(current->Append(1000, payload_.substr(1000)));
  ASSERT_OK(forgotten->Append(1000, payload_.substr(1000)));

  EXPECT_OK(current->Finish());
  EXPECT_OK(forgotten->Finish());
  EXPECT_EQ(ContentOf(path_), payload_);
}

TEST_F(PartialFileTest, TakesAFileWithoutBytes) {
  auto file = PartialFile::Open(path_, 0, Sha256Of(""));
  ASSERT_OK(file);
  ASSERT_OK(file->Finish());
  EXPECT_EQ(ContentOf(path_), "");
}

TEST_F(PartialFileTest, RefusesAnnouncementsThatMakeNoSense) {
  EXPECT_THAT(PartialFile::Open(path_, -1, Sha256Of("")),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("-1 bytes")));
  EXPECT_THAT(PartialFile::Open(path_, 1, "../../etc/passwd"),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("etc/passwd")));
  EXPECT_THAT(PartialFile::Open(folder_.path() / "missing" / "update", 1, Sha256Of("")),
              StatusIs(StatusCode::kNotFound, HasSubstr("cannot write update")));
}

TEST(ReadChunk, GivesTheFileInPiecesAndThenNothing) {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "model";
  const std::string payload = Payload(2 * kChunkBytes + 5);
  ASSERT_OK(WriteFileAtomically(path, payload));

  std::string assembled;
  while (true) {
    const auto chunk = ReadChunk(path, static_cast<std::int64_t>(assembled.size()));
    ASSERT_OK(chunk);
    if (chunk->empty()) break;
    EXPECT_LE(chunk->size(), kChunkBytes);
    assembled += *chunk;
  }

  EXPECT_EQ(assembled, payload);
  EXPECT_THAT(ReadChunk(path, 1'000'000'000), IsOkAndHolds(""));
}

TEST(ChunkedFile, GoesOnWithAFileThatWasRemovedMeanwhileAndUsesTheChunksMemoryAgain) {
  const TemporaryDirectory folder;
  const std::filesystem::path path = folder.path() / "model";
  const std::string payload = Payload(2 * kChunkBytes + 10);
  std::ofstream(path, std::ios::binary) << payload;
  ASSERT_OK_AND_ASSIGN(const ChunkedFile file, ChunkedFile::Open(path));
  std::filesystem::remove(path);

  std::string chunk;
  ASSERT_OK(file.Read(0, chunk));
  const char* const memory = chunk.data();
  EXPECT_EQ(chunk, payload.substr(0, kChunkBytes));
  ASSERT_OK(file.Read(2 * kChunkBytes, chunk));
  EXPECT_EQ(chunk, payload.substr(2 * kChunkBytes));
  EXPECT_EQ(chunk.data(), memory);
}

TEST(ReadChunk, SaysWhatItCannotRead) {
  const TemporaryDirectory folder;
  EXPECT_THAT(ReadChunk(folder.path() / "model", 0),
              StatusIs(StatusCode::kNotFound, HasSubstr("model")));
  std::ofstream(folder.path() / "empty").close();
  EXPECT_THAT(ReadChunk(folder.path() / "empty", -1), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(ReadChunk(folder.path(), 0), StatusIs(StatusCode::kNotFound));
}

TEST(WriteFileAtomically, ReplacesTheContent) {
  const TemporaryDirectory folder;
  ASSERT_OK(WriteFileAtomically(folder.path() / "file", "first and long"));
  ASSERT_OK(WriteFileAtomically(folder.path() / "file", "second"));
  EXPECT_EQ(ContentOf(folder.path() / "file"), "second");
}

}  // namespace
}  // namespace isoscan
