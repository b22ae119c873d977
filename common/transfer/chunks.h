#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace isoscan {

/// Bytes of one message of a model's transfer: 256 KiB is fastest (measured, docs/performance.md).
inline constexpr std::size_t kChunkBytes = 256 * 1024;

/// A large file that arrives in chunks and survives both processes: what is there is never sent
/// again. The bytes grow in `path`.part; Finish() checks size and digest, syncs and renames.
///
/// Thread safety: none; one owner per file.
class PartialFile {
 public:
  /// Opens or continues `path`.part. When a finished `path` exists, offset() is `size`.
  /// Errors: RESOURCE_EXHAUSTED disk full; UNAVAILABLE other I/O errors.
  static absl::StatusOr<PartialFile> Open(const std::filesystem::path& path, std::int64_t size,
                                          std::string sha256);
  PartialFile(PartialFile&&) noexcept;
  PartialFile& operator=(PartialFile&&) noexcept;
  ~PartialFile();

  /// Bytes that are already here.
  std::int64_t offset() const { return offset_; }

  /// Errors: INVALID_ARGUMENT when `at` is not offset() or the file would outgrow its size;
  ///         RESOURCE_EXHAUSTED disk full.
  absl::Status Append(std::int64_t at, std::string_view bytes);

  /// Errors: FAILED_PRECONDITION when bytes are missing; DATA_LOSS when the digest differs (the
  ///         partial file is removed, so that the transfer starts again).
  absl::Status Finish();

 private:
  PartialFile() = default;
  std::filesystem::path path_;
  std::int64_t size_ = 0;
  std::int64_t offset_ = 0;
  std::string sha256_;
  int descriptor_ = -1;
};

/// Reads up to kChunkBytes at `offset`; empty at the end of the file.
absl::StatusOr<std::string> ReadChunk(const std::filesystem::path& path, std::int64_t offset);

/// Writes a file that appears whole or not at all: temporary name, fsync, rename, fsync of the folder.
absl::Status WriteFileAtomically(const std::filesystem::path& path, std::string_view content);

}  // namespace isoscan
