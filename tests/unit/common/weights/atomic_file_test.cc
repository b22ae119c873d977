#include "common/weights/atomic_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include <sys/stat.h>

namespace isoscan {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string ContentOf(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> NamesIn(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

TEST(AtomicFile, AppearsOnlyWhenItIsCommitted) {
  const TemporaryDirectory folder;
  auto file = AtomicFile::Create(folder.path() / "model");
  ASSERT_OK(file);
  ASSERT_OK(file->WriteAt(5, "world"));
  ASSERT_OK(file->WriteAt(0, "hello"));
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "model"));

  ASSERT_OK(file->Commit());

  EXPECT_EQ(ContentOf(folder.path() / "model"), "helloworld");
  EXPECT_THAT(NamesIn(folder.path()), ElementsAre("model"));
}

TEST(AtomicFile, LeavesTheOldContentAndNoTraceWithoutCommit) {
  const TemporaryDirectory folder;
  std::ofstream(folder.path() / "model") << "old";
  {
    auto file = AtomicFile::Create(folder.path() / "model");
    ASSERT_OK(file);
    ASSERT_OK(file->WriteAt(0, "half of the new"));
    const AtomicFile moved = *std::move(file);
  }

  EXPECT_EQ(ContentOf(folder.path() / "model"), "old");
  EXPECT_THAT(NamesIn(folder.path()), ElementsAre("model"));
}

TEST(AtomicFile, ReplacesWhatWasThere) {
  const TemporaryDirectory folder;
  std::ofstream(folder.path() / "model") << "old and longer";
  auto file = AtomicFile::Create(folder.path() / "model");
  ASSERT_OK(file);
  ASSERT_OK(file->WriteAt(0, "new"));
  ASSERT_OK(file->Commit());

  EXPECT_EQ(ContentOf(folder.path() / "model"), "new");
}

TEST(AtomicFile, HasThePermissionsOfTheUmask) {
  const TemporaryDirectory folder;
  const mode_t before = umask(027);
  auto file = AtomicFile::Create(folder.path() / "model");
  umask(before);
  ASSERT_OK(file);
  ASSERT_OK(file->Commit());

  struct stat status {};
  ASSERT_EQ(stat((folder.path() / "model").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0640U);
}

TEST(AtomicFile, SaysWhenTheFolderIsMissing) {
  const TemporaryDirectory folder;
  EXPECT_THAT(AtomicFile::Create(folder.path() / "missing" / "model"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("cannot write model")));
  EXPECT_THAT(NamesIn(folder.path()), IsEmpty());
}

TEST(WriteError, TellsAFullDiskFromOtherErrors) {
  EXPECT_THAT(WriteError("/secret/model", ENOSPC),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       "cannot write model: No space left on device; free some space and try "
                       "again"));
  EXPECT_THAT(WriteError("/secret/model", EDQUOT),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("quota")));
  EXPECT_THAT(WriteError("/secret/model", EIO), StatusIs(absl::StatusCode::kDataLoss));
}

}  // namespace
}  // namespace isoscan
