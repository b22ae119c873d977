#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/weights/sha256.h"

namespace isoscan {

/// A checksum of each block of a file, made while its bytes come by and kept beside it as
/// `FILE.sums`: what has changed on the disk since is found out where a block is read, without
/// reading the whole. Against decay and mistakes; against intent, and for names, there is SHA-256.
///
/// XXH3 of 64 bits (libxxhash), which costs a tenth of what SHA-256 does. The file of sums:
/// "isosums1", the file's bytes, one sum for each block, and the sum of all that; each number 64
/// bits, little-endian.
///
/// Thread safety: const methods from any thread.
class BlockSums {
 public:
  static constexpr std::int64_t kBlockBytes = 16 * 1024;

  /// Where the sums of `file` lie.
  static std::filesystem::path PathFor(const std::filesystem::path& file);

  /// The next bytes of the file.
  void Add(std::string_view bytes);

  /// Bytes so far.
  std::int64_t bytes() const { return bytes_; }

  /// Whether these are the bytes of the file from `at` on. `at` is a multiple of kBlockBytes, and
  /// so is the end, unless it is the file's.
  bool Match(std::int64_t at, std::string_view bytes) const;

  /// Writes PathFor(file), without waiting for the disk: sums that are lost or damaged are known as
  /// such, and made anew. Errors: those of FileError().
  absl::Status WriteBeside(const std::filesystem::path& file) const;

  /// Errors: NOT_FOUND there are none; DATA_LOSS they are damaged.
  static absl::StatusOr<BlockSums> ReadBeside(const std::filesystem::path& file);

 private:
  void EndBlock();

  std::int64_t bytes_ = 0;
  std::vector<std::uint64_t> sums_;
  std::string pending_;  // Of the last block, which is not whole.
};

/// SHA-256 and block sums of a file, in one pass.
struct FileSums {
  std::string sha256;
  BlockSums blocks;
};
/// Errors: those of FileError().
absl::StatusOr<FileSums> SumsOfFile(const std::filesystem::path& path);

/// The block sums beside a file of this SHA-256. Where they are lost or damaged they are made anew
/// and kept, if the file is what it was.
/// Errors: DATA_LOSS the file has another SHA-256; those of FileError().
absl::StatusOr<BlockSums> BlockSumsOf(const std::filesystem::path& path, const std::string& sha256);

}  // namespace isoscan
