#pragma once

#include <cstdint>

namespace isoscan {

/// From now on tensors of 1 MiB and more on the CPU take over the memory of tensors of their size
/// that are gone, which a training step leaves in the sizes that the next one needs. Repeated calls
/// change nothing.
///
/// Why: a page is mapped once and not once a step, in huge pages where the kernel gives them, and
/// no more is held than 1.25 times what tensors ever held at once. glibc's heap, told to keep what
/// is freed, held twice as much (docs/performance.md).
/// Thread safety: any thread may call it, and any thread allocate.
void ReuseTensorMemory();

/// What is held now, in use or not, in bytes.
std::int64_t TensorMemoryBytes();

/// Gives back what no tensor uses.
void ReleaseTensorMemory();

}  // namespace isoscan
