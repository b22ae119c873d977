#include "server/aggregation/tensor_sums.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <span>
#include <utility>

#include "absl/status/statusor.h"

#include "common/process/resources.h"
#include "common/status/status_macros.h"
#include "common/weights/atomic_file.h"
#include "common/weights/block_sums.h"
#include "common/weights/safetensors.h"
#include "server/aggregation/tensor_blocks.h"

namespace isoscan {
namespace {

// Memory, not arithmetic, limits a sum: more threads only wait for each other.
constexpr int kMaximumThreads = 8;

// An open term.
struct Source {
  std::string name;
  SafetensorsFile file;
};

absl::StatusOr<SafetensorsFile> Open(const SumTerm& term) {
  if (term.digest.empty()) return SafetensorsFile::Open(term.tensors);
  ASSIGN_OR_RETURN(BlockSums sums, BlockSumsOf(term.tensors, term.digest));
  return SafetensorsFile::OpenChecked(term.tensors, std::move(sums));
}

absl::Status OfTerm(const std::string& name, const absl::Status& status) {
  return {status.code(), fmt::format("{}: {}", name, std::string(status.message()))};
}

absl::StatusOr<std::vector<Source>> Open(const std::vector<SumTerm>& terms) {
  if (terms.empty()) return absl::InvalidArgumentError("there is no update to average");
  std::vector<Source> sources;
  for (const SumTerm& term : terms) {
    absl::StatusOr<SafetensorsFile> file = Open(term);
    if (!file.ok()) {
      return OfTerm(term.site.empty() ? "the global model" : "the update of " + term.site,
                    file.status());
    }
    const std::string name = term.site.empty() ? "the global model" : term.site;
    if (!sources.empty()) {
      RETURN_IF_ERROR(CheckShapes(name, file->shapes(), sources.front().file.shapes()));
    }
    sources.push_back({name, *std::move(file)});
  }
  return sources;
}

// Sums blocks; one per thread, because it owns the buffers.
class BlockSum {
 public:
  BlockSum(std::span<const Source> sources, std::int64_t block_values)
      : sources_(sources),
        values_(static_cast<std::size_t>(block_values)),
        sums_(static_cast<std::size_t>(block_values)) {}

  absl::Status Write(const TensorBlock& block, const SumRule& rule, AtomicFile& output) {
    const auto count = static_cast<std::size_t>(block.count);
    const std::span<float> values = std::span(values_).first(count);
    const std::span<double> sums = std::span(sums_).first(count);
    std::fill(sums.begin(), sums.end(), 0.0);
    for (std::size_t term = 0; term < sources_.size(); ++term) {
      const double factor = rule.factors[term];
      if (factor == 0) continue;
      const absl::Status read = sources_[term].file.Read(block.tensor, block.first, values);
      if (!read.ok()) return OfTerm(sources_[term].name, read);
      if (!AllFinite(values)) return NotFinite(sources_[term].name, block, values);
      for (std::size_t i = 0; i < count; ++i) sums[i] += factor * double{values[i]};
    }
    for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>(sums[i] / rule.divisor);
    return output.WriteAt(block.output_offset,
                          {reinterpret_cast<const char*>(values.data()), values.size_bytes()});
  }

 private:
  std::span<const Source> sources_;
  std::vector<float> values_;
  std::vector<double> sums_;
};

}  // namespace

absl::Status SumTensors(const std::vector<SumTerm>& terms,
                        const std::function<SumRule(std::string_view tensor)>& rule_of,
                        const std::filesystem::path& output,
                        const std::map<std::string, std::string>& metadata,
                        const AveragingOptions& options) {
  ASSIGN_OR_RETURN(const std::vector<Source> sources, Open(terms));
  const TensorShapes& shapes = sources.front().file.shapes();
  std::map<std::string_view, SumRule> rules;
  for (const auto& [name, shape] : shapes) rules.emplace(name, rule_of(name));
  const std::string header = EncodeSafetensorsHeader(shapes, metadata);
  const std::vector<TensorBlock> blocks =
      CutIntoBlocks(shapes, options.block_values, static_cast<std::int64_t>(header.size()));

  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(output));
  RETURN_IF_ERROR(file.WriteAt(0, header));

  const int threads =
      std::min(options.threads > 0 ? options.threads : AvailableCores(), kMaximumThreads);
  std::vector<absl::Status> failures(static_cast<std::size_t>(threads));
  std::atomic<bool> failed = false;
  std::atomic<std::size_t> next = 0;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int thread = 0; thread < threads; ++thread) {
    BlockSum sum(sources, options.block_values);
    for (std::size_t i = next++; i < blocks.size() && !failed; i = next++) {
      absl::Status status = sum.Write(blocks[i], rules.at(blocks[i].tensor), file);
      if (status.ok()) continue;
      failures[static_cast<std::size_t>(thread)] = std::move(status);
      failed = true;
    }
  }
  for (const absl::Status& failure : failures) RETURN_IF_ERROR(failure);
  return file.Commit();
}

}  // namespace isoscan
