#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace isoscan {

/// A file that appears whole or not at all: written under a temporary name in the same folder, then
/// fsync, rename, fsync of the folder. The disk begins to write a large file while it grows.
/// Without Commit() the destructor removes what was written.
///
/// A process that is killed leaves `path`.tmp-*; nothing reads such a file, and whoever owns the
/// folder may remove it while no writer runs.
/// Errors of every method: those of WriteError, also for a folder that does not exist.
/// Thread safety: WriteAt from any thread; otherwise none.
class AtomicFile {
 public:
  static absl::StatusOr<AtomicFile> Create(const std::filesystem::path& path);

  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&& other) noexcept;
  ~AtomicFile();

  absl::Status WriteAt(std::int64_t offset, std::string_view bytes);

  /// From now on `path` has the new content, also after a power failure. Call once, last.
  absl::Status Commit();

 private:
  AtomicFile() = default;
  void Discard();

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  std::atomic<std::int64_t> written_ = 0;
  int descriptor_ = -1;
};

/// The status of a failed write to `path`, whose folder the message leaves out: FileError() of
/// common/status/file_error.h, with RESOURCE_EXHAUSTED when the disk or quota is full, NOT_FOUND or
/// DATA_LOSS otherwise. `error` is an errno.
absl::Status WriteError(const std::filesystem::path& path, int error);

/// Makes a rename or removal in `folder` outlive a power failure.
absl::Status SyncFolder(const std::filesystem::path& folder);

}  // namespace isoscan
