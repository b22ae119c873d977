#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/weights/block_sums.h"
#include "common/weights/sha256.h"

namespace isoscan {

/// Bytes of one message of a model's transfer: 256 KiB is fastest (measured, docs/performance.md).
inline constexpr std::size_t kChunkBytes = 256 * 1024;

/// A large file that arrives in chunks and survives both processes: what is there is never sent
/// again. The bytes grow in `path`.part; Finish() checks size and digest, waits for the disk, which
/// has been writing all along, and renames.
///
/// A second owner of the same file (a site that reconnects before the server has noticed that its
/// old stream is dead) does no harm: both write the same bytes at the same places.
/// Thread safety: none.
class PartialFile {
 public:
  struct Options {
    bool keep_block_sums = false;  ///< BlockSums of the bytes that came, beside the finished file.
    /// Whether a finished file outlives a power failure. Of one that need not, because it can be
    /// fetched again, the user checks the digest.
    bool durable = true;
  };

  /// Opens or continues `path`.part. When a finished `path` exists, offset() is `size`.
  /// Errors: INVALID_ARGUMENT a negative size or what is no SHA-256; and those of WriteError.
  static absl::StatusOr<PartialFile> Open(const std::filesystem::path& path, std::int64_t size,
                                          std::string sha256, Options options);
  static absl::StatusOr<PartialFile> Open(const std::filesystem::path& path, std::int64_t size,
                                          std::string sha256) {
    return Open(path, size, std::move(sha256), Options());
  }
  PartialFile(PartialFile&&) noexcept;
  PartialFile& operator=(PartialFile&&) noexcept;
  ~PartialFile();

  /// Bytes that are already here.
  std::int64_t offset() const { return offset_; }

  /// Errors: INVALID_ARGUMENT when `at` is not offset() or the file would outgrow its size;
  ///         and those of WriteError: RESOURCE_EXHAUSTED disk full, NOT_FOUND or DATA_LOSS.
  absl::Status Append(std::int64_t at, std::string_view bytes);

  /// Errors: FAILED_PRECONDITION when bytes are missing; DATA_LOSS when the digest differs (the
  ///         partial file is removed, so that the transfer starts again). Repeating it is OK.
  absl::Status Finish();

 private:
  PartialFile() = default;
  std::filesystem::path path_;
  std::int64_t size_ = 0;
  std::int64_t offset_ = 0;
  std::int64_t write_back_ = 0;  // The disk was asked to write the bytes before this one.
  std::string sha256_;
  Options options_;
  // Of the bytes so far, when this object has seen every one.
  struct Running {
    Sha256 sha256;
    BlockSums blocks;
  };
  std::optional<Running> running_;
  bool finished_ = false;
  int descriptor_ = -1;
};

/// A file that is sent in chunks.
/// Thread safety: const methods from any thread.
class ChunkedFile {
 public:
  /// Errors: those of FileError(): NOT_FOUND no such file.
  static absl::StatusOr<ChunkedFile> Open(const std::filesystem::path& path);
  ChunkedFile(ChunkedFile&&) noexcept;
  ChunkedFile& operator=(ChunkedFile&&) noexcept;
  ~ChunkedFile();

  /// Up to kChunkBytes at `offset` into `chunk`, whose memory is used again; empty at the end of
  /// the file.
  /// Errors: NOT_FOUND a folder; INVALID_ARGUMENT a negative offset; DATA_LOSS the disk fails.
  absl::Status Read(std::int64_t offset, std::string& chunk) const;

 private:
  ChunkedFile(std::string name, int descriptor) : name_(std::move(name)), descriptor_(descriptor) {}
  std::string name_;
  int descriptor_ = -1;
};

/// One chunk of a file. Errors: those of ChunkedFile.
absl::StatusOr<std::string> ReadChunk(const std::filesystem::path& path, std::int64_t offset);

/// Writes a file that appears whole or not at all: temporary name, fsync, rename, fsync of the
/// folder. Its permissions are those of the umask.
/// Errors: those of WriteError: RESOURCE_EXHAUSTED disk full, NOT_FOUND or DATA_LOSS otherwise.
absl::Status WriteFileAtomically(const std::filesystem::path& path, std::string_view content);

}  // namespace isoscan
