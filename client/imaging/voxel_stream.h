#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace isoscan {

/// The bytes of a file in order, inflated when it is gzipped (by its first bytes, whatever its name
/// says) or said to be deflated, in blocks: memory is a few hundred kilobytes whatever the file
/// holds. Several gzip members are read as one, their checksums and lengths checked
/// (docs/references.md#rfc1952); zeros after the last one are padding.
///
/// Thread safety: none.
class VoxelStream {
 public:
  enum class Packing {
    kByContent,  ///< gzip if the file begins so.
    kPlain,
    kDeflated,  ///< gzip or zlib; the latter once, whatever follows.
  };
  /// From byte `offset` of the file on.
  /// Errors: NOT_FOUND no such file, no plain file (a folder, a pipe), or not readable.
  static absl::StatusOr<VoxelStream> Open(const std::filesystem::path& path,
                                          Packing packing = Packing::kByContent,
                                          std::int64_t offset = 0);

  VoxelStream(VoxelStream&&) noexcept;
  VoxelStream& operator=(VoxelStream&&) noexcept;
  ~VoxelStream();

  /// Fills `out`; fewer bytes only at the end of the data.
  /// Errors: DATA_LOSS a damaged or truncated stream, or something else after it; an error of the
  ///         disk.
  absl::StatusOr<std::size_t> Read(std::span<std::byte> out);

  /// From its offset on the file cannot hold more than this, however well it is compressed (deflate
  /// reaches 1032:1): what a header asks for is compared with it before any memory is taken.
  std::int64_t greatest_bytes() const;

 private:
  struct State;
  explicit VoxelStream(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
};

/// gzip of `parts`, one after the other, handed to `write` block by block.
absl::Status Deflate(std::span<const std::span<const std::byte>> parts,
                     const std::function<absl::Status(std::span<const std::byte>)>& write);

}  // namespace isoscan
