#include "client/network/tensor_memory.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

namespace isoscan {
namespace {

constexpr std::int64_t kMebi = std::int64_t{1} << 20;

torch::Tensor Bytes(std::int64_t count) { return at::empty({count}, torch::kUInt8); }

class TensorMemory : public testing::Test {
 protected:
  void SetUp() override {
    ReuseTensorMemory();
    ReleaseTensorMemory();
  }
};

TEST_F(TensorMemory, GoesFromOneTensorToTheNextOfItsSize) {
  const void* first = nullptr;
  {
    const torch::Tensor tensor = Bytes(40 * kMebi);
    first = tensor.data_ptr();
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first) % (2 * kMebi), 0U);
  }
  EXPECT_EQ(Bytes(39 * kMebi).data_ptr(), first);
}

TEST_F(TensorMemory, IsHeldForAQuarterMoreThanTensorsEverHadAtOnce) {
  const std::int64_t before = TensorMemoryBytes();
  // Sizes of which none fits another: kept, all of them would be 40 times as much.
  for (std::int64_t size = 100; size < 4000; size += size / 3) {
    const torch::Tensor tensor = Bytes(size * kMebi);
    EXPECT_LE(TensorMemoryBytes() - before, size * kMebi * 9 / 8 * 5 / 4);
  }
}

TEST_F(TensorMemory, IsGivenBackWhenAsked) {
  const torch::Tensor kept = at::ones({2 * kMebi}, torch::kUInt8);
  const std::int64_t before = TensorMemoryBytes();
  { const torch::Tensor gone = Bytes(64 * kMebi); }
  EXPECT_GE(TensorMemoryBytes(), before + 64 * kMebi);
  ReleaseTensorMemory();
  EXPECT_EQ(TensorMemoryBytes(), before);
  EXPECT_EQ(kept.sum().item<std::int64_t>(), 2 * kMebi);
}

TEST_F(TensorMemory, IsNeverSharedByTwoTensors) {
  std::vector<std::jthread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([thread] {
      for (int turn = 0; turn < 50; ++turn) {
        const torch::Tensor mine = at::full({(1 + turn % 3) * kMebi}, thread, torch::kUInt8);
        std::this_thread::yield();
        EXPECT_TRUE(mine.eq(thread).all().item<bool>());
      }
    });
  }
}

TEST_F(TensorMemory, SaysWhenThereIsNone) {
  try {
    Bytes(std::int64_t{1} << 50);
    FAIL() << "a pebibyte was given";
  } catch (const c10::Error& error) {
    EXPECT_NE(std::string(error.what()).find("can't allocate memory"), std::string::npos);
  }
}

}  // namespace
}  // namespace isoscan
