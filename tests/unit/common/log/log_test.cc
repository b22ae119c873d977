#include "common/log/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kLine = "[0-9-]+T[0-9:.]+[+-][0-9:]+ info round closed round=3 sites=2\n";

std::string Content(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(Log, WritesOneLinePerEventToStandardErrorAndTheFile) {
  const TemporaryDirectory folder;
  const std::filesystem::path file = folder.path() / "logs" / "server.log";

  testing::internal::CaptureStderr();
  ASSERT_OK(StartLog("info", file));
  spdlog::info("round closed round={} sites={}", 3, 2);

  EXPECT_THAT(testing::internal::GetCapturedStderr(), testing::MatchesRegex(kLine));
  EXPECT_THAT(Content(file), testing::MatchesRegex(kLine));
}

TEST(Log, LeavesOutWhatIsBelowItsLevel) {
  testing::internal::CaptureStderr();
  ASSERT_OK(StartLog("warn", ""));
  spdlog::info("site connected");
  spdlog::warn("site slow");

  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              AllOf(HasSubstr("warning site slow"), Not(HasSubstr("connected"))));
}

TEST(Log, KeepsFiveFilesOfTenMegabytes) {
  const TemporaryDirectory folder;
  testing::internal::CaptureStderr();
  ASSERT_OK(StartLog("info", folder.path() / "server.log"));
  const std::string megabyte(1 << 20, 'x');
  for (int i = 0; i < 70; ++i) spdlog::info(megabyte);
  testing::internal::GetCapturedStderr();

  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    ++files;
    EXPECT_LE(entry.file_size(), 11 << 20) << entry.path();
  }
  EXPECT_EQ(files, 5);
}

TEST(Log, RefusesAnUnknownLevelAndAFileThatCannotBe) {
  EXPECT_THAT(StartLog("loud", ""),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "the log level is \"loud\", allowed are debug, info, warn, error"));
  EXPECT_THAT(StartLog("info", "/dev/null/server.log"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/dev/null/server.log")));
}

}  // namespace
}  // namespace isoscan
