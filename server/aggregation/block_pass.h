#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/weights/safetensors.h"
#include "server/aggregation/staged_updates.h"
#include "server/aggregation/tensor_blocks.h"

namespace isoscan {

/// How the work is cut; nothing of it shows in the bytes of the result.
struct AveragingOptions {
  int threads = 0;                        ///< 0: every core that this process may use; at most 8.
  std::int64_t block_values = 64 * 1024;  ///< Values of one tensor that are worked on at a time.
  /// All threads' blocks together: with many sites a block has fewer values, down to 1024.
  std::int64_t memory_bytes = std::int64_t{64} * 1024 * 1024;
};

/// One pass over tensors that lie in several files, block by block, over threads: what is shared by
/// those who reduce them to one and those who measure them.

/// A file that is open, and what it is called in messages.
struct TensorSource {
  std::string name;
  SafetensorsFile file;
};

/// With a digest, what is read of the file is compared with its block sums.
/// Errors, beginning with `title`: NOT_FOUND no such file; DATA_LOSS damaged, or not what the
/// digest
///         says; INVALID_ARGUMENT a dtype other than F32.
absl::StatusOr<TensorSource> OpenSource(const std::string& name, const std::string& title,
                                        const std::filesystem::path& path,
                                        const std::string& digest);

/// The updates in their order; before them the global model, where there is one.
/// Errors: those of OpenSource, and INVALID_ARGUMENT no update, or tensors unlike the first's (both
///         named).
absl::StatusOr<std::vector<TensorSource>> OpenSources(const std::filesystem::path& model,
                                                      const std::string& model_digest,
                                                      const std::vector<StagedUpdate>& updates);

/// How many threads `options` mean, and how many values a block has where each of them takes
/// `bytes_per_value` on every thread.
int ThreadsOf(const AveragingOptions& options);
std::int64_t BlockValuesOf(const AveragingOptions& options, std::int64_t bytes_per_value);

/// Reads a block of every source. One per thread, since it owns what is read.
class BlockReader {
 public:
  /// `sources` must outlive it.
  BlockReader(std::span<const TensorSource> sources, std::int64_t block_values);

  /// Errors: INVALID_ARGUMENT a value that is not finite (source, tensor and index named);
  ///         DATA_LOSS a damaged file.
  absl::Status Read(const TensorBlock& block);

  /// What Read() has read, by source; valid until the next one.
  std::span<const std::span<const float>> values() const { return values_; }

 private:
  std::span<const TensorSource> sources_;
  std::size_t block_values_;
  std::vector<float> buffer_;
  std::vector<std::span<const float>> values_;
};

using BlockWork = std::function<absl::Status(const TensorBlock&)>;

/// Calls what `worker` makes, which is asked once per thread, with every block: each once, begun in
/// order. An error ends the pass; it is that of the first block that has one, however many threads.
absl::Status ForEachBlock(const std::vector<TensorBlock>& blocks, int threads,
                          const std::function<BlockWork()>& worker);

}  // namespace isoscan
