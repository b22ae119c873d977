// One model of N updates of nnU-Net's default network (31 M parameters), from files to file, in
// every way that there is, beside what limits it: reading the same files as often and writing one,
// without any arithmetic.
//
// A worry: more than 1.5 times the limit for the mean, more than 3 times for another way, or memory
// that grows with the model.

#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "common/study/initial_weights.h"
#include "common/transfer/chunks.h"
#include "common/weights/atomic_file.h"
#include "common/weights/block_sums.h"
#include "common/weights/safetensors.h"
#include "server/aggregation/federated_average.h"
#include "server/aggregation/robust_average.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

Study NnunetDefault() {
  Study study;
  study.channels = {"T1w"};
  study.labels = {"anterior", "posterior"};
  study.network.features = {32, 64, 128, 256, 320, 320};
  study.network.strides.assign(study.network.stages(), {2, 2, 2});
  study.network.strides[0] = {1, 1, 1};
  study.network.kernels.assign(study.network.stages(), {3, 3, 3});
  return study;
}

std::filesystem::path Folder() {
  static const TemporaryDirectory folder;
  return folder.path();
}

// The first of one set of updates for all runs: every site another seed, block sums beside each.
class Updates {
 public:
  explicit Updates(std::int64_t sites) {
    Study study = NnunetDefault();
    for (std::int64_t i = 0; i < sites; ++i) {
      study.seed = static_cast<std::uint64_t>(i + 1);
      const std::string site = "site-" + std::to_string(i);
      const auto path = Folder() / (site + ".safetensors");
      if (!std::filesystem::exists(path) &&
          !WriteSafetensors(path, InitialWeights(study), {}).ok()) {
        std::abort();
      }
      const auto sums = SumsOfFile(path);
      if (!sums.ok() || !sums->blocks.WriteBeside(path).ok()) std::abort();
      staged_.push_back({.site = site,
                         .weights = path,
                         .weight = static_cast<double>(i + 1),
                         .digest = sums->sha256});
    }
  }

  const std::vector<StagedUpdate>& staged() const { return staged_; }
  std::filesystem::path output() const { return Folder() / "output.safetensors"; }
  std::int64_t bytes() const {
    return static_cast<std::int64_t>(std::filesystem::file_size(staged_.front().weights) *
                                     (staged_.size() + 1));
  }

 private:
  std::vector<StagedUpdate> staged_;
};

void FederatedAverageOfFiles(benchmark::State& state) {
  const Updates updates(state.range(0));
  const AveragingOptions options = {.threads = static_cast<int>(state.range(1))};
  for ([[maybe_unused]] const auto& iteration : state) {
    const absl::Status status = FederatedAverage(updates.staged(), updates.output(), {}, options);
    if (!status.ok()) state.SkipWithError(status.ToString().c_str());
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * updates.bytes());
}
BENCHMARK(FederatedAverageOfFiles)
    ->ArgsProduct({{1, 4, 10}, {1, 2}})
    ->ArgNames({"sites", "threads"})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

void RobustAverageOfFiles(benchmark::State& state, RobustRule::Kind kind) {
  const Updates updates(10);
  const AveragingOptions options = {.threads = static_cast<int>(state.range(0))};
  const RobustRule rule = {.kind = kind, .trimmed_fraction = 0.2};
  for ([[maybe_unused]] const auto& iteration : state) {
    const auto parts = RobustAverage(rule, updates.staged(), updates.output(), {}, options);
    if (!parts.ok()) state.SkipWithError(parts.status().ToString().c_str());
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * updates.bytes());
}
#define ISOSCAN_ROBUST_BENCHMARK(kind)                                     \
  BENCHMARK_CAPTURE(RobustAverageOfFiles, kind, RobustRule::Kind::k##kind) \
      ->Arg(1)                                                             \
      ->Arg(2)                                                             \
      ->ArgName("threads")                                                 \
      ->Unit(benchmark::kMillisecond)                                      \
      ->UseRealTime()
ISOSCAN_ROBUST_BENCHMARK(Median);
ISOSCAN_ROBUST_BENCHMARK(TrimmedMean);
ISOSCAN_ROBUST_BENCHMARK(Krum);
ISOSCAN_ROBUST_BENCHMARK(MultiKrum);
ISOSCAN_ROBUST_BENCHMARK(Bulyan);
ISOSCAN_ROBUST_BENCHMARK(GeometricMedian);

void DistancesOfFiles(benchmark::State& state) {
  const Updates updates(10);
  const AveragingOptions options = {.threads = static_cast<int>(state.range(0))};
  for ([[maybe_unused]] const auto& iteration : state) {
    const auto distances = MeasureDistances({}, updates.staged(), options);
    if (!distances.ok()) state.SkipWithError(distances.status().ToString().c_str());
  }
}
BENCHMARK(DistancesOfFiles)
    ->Arg(1)
    ->Arg(2)
    ->ArgName("threads")
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

// The limit: every byte read as often as that way reads it, one file written and synced.
void ReadAllAndWriteOne(benchmark::State& state) {
  const Updates updates(state.range(0));
  for ([[maybe_unused]] const auto& iteration : state) {
    auto output = AtomicFile::Create(updates.output());
    bool ok = output.ok();
    for (std::int64_t time = 0; time < state.range(1); ++time) {
      for (const StagedUpdate& update : updates.staged()) {
        std::int64_t offset = 0;
        while (ok) {
          const auto chunk = ReadChunk(update.weights, offset);
          ok = chunk.ok();
          if (!ok || chunk->empty()) break;
          if (time == 0 && update.site == "site-0") ok = output->WriteAt(offset, *chunk).ok();
          offset += static_cast<std::int64_t>(chunk->size());
        }
      }
    }
    if (!ok || !output->Commit().ok()) state.SkipWithError("could not read or write");
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * updates.bytes());
}
BENCHMARK(ReadAllAndWriteOne)
    ->Args({1, 1})
    ->Args({4, 1})
    ->Args({10, 1})
    ->Args({10, 2})
    ->ArgNames({"sites", "times"})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

void ScreenOneUpdate(benchmark::State& state) {
  const Updates updates(1);
  const TensorShapes shapes = NetworkShapes(NnunetDefault());
  for ([[maybe_unused]] const auto& iteration : state) {
    const absl::Status status = ScreenUpdate("site-0", updates.staged().front().weights, shapes);
    if (!status.ok()) state.SkipWithError(status.ToString().c_str());
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * updates.bytes() / 2);
}
BENCHMARK(ScreenOneUpdate)->Unit(benchmark::kMillisecond)->UseRealTime();

void StartingWeights(benchmark::State& state) {
  const Study study = NnunetDefault();
  for ([[maybe_unused]] const auto& iteration : state) {
    benchmark::DoNotOptimize(InitialWeights(study));
  }
}
BENCHMARK(StartingWeights)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace isoscan
