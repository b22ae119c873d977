#include "common/weights/sha256.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using testing::HasSubstr;

constexpr char kOfAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

// NIST's examples for FIPS 180-4.
TEST(Sha256, GivesThePublishedDigests) {
  EXPECT_EQ(Sha256Of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Of("abc"), kOfAbc);
  EXPECT_EQ(Sha256Of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(Sha256Of(std::string(1'000'000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, IsTheSameHoweverTheBytesArrive) {
  for (const std::size_t cut : {0U, 1U, 2U, 3U}) {
    Sha256 sha256;
    sha256.Update(std::string("abc").substr(0, cut));
    sha256.Update(std::string("abc").substr(cut));
    EXPECT_EQ(std::move(sha256).Finish(), kOfAbc) << cut;
  }
}

TEST(Sha256OfFile, EqualsTheDigestOfTheBytes) {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "blob";
  std::string bytes(600'000, '\0');  // More than two reads.
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7919 >> 3);
  std::ofstream(path, std::ios::binary) << bytes;

  EXPECT_THAT(Sha256OfFile(path), IsOkAndHolds(Sha256Of(bytes)));
}

TEST(Sha256OfFile, SaysWhenTheFileIsNotThere) {
  EXPECT_THAT(Sha256OfFile("/nowhere/at-all"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("at-all")));
}

TEST(Sha256OfFile, SaysWhenItIsAFolder) {
  const TemporaryDirectory folder;
  EXPECT_THAT(Sha256OfFile(folder.path()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("directory")));
}

TEST(IsSha256, TakesNothingThatCouldLeaveAFolder) {
  EXPECT_TRUE(IsSha256(kOfAbc));
  EXPECT_FALSE(IsSha256(""));
  EXPECT_FALSE(IsSha256(std::string(kOfAbc) + "0"));
  EXPECT_FALSE(IsSha256(std::string(kOfAbc).substr(1)));
  EXPECT_FALSE(IsSha256("../" + std::string(kOfAbc).substr(3)));
  EXPECT_FALSE(IsSha256("BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD"));
}

}  // namespace
}  // namespace isoscan
