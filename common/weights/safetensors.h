#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/weights/named_tensors.h"

namespace isoscan {

class BlockSums;

/// Free text beside the tensors ("__metadata__" of the format): study, plan digest, round.
using WeightsMetadata = std::map<std::string, std::string>;

/// Writes float32 tensors in the safetensors format: 8-byte little-endian header length, JSON
/// header padded with spaces to 8 bytes, then the values without gaps in name order. The same
/// tensors and metadata give the same bytes.
///
/// The file appears whole or not at all: a temporary name, fsync, rename.
/// Errors: those of WriteError: RESOURCE_EXHAUSTED when the disk is full.
/// Source: docs/wire-format.md.
absl::Status WriteSafetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                              const WeightsMetadata& metadata);

/// The same bytes in memory.
std::string EncodeSafetensors(const NamedTensors& tensors, const WeightsMetadata& metadata);

/// What stands before the values in such a file: for those who compute the values block by block.
/// The values follow in name order without gaps.
std::string EncodeSafetensorsHeader(const TensorShapes& shapes, const WeightsMetadata& metadata);

/// A safetensors file mapped into memory, for reading block by block: opening reads the header and
/// no values, so a server can hold the updates of many sites open at once.
///
/// Nothing in the file is trusted: lengths, offsets and shapes are checked against the file's size,
/// tensors must be F32, without gap or overlap, and names must be unique. The one thing that must
/// hold is that the file does not shrink while it is open (reading a mapped page that is gone kills
/// the process): all our files of weights are renamed into place whole and never written again.
///
/// Thread safety: const methods may be called from any thread.
class SafetensorsFile {
 public:
  /// Errors: NOT_FOUND no such file; DATA_LOSS truncated or malformed (the message says where);
  ///         INVALID_ARGUMENT a dtype other than F32.
  static absl::StatusOr<SafetensorsFile> Open(const std::filesystem::path& path);

  /// The same for a file whose block sums are known: the header, and what Read() reads, is compared
  /// with them. Values() and ReadAll() are not. Errors: also DATA_LOSS other bytes than these.
  static absl::StatusOr<SafetensorsFile> OpenChecked(const std::filesystem::path& path,
                                                     BlockSums sums);

  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;
  ~SafetensorsFile();

  const TensorShapes& shapes() const;
  const WeightsMetadata& metadata() const;

  /// All values of one tensor, valid while this object lives. The name must be in shapes().
  std::span<const float> Values(std::string_view name) const;

  /// Copies values [first, first + values.size()) of one tensor out of the file without touching
  /// the mapping, so that what was read does not stay in this process's memory. The name must be in
  /// shapes() and the range within the tensor.
  /// Errors: DATA_LOSS when the file has become shorter, differs from its block sums, or the disk
  ///         fails.
  absl::Status Read(std::string_view name, std::int64_t first, std::span<float> values) const;

  /// From now on Values() alone may be called: for programs that hold more files than a process may
  /// open.
  void CloseDescriptor();

  /// Every tensor, copied.
  NamedTensors ReadAll() const;

 private:
  struct Mapping;
  explicit SafetensorsFile(std::unique_ptr<Mapping> mapping);
  static absl::StatusOr<std::unique_ptr<Mapping>> Map(const std::filesystem::path& path);
  static absl::Status ReadHeader(Mapping& mapping);
  std::unique_ptr<Mapping> mapping_;
};

/// Copies every tensor out of safetensors bytes; the same checks as SafetensorsFile::Open.
absl::StatusOr<NamedTensors> DecodeSafetensors(std::string_view bytes);

}  // namespace isoscan
