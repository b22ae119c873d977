#include "common/weights/atomic_file.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <random>
#include <utility>

#include "common/process/fault_point.h"
#include "common/status/file_error.h"
#include <fcntl.h>
#include <unistd.h>

namespace isoscan {
namespace {

constexpr std::int64_t kWriteBackBytes = 8 * 1024 * 1024;

}  // namespace

absl::StatusOr<AtomicFile> AtomicFile::Create(const std::filesystem::path& path) {
  AtomicFile file;
  file.path_ = path;
  std::random_device entropy;
  do {
    file.temporary_ = path;
    file.temporary_ += fmt::format(".tmp-{:08x}", entropy());
    file.descriptor_ = open(file.temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (file.descriptor_ < 0 && errno == EEXIST);
  if (file.descriptor_ < 0) return WriteError(path, errno);
  ISOSCAN_FAULT_POINT("file.created");
  return file;
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      written_(other.written_.load()),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

AtomicFile& AtomicFile::operator=(AtomicFile&& other) noexcept {
  if (this != &other) {
    Discard();
    path_ = std::move(other.path_);
    temporary_ = std::move(other.temporary_);
    written_ = other.written_.load();
    descriptor_ = std::exchange(other.descriptor_, -1);
  }
  return *this;
}

AtomicFile::~AtomicFile() { Discard(); }

absl::Status AtomicFile::WriteAt(std::int64_t offset, std::string_view bytes) {
  const auto size = static_cast<std::int64_t>(bytes.size());
  while (!bytes.empty()) {
    const ssize_t count = pwrite(descriptor_, bytes.data(), bytes.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return WriteError(path_, errno);
    bytes.remove_prefix(static_cast<std::size_t>(count));
    offset += count;
  }
  // All of the file so far, so that Commit() waits for the last few bytes only. Errors are told
  // there.
  const std::int64_t before = written_.fetch_add(size);
  if ((before + size) / kWriteBackBytes != before / kWriteBackBytes) {
    sync_file_range(descriptor_, /*offset=*/0, /*nbytes=*/0, SYNC_FILE_RANGE_WRITE);
  }
  ISOSCAN_FAULT_POINT("file.written");
  return absl::OkStatus();
}

absl::Status AtomicFile::Commit() {
  ISOSCAN_FAULT_POINT("file.before_sync");
  if (fsync(descriptor_) != 0) return WriteError(path_, errno);
  ISOSCAN_FAULT_POINT("file.before_rename");
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) return WriteError(path_, errno);
  ISOSCAN_FAULT_POINT("file.renamed");
  // From here on the destructor must not remove anything: the temporary name is gone.
  close(std::exchange(descriptor_, -1));
  return SyncFolder(path_.parent_path());
}

void AtomicFile::Discard() {
  if (descriptor_ < 0) return;
  close(std::exchange(descriptor_, -1));
  unlink(temporary_.c_str());
}

absl::Status WriteError(const std::filesystem::path& path, int error) {
  return FileError("cannot write", path.filename().string(), error);
}

absl::Status SyncFolder(const std::filesystem::path& folder) {
  const std::filesystem::path here = folder.empty() ? "." : folder;
  const int descriptor = open(here.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return WriteError(here, errno);
  const int result = fsync(descriptor);
  const int error = errno;
  close(descriptor);
  // Some network file systems cannot sync a folder and say so; the rename itself has happened.
  if (result != 0 && error != EINVAL && error != ENOTSUP) return WriteError(here, error);
  return absl::OkStatus();
}

}  // namespace isoscan
