#pragma once

#include <torch/types.h>

#include <string>

#include "absl/status/statusor.h"

#include "common/study/study.h"

namespace isoscan {

/// Where and in which type the network computes.
struct ComputeDevice {
  torch::Device device{torch::kCPU};
  torch::ScalarType type = torch::kFloat32;
  int threads = 1;
  std::string name;  ///< "CPU, 2 threads, bfloat16".

  /// Makes LibTorch use this device's threads on the calling thread, and algorithms that give the
  /// same bits each time. Cheap; LibTorch keeps the number of threads per calling thread.
  void Prepare() const;

  /// Gives back what LibTorch keeps of a GPU's memory for later; nothing on the CPU.
  void ReleaseMemory() const;
};

/// This process among those of this machine that share its GPUs and cores.
struct LocalProcesses {
  int rank = 0;
  int count = 1;
};

/// `name`: "auto" (a GPU, otherwise the CPU), "cpu", "cuda" or "cuda:N". A GPU without a number is
/// the first, and that of `local`'s rank where several processes share the machine. `threads`: 0
/// takes every available core, or this process' share of them. Precision::kMixed computes in
/// bfloat16 where the device does so in hardware (a CPU with AVX512-BF16, a GPU of compute
/// capability 8 or newer), otherwise in float32; the name says which. Errors: INVALID_ARGUMENT
/// another name; FAILED_PRECONDITION no such GPU in this machine or build.
absl::StatusOr<ComputeDevice> ChooseDevice(const std::string& name, int threads,
                                           TrainingPlan::Precision precision,
                                           const LocalProcesses& local = {});

/// True when this CPU multiplies bfloat16 in hardware.
bool CpuHasBfloat16();

}  // namespace isoscan
