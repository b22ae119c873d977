#include "server/rpc/uploads.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "common/weights/sha256.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using testing::HasSubstr;

class UploadsTest : public testing::Test {
 protected:
  absl::StatusOr<std::int64_t> Announce(const std::string& site) {
    return uploads_.Announce(site, "tiny", folder_.path() / site,
                             static_cast<std::int64_t>(bytes_.size()), digest_);
  }
  absl::StatusOr<Uploads::Claim> ClaimFor(const std::string& site) {
    return uploads_.ClaimFor(site, "tiny", digest_);
  }

  const TemporaryDirectory folder_;
  const std::string bytes_ = "the bytes of an update";
  const std::string digest_ = Sha256Of(bytes_);
  Uploads uploads_;
};

TEST_F(UploadsTest, TakeOneStreamPerSiteAndStudy) {
  ASSERT_OK(Announce("north"));
  ASSERT_OK(Announce("south"));
  ASSERT_OK(ClaimFor("north"));

  EXPECT_THAT(ClaimFor("north"), StatusIs(absl::StatusCode::kAborted, HasSubstr("north")));
  EXPECT_OK(ClaimFor("south"));
}

TEST_F(UploadsTest, NewAnnouncementTakesOverFromAStreamThatHangs) {
  ASSERT_OK(Announce("north"));
  ASSERT_OK_AND_ASSIGN(const Uploads::Claim hanging, ClaimFor("north"));
  ASSERT_OK(hanging.upload->Append(hanging.number, 0, bytes_.substr(0, 5)));

  ASSERT_THAT(Announce("north"), IsOkAndHolds(5));
  ASSERT_OK_AND_ASSIGN(const Uploads::Claim latest, ClaimFor("north"));

  EXPECT_THAT(hanging.upload->Append(hanging.number, 5, bytes_.substr(5)),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("took over")));
  EXPECT_THAT(hanging.upload->Finish(hanging.number), StatusIs(absl::StatusCode::kAborted));
  EXPECT_OK(latest.upload->Append(latest.number, 5, bytes_.substr(5)));
  EXPECT_OK(latest.upload->Finish(latest.number));
  EXPECT_THAT(Sha256OfFile(folder_.path() / "north"), IsOkAndHolds(digest_));
}

TEST_F(UploadsTest, HoldAFileOpenOnlyWhileAStreamBringsIt) {
  const auto open_files = [&] {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code ignored;
      const std::string target = std::filesystem::read_symlink(entry.path(), ignored).string();
      count += target.starts_with(folder_.path().string()) ? 1 : 0;
    }
    return count;
  };
  ASSERT_OK(Announce("north"));
  EXPECT_EQ(open_files(), 0);
  ASSERT_OK_AND_ASSIGN(const Uploads::Claim claim, ClaimFor("north"));
  ASSERT_OK(claim.upload->Append(claim.number, 0, bytes_.substr(0, 5)));
  EXPECT_EQ(open_files(), 1);

  claim.upload->Release(claim.number);

  EXPECT_EQ(open_files(), 0);
  EXPECT_THAT(ClaimFor("north"), StatusIs(absl::StatusCode::kAborted, HasSubstr("BeginUpload")));
  EXPECT_THAT(Announce("north"), IsOkAndHolds(5)) << "what came is kept";
  ASSERT_OK_AND_ASSIGN(const Uploads::Claim next, ClaimFor("north"));
  claim.upload->Release(claim.number);
  EXPECT_OK(next.upload->Append(next.number, 5, bytes_.substr(5)))
      << "a stream that was taken over from closes nothing";
  EXPECT_OK(next.upload->Finish(next.number));
}

TEST_F(UploadsTest, WholeFileThatWasNotFinishedIsFinishedByItsAnnouncement) {
  ASSERT_OK(Announce("north"));
  ASSERT_OK_AND_ASSIGN(const Uploads::Claim claim, ClaimFor("north"));
  ASSERT_OK(claim.upload->Append(claim.number, 0, bytes_));
  ASSERT_FALSE(std::filesystem::exists(folder_.path() / "north"));

  EXPECT_THAT(Announce("north"), IsOkAndHolds(bytes_.size()));
  EXPECT_TRUE(std::filesystem::exists(folder_.path() / "north"));
}

TEST_F(UploadsTest, AskSitesToTryAgainWhenTheServersOwnDiskRefuses) {
  // A folder stands where the upload's bytes should go.
  std::filesystem::create_directory(folder_.path() / "north.part");

  EXPECT_THAT(Announce("north"),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("the server has trouble")));
}

TEST_F(UploadsTest, NeedAnAnnouncement) {
  ASSERT_OK(Announce("north"));

  EXPECT_THAT(ClaimFor("south"), StatusIs(absl::StatusCode::kAborted, HasSubstr("BeginUpload")));
  EXPECT_THAT(uploads_.ClaimFor("north", "tiny", Sha256Of("others")),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("BeginUpload")));
}

}  // namespace
}  // namespace isoscan
