#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <string>
#include <utility>

#include "client/imaging/image_file.h"
#include "client/intake/case_sight.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/imaging/dicom_files.h"
#include "tests/unit/client/imaging/phantom.h"

namespace {

/// This thread's allocations until one fails, once; below 0: none does.
thread_local std::int64_t allocations_left = -1;

}  // namespace

// Not inlined: g++ would take malloc for another function than the one that belongs to free.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  const bool fails = allocations_left > 0 && --allocations_left == 0;
  void* memory = fails ? nullptr : std::malloc(std::max<std::size_t>(bytes, 1));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t /*bytes*/) noexcept {
  std::free(memory);
}

namespace isoscan {
namespace {

/// Looks at the case once for each allocation, which fails.
void FailEveryAllocation(const ScanFiles& files) {
  const auto look = [&files](std::int64_t failing) {
    ScanFiles copy = files;
    allocations_left = failing;
    CaseSight sight = LookAtHeaders(std::move(copy));
    LookAtVoxels(sight);
    return sight;
  };
  const CaseSight whole = look(-1);
  ASSERT_FALSE(whole.quarantined()) << whole.findings.front().reason;
  int for_memory = 0;
  for (std::int64_t failing = 1;; ++failing) {
    const CaseSight sight = look(failing);
    const bool none_failed = std::exchange(allocations_left, -1) > 0;
    if (sight.quarantined()) {
      for_memory += sight.findings.back().fault == Fault::kMemory ? 1 : 0;
    } else {
      EXPECT_EQ(sight.images.front().digest, whole.images.front().digest) << failing;
    }
    if (none_failed) break;
  }
  EXPECT_GT(for_memory, 20);
}

TEST(OutOfMemory, QuarantinesACaseOfNiftiWhicheverAllocationFails) {
  const TemporaryDirectory folder;
  const Geometry grid = ObliqueGeometry({9, 8, 7});
  ASSERT_OK(WriteVolume(folder.path() / "x.nii.gz", SmoothVolume(grid)));
  ASSERT_OK(WriteLabelMap(folder.path() / "y.nii.gz", BoxLabels(grid)));
  ScanFiles files;
  files.name = "case";
  files.images.push_back({.path = folder.path() / "x.nii.gz", .channel = "T1w"});
  files.labels.emplace_back().path = folder.path() / "y.nii.gz";

  FailEveryAllocation(files);
}

TEST(OutOfMemory, QuarantinesACaseOfDicomWhicheverAllocationFails) {
  const TemporaryDirectory folder;
  Geometry grid;
  grid.size = {9, 8, 3};
  WriteMrSeries(folder.path(), NumberedVolume(grid));
  ASSERT_OK_AND_ASSIGN(const DicomSeries series, FindDicomSeries(folder.path()));
  ScanFiles files;
  files.name = "case";
  files.images.push_back({.path = folder.path(), .channel = "T1w", .series = series});

  FailEveryAllocation(files);
}

}  // namespace
}  // namespace isoscan
