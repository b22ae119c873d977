#include "server/aggregation/block_reduction.h"

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <system_error>
#include <utility>

#include "absl/status/statusor.h"

#include "common/status/status_macros.h"
#include "common/weights/atomic_file.h"

namespace isoscan {
namespace {

std::string StateTensor(const std::string& set, std::string_view tensor) {
  return fmt::format("{}.{}", set, std::string(tensor));
}

TensorShapes StateShapes(const std::vector<std::string>& sets, const TensorShapes& shapes) {
  TensorShapes state;
  for (const std::string& set : sets) {
    for (const auto& [name, shape] : shapes) state.emplace(StateTensor(set, name), shape);
  }
  return state;
}

// A file of tensors that is being written block by block.
class TensorWriter {
 public:
  static absl::StatusOr<TensorWriter> Create(const std::filesystem::path& path,
                                             const TensorShapes& shapes,
                                             const WeightsMetadata& metadata) {
    ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
    const std::string header = EncodeSafetensorsHeader(shapes, metadata);
    RETURN_IF_ERROR(file.WriteAt(0, header));
    TensorWriter writer(std::move(file));
    auto offset = static_cast<std::int64_t>(header.size());
    for (const auto& [name, shape] : shapes) {
      writer.offsets_[name] = offset;
      offset += ElementCount(shape) * std::int64_t{sizeof(float)};
    }
    return writer;
  }

  // Thread-safe.
  absl::Status Write(std::string_view tensor, std::int64_t first, std::span<const float> values) {
    return file_.WriteAt(offsets_.find(tensor)->second + first * std::int64_t{sizeof(float)},
                         {reinterpret_cast<const char*>(values.data()), values.size_bytes()});
  }

  absl::Status Commit() { return file_.Commit(); }

 private:
  explicit TensorWriter(AtomicFile file) : file_(std::move(file)) {}

  AtomicFile file_;
  std::map<std::string, std::int64_t, std::less<>> offsets_;
};

// What all threads share.
struct Reduction {
  const BlockReducer& reducer;
  bool has_model = false;
  std::vector<TensorSource> sources;  // The model, where there is one, and the updates.
  const std::vector<std::string>& sets;
  std::optional<TensorSource> state;
  std::int64_t block_values = 0;
  TensorWriter& model_writer;
  std::optional<TensorWriter>& state_writer;
};

// One thread's buffers.
class Worker {
 public:
  explicit Worker(const Reduction& shared)
      : shared_(shared),
        values_(static_cast<std::size_t>(shared.block_values)),
        reader_(shared.sources, shared.block_values),
        state_(values_ * shared.sets.size()),
        sums_(values_ * (1 + shared.sets.size())),
        rounded_(values_) {}

  absl::Status Reduce(const TensorBlock& block) {
    const auto count = static_cast<std::size_t>(block.count);
    RETURN_IF_ERROR(reader_.Read(block));
    std::vector<std::span<const float>> state;
    std::vector<std::span<double>> new_state;
    for (std::size_t set = 0; set < shared_.sets.size(); ++set) {
      const std::span<float> values = std::span(state_).subspan(set * values_, count);
      RETURN_IF_ERROR(ReadState(block, shared_.sets[set], values));
      state.push_back(values);
      new_state.push_back(std::span(sums_).subspan((1 + set) * values_, count));
    }
    const std::span<double> model = std::span(sums_).first(count);
    const auto sources = reader_.values();
    shared_.reducer.Reduce({.tensor = block.tensor,
                            .updates = sources.subspan(shared_.has_model ? 1 : 0),
                            .model = shared_.has_model ? sources.front() : std::span<const float>(),
                            .state = state},
                           {.model = model, .state = new_state});
    for (std::size_t set = 0; set < new_state.size(); ++set) {
      RETURN_IF_ERROR(Write(StateTensor(shared_.sets[set], block.tensor), block.first,
                            new_state[set], *shared_.state_writer));
    }
    return Write(block.tensor, block.first, model, shared_.model_writer);
  }

 private:
  absl::Status ReadState(const TensorBlock& block, const std::string& set,
                         std::span<float> values) const {
    if (!shared_.state.has_value()) return absl::OkStatus();  // They are zero, and stay so.
    const std::string tensor = StateTensor(set, block.tensor);
    const absl::Status read = shared_.state->file.Read(tensor, block.first, values);
    if (!read.ok()) {
      return {read.code(), fmt::format("{}: {}", shared_.state->name, std::string(read.message()))};
    }
    if (AllFinite(values)) return absl::OkStatus();
    return NotFinite(shared_.state->name, {.tensor = tensor, .first = block.first}, values);
  }

  absl::Status Write(std::string_view tensor, std::int64_t first, std::span<const double> values,
                     TensorWriter& writer) {
    const std::span<float> rounded = std::span(rounded_).first(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) rounded[i] = static_cast<float>(values[i]);
    if (!AllFinite(rounded)) {
      return NotFinite("the server", {.tensor = tensor, .first = first}, rounded);
    }
    return writer.Write(tensor, first, rounded);
  }

  const Reduction& shared_;
  std::size_t values_;
  BlockReader reader_;
  std::vector<float> state_;
  std::vector<double> sums_;
  std::vector<float> rounded_;
};

}  // namespace

absl::Status ReduceBlocks(const BlockReducer& reducer, const ReductionInput& input,
                          const ReductionOutput& output, const AveragingOptions& options) {
  ASSIGN_OR_RETURN(std::vector<TensorSource> sources,
                   OpenSources(input.model, input.model_digest, input.updates));
  const TensorShapes shapes = sources.front().file.shapes();
  const TensorShapes state_shapes = StateShapes(input.state_sets, shapes);
  std::optional<TensorSource> state;
  if (!input.state_sets.empty() && !input.state.empty()) {
    const std::string name = "the server's state";
    ASSIGN_OR_RETURN(state, OpenSource(name, name, input.state, input.state_digest));
    RETURN_IF_ERROR(CheckShapes(name, state->file.shapes(), state_shapes));
  }

  ASSIGN_OR_RETURN(TensorWriter model_writer,
                   TensorWriter::Create(output.model, shapes, output.metadata));
  std::optional<TensorWriter> state_writer;
  if (!input.state_sets.empty()) {
    ASSIGN_OR_RETURN(state_writer,
                     TensorWriter::Create(output.state, state_shapes, output.state_metadata));
  }

  const std::size_t sets = input.state_sets.size();
  const auto bytes_per_value = static_cast<std::int64_t>(
      (sources.size() + sets + 1) * sizeof(float) + (1 + sets) * sizeof(double));
  const Reduction reduction{.reducer = reducer,
                            .has_model = !input.model.empty(),
                            .sources = std::move(sources),
                            .sets = input.state_sets,
                            .state = std::move(state),
                            .block_values = BlockValuesOf(options, bytes_per_value),
                            .model_writer = model_writer,
                            .state_writer = state_writer};
  const std::vector<TensorBlock> blocks = CutIntoBlocks(shapes, reduction.block_values);
  RETURN_IF_ERROR(ForEachBlock(blocks, ThreadsOf(options), [&]() -> BlockWork {
    return [worker = std::make_shared<Worker>(reduction)](const TensorBlock& block) {
      return worker->Reduce(block);
    };
  }));

  if (state_writer.has_value()) RETURN_IF_ERROR(state_writer->Commit());
  const absl::Status committed = model_writer.Commit();
  if (!committed.ok() && state_writer.has_value()) {
    std::error_code error;
    std::filesystem::remove(output.state, error);
  }
  return committed;
}

}  // namespace isoscan
