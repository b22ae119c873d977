#include "client/network/compute_device.h"

#include <fmt/format.h>
#include <torch/cuda.h>

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#ifdef ISOSCAN_CUDA
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDACachingAllocator.h>
#endif

#include <algorithm>
#include <charconv>
#include <mutex>
#include <string_view>

#include "absl/status/status.h"

#include "client/network/tensor_memory.h"
#include "common/process/resources.h"

namespace isoscan {
namespace {

/// -1 when `name` is no GPU's name.
int GpuNumber(std::string_view name) {
  if (name == "cuda") return 0;
  constexpr std::string_view kPrefix = "cuda:";
  if (!name.starts_with(kPrefix)) return -1;
  name.remove_prefix(kPrefix.size());
  int number = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  return error == std::errc() && end == name.data() + name.size() ? number : -1;
}

int GpuCount() {
#ifdef ISOSCAN_CUDA
  return torch::cuda::is_available() ? static_cast<int>(torch::cuda::device_count()) : 0;
#else
  return 0;
#endif
}

/// Of the chosen GPU; only called when there is one.
void DescribeGpu(ComputeDevice& chosen, bool mixed) {
#ifdef ISOSCAN_CUDA
  const cudaDeviceProp* properties = at::cuda::getDeviceProperties(chosen.device.index());
  const bool has_bfloat16 = properties->major >= 8;
  if (mixed && has_bfloat16) chosen.type = torch::kBFloat16;
  const char* type = !mixed         ? "float32"
                     : has_bfloat16 ? "bfloat16"
                                    : "float32 (this GPU has no bfloat16)";
  chosen.name = fmt::format("{}, {}", properties->name, type);
#else
  static_cast<void>(chosen);
  static_cast<void>(mixed);
#endif
}

}  // namespace

void ComputeDevice::Prepare() const {
  static std::once_flag once;
  std::call_once(once, [] {
    // Refused by LibTorch once its pool runs; nothing here uses that pool.
    try {
      at::set_num_interop_threads(1);
    } catch (const c10::Error&) {
    }
  });
  if (device.is_cpu()) ReuseTensorMemory();
  at::set_num_threads(threads);
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicCuDNN(true);
  at::globalContext().setBenchmarkCuDNN(false);
  // float32 is what was asked for: TF32 keeps three digits of each factor.
  at::globalContext().setAllowTF32CuDNN(type != torch::kFloat32);
}

void ComputeDevice::ReleaseMemory() const {
#ifdef ISOSCAN_CUDA
  if (device.is_cuda()) c10::cuda::CUDACachingAllocator::emptyCache();
#endif
}

absl::StatusOr<ComputeDevice> ChooseDevice(const std::string& name, int threads,
                                           TrainingPlan::Precision precision,
                                           const LocalProcesses& local) {
  int gpu = GpuNumber(name);
  if (name != "auto" && name != "cpu" && gpu < 0) {
    return absl::InvalidArgumentError(
        fmt::format("device \"{}\" is unknown: use auto, cpu, cuda or cuda:N", name));
  }
  if (threads < 0) {
    return absl::InvalidArgumentError(fmt::format(
        "threads is {}: use 0 for every available core, or a positive number", threads));
  }
  const int gpus = GpuCount();
  if (gpu >= gpus) {
#ifdef ISOSCAN_CUDA
    return absl::FailedPreconditionError(
        fmt::format("device \"{}\": this machine has {} usable GPUs; use cpu or auto, or check the "
                    "driver with nvidia-smi",
                    name, gpus));
#else
    return absl::FailedPreconditionError(fmt::format(
        "device \"{}\": this build computes on the CPU only; use cpu or auto, or build with "
        "cmake --preset cuda",
        name));
#endif
  }

  ComputeDevice chosen;
  chosen.threads = threads > 0 ? threads : std::max(1, AvailableCores() / local.count);
  const bool mixed = precision == TrainingPlan::Precision::kMixed;
  // One GPU may be all that a launcher shows each process.
  if (gpus > 0 && (name == "auto" || name == "cuda")) gpu = local.rank % gpus;
  if (gpu >= 0) {
    chosen.device = torch::Device(torch::kCUDA, static_cast<c10::DeviceIndex>(gpu));
    DescribeGpu(chosen, mixed);
    return chosen;
  }
  if (mixed && CpuHasBfloat16()) chosen.type = torch::kBFloat16;
  const char* type = !mixed             ? "float32"
                     : CpuHasBfloat16() ? "bfloat16"
                                        : "float32 (this CPU has no bfloat16)";
  chosen.name =
      fmt::format("CPU, {} thread{}, {}", chosen.threads, chosen.threads == 1 ? "" : "s", type);
  return chosen;
}

bool CpuHasBfloat16() {
#ifdef __x86_64__
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

}  // namespace isoscan
