// Our side of tests/benchmarks/beside, which starts it:
//
//   imaging_bench TASK SCRATCH IMAGE...
//
// TASK is normalise, mask, pipeline, n4, metrics or a normaliser: nyul, white_stripe, kde or fcm.
// metrics leaves its pairs of masks in SCRATCH; all others but pipeline and n4 stretch their image
// to 256x256x176 voxels and leave it there with a mask: the peers read the same bytes. Then, for
// every line of standard input, which names one of the task's ways, they run it once and answer
// with its milliseconds.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "client/evaluation/surface_metrics.h"
#include "client/harmonization/harmonize.h"
#include "client/harmonization/masked_normalization.h"
#include "client/harmonization/n4.h"
#include "client/harmonization/normalizers.h"
#include "client/imaging/image_file.h"
#include "client/imaging/orientation.h"
#include "client/imaging/resampling.h"
#include "common/process/resources.h"
#include "tests/benchmarks/beside_protocol.h"
#include <omp.h>

namespace isoscan {
namespace {

constexpr int kThreads = 2;

using Paths = std::vector<std::filesystem::path>;

template <typename T>
void WriteRaw(const std::filesystem::path& path, const std::vector<T>& values) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(T)));
  if (!file.flush()) Fail("cannot write " + path.string());
}

/// A head of 256 x 256 x 176 voxels in memory, and the voxels above its mean.
struct Head {
  Volume volume;
  Mask mask;
};

Head StretchedHead(const std::filesystem::path& image, const std::filesystem::path& scratch) {
  const Volume stored = Unwrap(ReadVolume(image));
  Geometry grid = stored.geometry;
  grid.size = {176, 256, 256};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    grid.spacing_mm[axis] *= static_cast<double>(stored.geometry.size[axis] - 1) /
                             static_cast<double>(grid.size[axis] - 1);
  }
  Head head;
  head.volume = Resample(stored, grid, ImageInterpolation::kLinear);
  const double mean = StatisticsOf(head.volume, Mask(head.volume.voxels.size(), 1)).mean;
  for (const float voxel : head.volume.voxels) head.mask.push_back(voxel > mean ? 1 : 0);
  WriteRaw(scratch / "head.f32", head.volume.voxels);
  WriteRaw(scratch / "mask.u8", head.mask);
  return head;
}

/// Reads `count` floats as fast as memory gives them.
std::int64_t ReadAll(const float* values, std::int64_t count) {
  std::int64_t bits = 0;
#pragma omp parallel for reduction(^ : bits)
  for (std::int64_t block = 0; block < count; block += 1 << 14) {
    std::array<std::int32_t, 64> lanes{};
    const std::int64_t end = std::min<std::int64_t>(block + (1 << 14), count);
    for (std::int64_t i = block; i + 64 <= end; i += 64) {
      std::array<std::int32_t, 64> next;
      std::memcpy(next.data(), values + i, sizeof(next));
      for (std::size_t lane = 0; lane < 64; ++lane) lanes[lane] ^= next[lane];
    }
    for (const std::int32_t lane : lanes) bits ^= lane;
  }
  return bits;
}

/// Reads and writes every float.
void UpdateAll(float* values, std::int64_t count) {
#pragma omp parallel for
  for (std::int64_t block = 0; block < count; block += 1 << 14) {
    const std::int64_t end = std::min<std::int64_t>(block + (1 << 14), count);
    for (std::int64_t i = block; i < end; ++i) values[i] = values[i] * 0.5f;
  }
}

Ways Normalise(const Paths& images, const std::filesystem::path& scratch) {
  const auto head = std::make_shared<const Head>(StretchedHead(images.front(), scratch));
  const auto work = std::make_shared<Volume>(head->volume);
  // Every run starts with a copy that has just been made, as the peers' do.
  const auto on_a_copy = [head, work](auto run) {
    return [head, work, run] {
      std::copy(head->volume.voxels.begin(), head->volume.voxels.end(), work->voxels.begin());
      Run result{.milliseconds = Milliseconds([&] { run(*head, *work); })};
      const IntensityStatistics statistics = StatisticsOf(*work, head->mask);
      result.result = fmt::format(R"({{"mean_in_mask": {:.6f}, "deviation_in_mask": {:.6f}}})",
                                  statistics.mean, statistics.standard_deviation);
      return result;
    };
  };
  const auto harmonise = [](HarmonizationPlan::Mask mask) {
    return [mask](const Head&, Volume& volume) {
      HarmonizationPlan plan;
      plan.mask = mask;
      Unwrap(Harmonize(volume, plan));
    };
  };
  return {
      {"mask given", on_a_copy([](const Head& given, Volume& volume) {
         Unwrap(NormalizeOverMask(volume, given.mask, HarmonizationPlan::Outside::kKeep));
       })},
      {"mask given, outside 0", on_a_copy([](const Head& given, Volume& volume) {
         Unwrap(NormalizeOverMask(volume, given.mask, HarmonizationPlan::Outside::kZero));
       })},
      {"whole volume", on_a_copy(harmonise(HarmonizationPlan::Mask::kWhole))},
      {"mask by threshold", on_a_copy(harmonise(HarmonizationPlan::Mask::kThreshold))},
      {"limit", on_a_copy([](const Head& given, Volume& volume) {
         const auto count = static_cast<std::int64_t>(volume.voxels.size());
         // The volume and its mask are read once; then the volume is read and written.
         std::int64_t bits = ReadAll(volume.voxels.data(), count);
         bits ^= ReadAll(reinterpret_cast<const float*>(given.mask.data()), count / 4);
         UpdateAll(volume.voxels.data(), count);
         if (bits == 1) fmt::print(stderr, " ");
       })},
  };
}

Ways HeadMask(const Paths& images, const std::filesystem::path& scratch) {
  const auto head = std::make_shared<const Head>(StretchedHead(images.front(), scratch));
  return {{"Otsu",
           [head] {
             HarmonizationPlan plan;
             plan.mask = HarmonizationPlan::Mask::kOtsu;
             Mask mask;
             Run run{.milliseconds =
                         Milliseconds([&] { mask = Unwrap(MakeMask(head->volume, plan)); })};
             run.result =
                 fmt::format(R"({{"voxels": {}}})", std::count(mask.begin(), mask.end(), 1));
             return run;
           }},
          {"limit", [head, mask = Mask(head->mask)]() mutable {
             // The volume is read twice, for its range and its histogram; the mask is written.
             const auto count = static_cast<std::int64_t>(head->volume.voxels.size());
             return Run{Milliseconds([&] {
               std::int64_t bits = ReadAll(head->volume.voxels.data(), count);
               bits ^= ReadAll(head->volume.voxels.data(), count);
               if (bits == 1) fmt::print(stderr, " ");
               UpdateAll(reinterpret_cast<float*>(mask.data()), count / 4);
             })};
           }}};
}

/// Reads, orients, harmonises and resamples to 1 mm.
Volume Prepared(const std::filesystem::path& image, const HarmonizationPlan& plan) {
  Volume volume = ToCanonical(Unwrap(ReadVolume(image)));
  Unwrap(Harmonize(volume, plan));
  return Resample(volume, WithSpacing(volume.geometry, {1, 1, 1}), ImageInterpolation::kLinear);
}

Ways Pipeline(const Paths& images) {
  const auto with = [images](HarmonizationPlan::Mask mask) {
    return [images, mask] {
      HarmonizationPlan plan;
      plan.mask = mask;
      Run run;
      for (const auto& image : images) {
        Volume volume;
        run.milliseconds += Milliseconds([&] { volume = Prepared(image, plan); });
        run.result = fmt::format(R"({{"voxels": {}}})", volume.voxels.size());
      }
      run.milliseconds /= static_cast<double>(images.size());
      return run;
    };
  };
  return {{"mask by threshold", with(HarmonizationPlan::Mask::kThreshold)},
          {"mask by Otsu", with(HarmonizationPlan::Mask::kOtsu)},
          {"reading alone", [images] {
             return Run{Milliseconds([&] {
                          for (const auto& image : images) Unwrap(ReadVolume(image));
                        }) /
                        static_cast<double>(images.size())};
           }}};
}

/// With the mask made in the same time, as the peers' clock has it, and the peers' parameters.
Ways N4(const Paths& images) {
  const auto stored = std::make_shared<const Volume>(Unwrap(ReadVolume(images.front())));
  return {{"mask and N4", [stored] {
             Volume volume = *stored;
             Run run{.milliseconds = Milliseconds([&] {
                       HarmonizationPlan plan;
                       plan.mask = HarmonizationPlan::Mask::kOtsu;
                       const Mask mask = Unwrap(MakeMask(volume, plan));
                       Unwrap(CorrectBiasField(volume, mask, N4Plan{.convergence = 1e-3}));
                     })};
             const IntensityStatistics statistics =
                 StatisticsOf(volume, Mask(volume.voxels.size(), 1));
             run.result = fmt::format(R"({{"corrected_mean": {:.4f}}})", statistics.mean);
             return run;
           }}};
}

/// One of the normalisers that look for tissue, fitted and applied under a given mask.
Ways Normaliser(const std::string& method, const Paths& images,
                const std::filesystem::path& scratch) {
  using Plan = HarmonizationPlan;
  const std::map<std::string, Plan::Normalizer> methods{
      {"nyul", Plan::Normalizer::kNyul},
      {"white_stripe", Plan::Normalizer::kWhiteStripe},
      {"kde", Plan::Normalizer::kKde},
      {"fcm", Plan::Normalizer::kFcm}};
  const auto found = methods.find(method);
  if (found == methods.end()) Fail("there is no task " + method);
  Plan plan;
  plan.normalize = found->second;
  plan.contrasts = {Plan::Contrast::kT1w};
  plan.standard = {1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100};
  const auto head = std::make_shared<const Head>(StretchedHead(images.front(), scratch));
  return {{"mask given", [head, plan] {
             Volume volume = head->volume;
             Run run{.milliseconds = Milliseconds([&] {
                       const IntensityMap map = Unwrap(FitNormalizer(volume, head->mask, plan, 0));
                       std::visit([&volume](const auto& fitted) { Apply(fitted, volume); }, map);
                     })};
             run.result = fmt::format(R"({{"mean_in_mask": {:.6f}}})",
                                      StatisticsOf(volume, head->mask).mean);
             return run;
           }}};
}

/// The label that is 1 in `labels` grown by one voxel across each face, and moved; what would leave
/// the grid comes back on its other side.
LabelMap GrownAndMoved(const LabelMap& labels, bool grown, const std::array<std::int64_t, 3>& by) {
  const auto& size = labels.geometry.size;
  LabelMap moved = labels;
  std::fill(moved.voxels.begin(), moved.voxels.end(), std::uint8_t{0});
  const auto mark = [&](std::array<std::int64_t, 3> at) {
    for (std::size_t axis = 0; axis < 3; ++axis) {
      at[axis] = (at[axis] + by[axis] + size[axis]) % size[axis];
    }
    moved.voxels[static_cast<std::size_t>((at[2] * size[1] + at[1]) * size[0] + at[0])] = 1;
  };
  std::size_t voxel = 0;
  for (std::int64_t z = 0; z < size[2]; ++z) {
    for (std::int64_t y = 0; y < size[1]; ++y) {
      for (std::int64_t x = 0; x < size[0]; ++x) {
        if (labels.voxels[voxel++] == 0) continue;
        mark({x, y, z});
        for (std::size_t axis = 0; grown && axis < 3; ++axis) {
          for (const std::int64_t step : {-1, 1}) {
            std::array<std::int64_t, 3> beside{x, y, z};
            beside[axis] += step;
            if (beside[axis] >= 0 && beside[axis] < size[axis]) mark(beside);
          }
        }
      }
    }
  }
  return moved;
}

/// A brain against itself, grown and moved; a hippocampus against itself, moved.
Ways Metrics(const Paths& images, const std::filesystem::path& scratch) {
  if (images.size() < 2) Fail("metrics takes ch2bet and aal");
  Ways ways;
  const auto read = [&ways, &scratch](const std::string& name, const std::filesystem::path& image,
                                      auto inside, bool grown,
                                      const std::array<std::int64_t, 3>& by) {
    const Volume stored = Unwrap(ReadVolume(image));
    const auto reference = std::make_shared<LabelMap>();
    reference->geometry = stored.geometry;
    for (const float voxel : stored.voxels) reference->voxels.push_back(inside(voxel) ? 1 : 0);
    const auto predicted = std::make_shared<const LabelMap>(GrownAndMoved(*reference, grown, by));
    WriteRaw(scratch / (name + "_reference.u8"), reference->voxels);
    WriteRaw(scratch / (name + "_predicted.u8"), predicted->voxels);
    for (const auto& [definition, title] :
         {std::pair{SurfaceDefinition::kElements, "surface elements"},
          std::pair{SurfaceDefinition::kVoxels, "border voxels"}}) {
      ways[name + ": " + title] = [reference, predicted, definition = definition] {
        std::vector<LabelScore> scores;
        Run run{.milliseconds = Milliseconds([&] {
                  scores = ScoreLabels(*reference, *predicted, 1, {.definition = definition});
                })};
        run.result = fmt::format(
            R"({{"hd95_mm": {:.6f}, "nsd_1mm": {:.6f}, "hd_mm": {:.6f}, "assd_mm": {:.6f}}})",
            scores[0].hd95_mm, scores[0].nsd[0], scores[0].hd_mm, scores[0].assd_mm);
        return run;
      };
    }
    return std::pair{reference, predicted};
  };
  const auto [reference, predicted] =
      read("brain", images[0], [](float voxel) { return voxel > 0; }, true, {2, 1, 0});
  read("hippocampus", images[1], [](float voxel) { return voxel == 37; }, false, {1, 1, 0});
  // Both masks are read once.
  ways["limit"] = [reference = reference, predicted = predicted] {
    return Run{Milliseconds([&] {
      std::int64_t bits = 0;
      for (const LabelMap* mask :
           {static_cast<const LabelMap*>(reference.get()), predicted.get()}) {
        bits ^= ReadAll(reinterpret_cast<const float*>(mask->voxels.data()),
                        static_cast<std::int64_t>(mask->voxels.size()) / 4);
      }
      if (bits == 1) fmt::print(stderr, " ");
    })};
  };
  return ways;
}

Ways WaysOf(const std::string& task, const Paths& images, const std::filesystem::path& scratch) {
  if (task == "normalise") return Normalise(images, scratch);
  if (task == "mask") return HeadMask(images, scratch);
  if (task == "pipeline") return Pipeline(images);
  if (task == "n4") return N4(images);
  if (task == "metrics") return Metrics(images, scratch);
  return Normaliser(task, images, scratch);
}

}  // namespace
}  // namespace isoscan

int main(int argc, char** argv) {
  isoscan::KeepFreedMemory();
  omp_set_num_threads(isoscan::kThreads);
  if (argc < 4) isoscan::Fail("usage: imaging_bench TASK SCRATCH IMAGE...");
  isoscan::Serve(isoscan::WaysOf(argv[1], {argv + 3, argv + argc}, argv[2]));
  return 0;
}
