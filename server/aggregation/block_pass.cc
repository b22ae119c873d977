#include "server/aggregation/block_pass.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <thread>
#include <utility>

#include "common/process/resources.h"
#include "common/status/status_macros.h"
#include "common/weights/block_sums.h"

namespace isoscan {
namespace {

// Memory, not arithmetic, limits most passes: more threads only wait for each other.
constexpr int kMaximumThreads = 8;
constexpr std::int64_t kLeastBlockValues = 1024;

absl::Status Titled(const std::string& title, const absl::Status& status) {
  return {status.code(), fmt::format("{}: {}", title, std::string(status.message()))};
}

absl::StatusOr<SafetensorsFile> Open(const std::filesystem::path& path, const std::string& digest) {
  if (digest.empty()) return SafetensorsFile::Open(path);
  ASSIGN_OR_RETURN(BlockSums sums, BlockSumsOf(path, digest));
  return SafetensorsFile::OpenChecked(path, std::move(sums));
}

}  // namespace

absl::StatusOr<TensorSource> OpenSource(const std::string& name, const std::string& title,
                                        const std::filesystem::path& path,
                                        const std::string& digest) {
  absl::StatusOr<SafetensorsFile> file = Open(path, digest);
  if (!file.ok()) return Titled(title, file.status());
  return TensorSource{name, *std::move(file)};
}

absl::StatusOr<std::vector<TensorSource>> OpenSources(const std::filesystem::path& model,
                                                      const std::string& model_digest,
                                                      const std::vector<StagedUpdate>& updates) {
  if (updates.empty()) return absl::InvalidArgumentError("there is no update to average");
  std::vector<TensorSource> sources;
  if (!model.empty()) {
    const std::string name = "the global model";
    ASSIGN_OR_RETURN(TensorSource source, OpenSource(name, name, model, model_digest));
    sources.push_back(std::move(source));
  }
  for (const StagedUpdate& update : updates) {
    ASSIGN_OR_RETURN(TensorSource source, OpenSource(update.site, "the update of " + update.site,
                                                     update.weights, update.digest));
    if (!sources.empty()) {
      RETURN_IF_ERROR(
          CheckShapes(update.site, source.file.shapes(), sources.front().file.shapes()));
    }
    sources.push_back(std::move(source));
  }
  return sources;
}

int ThreadsOf(const AveragingOptions& options) {
  return std::min(options.threads > 0 ? options.threads : AvailableCores(), kMaximumThreads);
}

std::int64_t BlockValuesOf(const AveragingOptions& options, std::int64_t bytes_per_value) {
  const std::int64_t affordable = options.memory_bytes / (ThreadsOf(options) * bytes_per_value);
  return std::min(options.block_values, std::max(affordable, kLeastBlockValues));
}

BlockReader::BlockReader(std::span<const TensorSource> sources, std::int64_t block_values)
    : sources_(sources),
      block_values_(static_cast<std::size_t>(block_values)),
      buffer_(sources.size() * block_values_),
      values_(sources.size()) {}

absl::Status BlockReader::Read(const TensorBlock& block) {
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const std::span<float> values =
        std::span(buffer_).subspan(i * block_values_, static_cast<std::size_t>(block.count));
    const absl::Status read = sources_[i].file.Read(block.tensor, block.first, values);
    if (!read.ok()) return Titled(sources_[i].name, read);
    if (!AllFinite(values)) return NotFinite(sources_[i].name, block, values);
    values_[i] = values;
  }
  return absl::OkStatus();
}

absl::Status ForEachBlock(const std::vector<TensorBlock>& blocks, int threads,
                          const std::function<BlockWork()>& worker) {
  struct Failure {
    std::size_t block;
    absl::Status status;
  };
  const auto count = std::clamp<std::size_t>(blocks.size(), 1, static_cast<std::size_t>(threads));
  std::vector<Failure> failures(count, {blocks.size(), absl::OkStatus()});
  std::atomic<bool> failed = false;
  std::atomic<std::size_t> next = 0;
  // A block that was begun is finished: none before the first failure is left out.
  const auto run = [&](std::size_t thread) {
    const BlockWork work = worker();
    while (!failed) {
      const std::size_t i = next++;
      if (i >= blocks.size()) return;
      absl::Status status = work(blocks[i]);
      if (status.ok()) continue;
      failures[thread] = {i, std::move(status)};
      failed = true;
    }
  };
  {
    std::vector<std::jthread> others;
    for (std::size_t thread = 1; thread < count; ++thread) others.emplace_back(run, thread);
    run(0);
  }
  return std::min_element(
             failures.begin(), failures.end(),
             [](const Failure& left, const Failure& right) { return left.block < right.block; })
      ->status;
}

}  // namespace isoscan
