#include "client/network/tensor_memory.h"

#include <torch/version.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdlib>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>
#include <sys/mman.h>

namespace isoscan {
namespace {

constexpr std::size_t kSmallestKept = std::size_t{1} << 20;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kAlignment = 64;  // A cache line, and AVX-512's widest load.

/// Up to an eighth more: tensors of nearly one size can follow each other.
std::size_t RoundedUp(std::size_t bytes) {
  const std::size_t grain = std::max(kHugePage, std::bit_floor(bytes) / 8);
  return (bytes + grain - 1) / grain * grain;
}

/// Null when there is no memory. Aligned to a huge page.
void* Map(std::size_t bytes) {
  void* const mapped =
      mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  char* const start = static_cast<char*>(mapped);
  const std::size_t before =
      (kHugePage - reinterpret_cast<std::uintptr_t>(start) % kHugePage) % kHugePage;
  if (before > 0) munmap(start, before);
  munmap(start + before + bytes, kHugePage - before);
  madvise(start + before, bytes, MADV_HUGEPAGE);  // Refused by some kernels: nothing is lost.
  return start + before;
}

class Blocks {
 public:
  void* Take(std::size_t bytes) {
    const std::size_t size = RoundedUp(bytes);
    const absl::MutexLock lock(&mutex_);
    in_use_ += size;
    most_in_use_ = std::max(most_in_use_, in_use_);
    void* block = nullptr;
    if (const auto found = free_.find(size); found != free_.end()) {
      block = found->second.back();
      found->second.pop_back();
      if (found->second.empty()) free_.erase(found);
      held_ -= size;
    } else {
      ReleaseDownTo(most_in_use_ / 4 * 5 - std::min(most_in_use_ / 4 * 5, in_use_));
      block = Map(size);
      if (block == nullptr) {
        ReleaseDownTo(0);
        block = Map(size);
      }
    }
    if (block == nullptr) {
      in_use_ -= size;
      return nullptr;
    }
    sizes_[block] = size;
    return block;
  }

  /// False: it is none of these.
  bool GiveBack(void* block) {
    const absl::MutexLock lock(&mutex_);
    const auto found = sizes_.find(block);
    if (found == sizes_.end()) return false;
    in_use_ -= found->second;
    held_ += found->second;
    free_[found->second].push_back(block);
    sizes_.erase(found);
    return true;
  }

  void Release() {
    const absl::MutexLock lock(&mutex_);
    ReleaseDownTo(0);
    most_in_use_ = in_use_;
  }

  std::size_t bytes() {
    const absl::MutexLock lock(&mutex_);
    return in_use_ + held_;
  }

 private:
  /// Unmaps free blocks, the largest first, until at most `bytes` are held.
  void ReleaseDownTo(std::size_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    while (held_ > bytes) {
      const auto largest = std::prev(free_.end());
      munmap(largest->second.back(), largest->first);
      held_ -= largest->first;
      largest->second.pop_back();
      if (largest->second.empty()) free_.erase(largest);
    }
  }

  absl::Mutex mutex_;
  std::unordered_map<void*, std::size_t> sizes_ ABSL_GUARDED_BY(mutex_);  ///< Of those in use.
  std::map<std::size_t, std::vector<void*>> free_ ABSL_GUARDED_BY(mutex_);
  std::size_t in_use_ ABSL_GUARDED_BY(mutex_) = 0;
  std::size_t most_in_use_ ABSL_GUARDED_BY(mutex_) = 0;
  std::size_t held_ ABSL_GUARDED_BY(mutex_) = 0;  ///< Free, but not given back to the kernel.
};

/// Never destroyed: tensors may outlive what is.
Blocks& AllBlocks() {
  static Blocks* const blocks = new Blocks;
  return *blocks;
}

void Free(void* memory) {
  const bool may_be_block = reinterpret_cast<std::uintptr_t>(memory) % kHugePage == 0;
  if (memory == nullptr || (may_be_block && AllBlocks().GiveBack(memory))) return;
  std::free(memory);
}

class TensorAllocator final : public c10::Allocator {
 public:
  c10::DeleterFnPtr raw_deleter() const override { return Free; }

#if TORCH_VERSION_MAJOR < 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 3)
  c10::DataPtr allocate(std::size_t bytes) const override { return Allocate(bytes); }
#else
  c10::DataPtr allocate(std::size_t bytes) override { return Allocate(bytes); }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
#endif

 private:
  static c10::DataPtr Allocate(std::size_t bytes) {
    void* memory = nullptr;
    if (bytes >= kSmallestKept) {
      memory = AllBlocks().Take(bytes);
    } else if (bytes > 0 && posix_memalign(&memory, kAlignment, bytes) != 0) {
      memory = nullptr;
    }
    // The words of LibTorch's own allocator.
    TORCH_CHECK(bytes == 0 || memory != nullptr, "can't allocate memory: you tried to allocate ",
                bytes, " bytes");
    return {memory, memory, Free, c10::Device(c10::DeviceType::CPU)};
  }
};

}  // namespace

void ReuseTensorMemory() {
  static std::once_flag once;
  std::call_once(once, [] { c10::SetCPUAllocator(new TensorAllocator, /*priority=*/1); });
}

std::int64_t TensorMemoryBytes() { return static_cast<std::int64_t>(AllBlocks().bytes()); }

void ReleaseTensorMemory() { AllBlocks().Release(); }

}  // namespace isoscan
