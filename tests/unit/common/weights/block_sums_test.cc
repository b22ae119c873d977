#include "common/weights/block_sums.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <fstream>
#include <string>

#include "common/random/philox.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

constexpr auto kBlock = static_cast<std::size_t>(BlockSums::kBlockBytes);

std::string RandomBytes(std::size_t count) {
  std::string bytes(count, '\0');
  RandomStream random(1, "bytes");
  for (char& byte : bytes) byte = static_cast<char>(random.NextBits());
  return bytes;
}

class BlockSumsTest : public testing::Test {
 protected:
  /// Writes the file, and answers with the sums of its bytes as they come in pieces of this size.
  BlockSums Write(const std::string& bytes, std::size_t piece) const {
    std::ofstream(file_, std::ios::binary) << bytes;
    BlockSums sums;
    for (std::size_t at = 0; at < bytes.size(); at += piece) sums.Add(bytes.substr(at, piece));
    return sums;
  }

  const TemporaryDirectory folder_;
  const std::filesystem::path file_ = folder_.path() / "update";
};

TEST_F(BlockSumsTest, AreTheSameHoweverTheBytesCome) {
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{1}, kBlock, 3 * kBlock - 1, 3 * kBlock, 3 * kBlock + 1}) {
    const std::string bytes = RandomBytes(size);
    for (const std::size_t piece : {std::size_t{7}, kBlock - 1, kBlock, 2 * kBlock + 5}) {
      const BlockSums sums = Write(bytes, piece);
      EXPECT_EQ(sums.bytes(), static_cast<std::int64_t>(size));
      EXPECT_TRUE(sums.Match(0, bytes)) << size << " in pieces of " << piece;
      ASSERT_OK(sums.WriteBeside(file_));
      ASSERT_OK_AND_ASSIGN(const BlockSums kept, BlockSums::ReadBeside(file_));
      EXPECT_EQ(kept.bytes(), sums.bytes());
      EXPECT_TRUE(kept.Match(0, bytes));
    }
  }
}

TEST_F(BlockSumsTest, FindEveryBitThatHasChangedInTheBlockWhereItLies) {
  std::string bytes = RandomBytes(2 * kBlock + 100);
  const BlockSums sums = Write(bytes, 1000);
  RandomStream random(2, "places");
  for (int trial = 0; trial < 500; ++trial) {
    const auto place =
        static_cast<std::size_t>(random.Below(static_cast<std::int64_t>(bytes.size())));
    const char flipped = static_cast<char>(1 << random.Below(8));
    bytes[place] = static_cast<char>(bytes[place] ^ flipped);
    for (std::size_t at = 0; at < bytes.size(); at += kBlock) {
      EXPECT_EQ(sums.Match(static_cast<std::int64_t>(at), bytes.substr(at, kBlock)),
                place / kBlock != at / kBlock);
    }
    bytes[place] = static_cast<char>(bytes[place] ^ flipped);
  }
}

TEST_F(BlockSumsTest, KnowWholeBlocksOfTheirFileAlone) {
  const std::string bytes = RandomBytes(2 * kBlock + 100);
  const BlockSums sums = Write(bytes, bytes.size());

  EXPECT_FALSE(sums.Match(1, bytes.substr(1, kBlock))) << "begins within a block";
  EXPECT_FALSE(sums.Match(0, bytes.substr(0, 100))) << "ends within one";
  EXPECT_FALSE(sums.Match(0, bytes + "more"));
  EXPECT_FALSE(sums.Match(static_cast<std::int64_t>(kBlock), bytes)) << "of another place";
}

TEST_F(BlockSumsTest, AreMadeAgainWhereTheyAreLostOrDamaged) {
  const std::string bytes = RandomBytes(kBlock + 100);
  const std::string digest = Sha256Of(bytes);
  Write(bytes, bytes.size());
  const std::filesystem::path sums = BlockSums::PathFor(file_);
  ASSERT_OK(BlockSumsOf(file_, digest));
  const auto whole = std::filesystem::file_size(sums);

  for (std::uintmax_t size = 0; size < whole; ++size) {
    std::filesystem::resize_file(sums, size);
    EXPECT_THAT(BlockSums::ReadBeside(file_), StatusIs(absl::StatusCode::kDataLoss)) << size;
    ASSERT_OK_AND_ASSIGN(const BlockSums again, BlockSumsOf(file_, digest));
    EXPECT_TRUE(again.Match(0, bytes));
    EXPECT_EQ(std::filesystem::file_size(sums), whole);
  }
  for (std::uintmax_t place = 0; place < whole; ++place) {
    std::fstream file(sums, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(place));
    const int byte = file.get();
    file.seekp(static_cast<std::streamoff>(place));
    file.put(static_cast<char>(byte ^ 16));
    file.close();
    EXPECT_THAT(BlockSums::ReadBeside(file_), StatusIs(absl::StatusCode::kDataLoss)) << place;
    EXPECT_OK(BlockSumsOf(file_, digest));
  }
}

TEST_F(BlockSumsTest, AreNeverMadeOfAFileThatIsNotWhatItWas) {
  const std::string bytes = RandomBytes(1000);
  Write(bytes, bytes.size());

  EXPECT_THAT(BlockSumsOf(file_, Sha256Of("another")),
              StatusIs(absl::StatusCode::kDataLoss, testing::HasSubstr(Sha256Of(bytes))));
  EXPECT_FALSE(std::filesystem::exists(BlockSums::PathFor(file_)));
  EXPECT_THAT(BlockSumsOf(folder_.path() / "none", Sha256Of(bytes)),
              StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace isoscan
