#include "common/random/philox.h"

#include <algorithm>
#include <cassert>

namespace isoscan {
namespace {

// Hash of seed and name to 64 bits: Davies-Meyer with Philox as the block cipher, eight bytes of
// the name as the key of each step, the name's length last.
std::array<std::uint32_t, 2> KeyOf(std::uint64_t seed, std::string_view name) {
  std::array<std::uint32_t, 4> state = {static_cast<std::uint32_t>(seed),
                                        static_cast<std::uint32_t>(seed >> 32), 0x69736f73,
                                        0x63616e31};  // "isoscan1"
  const auto absorb = [&state](std::uint64_t block) {
    const auto mixed = Philox4x32(
        state, {static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32)});
    for (std::size_t i = 0; i < state.size(); ++i) state[i] ^= mixed[i];
  };
  const std::uint64_t length = name.size();
  while (!name.empty()) {
    std::uint64_t block = 0;
    const std::size_t bytes = std::min(name.size(), sizeof(block));
    for (std::size_t i = 0; i < bytes; ++i) {
      block |= std::uint64_t{static_cast<unsigned char>(name[i])} << (8 * i);
    }
    absorb(block);
    name.remove_prefix(bytes);
  }
  absorb(length);
  return {state[0], state[1]};
}

double NormalOf(std::uint32_t high, std::uint32_t low) {
  // The centre of one of 2^52 equal cells of (0, 1): exact, symmetric, never 0 or 1.
  const std::uint64_t cell = (std::uint64_t{high} << 32 | low) >> 12;
  return NormalQuantile((static_cast<double>(cell) + 0.5) * 0x1p-52);
}

}  // namespace

std::array<std::uint32_t, 4> Philox4x32(const std::array<std::uint32_t, 4>& counter,
                                        const std::array<std::uint32_t, 2>& key) {
  auto [c0, c1, c2, c3] = counter;
  auto [k0, k1] = key;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53} * c0;
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57} * c2;
    c0 = static_cast<std::uint32_t>(product1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(product1);
    c2 = static_cast<std::uint32_t>(product0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(product0);
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return {c0, c1, c2, c3};
}

RandomStream::RandomStream(std::uint64_t seed, std::string_view name, std::uint64_t major,
                           std::uint32_t minor)
    : key_(KeyOf(seed, name)),
      counter_{0, minor, static_cast<std::uint32_t>(major),
               static_cast<std::uint32_t>(major >> 32)} {}

std::uint32_t RandomStream::NextBits() {
  if (used_ == 4) {
    block_ = Philox4x32(counter_, key_);
    ++counter_[0];
    used_ = 0;
  }
  return block_[static_cast<std::size_t>(used_++)];
}

double RandomStream::Uniform() {
  const std::uint64_t high = NextBits();
  const std::uint64_t low = NextBits();
  return static_cast<double>((high << 32 | low) >> 11) * 0x1p-53;
}

double RandomStream::Uniform(double low, double high) {
  // Rounding may reach `high` itself, which is outside the interval.
  const double value = low + (high - low) * Uniform();
  return value < high ? value : low;
}

std::int64_t RandomStream::Below(std::int64_t bound) {
  assert(bound > 0);
  // Of 2^64 values, the first 2^64 mod bound would make small results likelier: draw again.
  const auto range = static_cast<std::uint64_t>(bound);
  const std::uint64_t first_fair = (0 - range) % range;
  std::uint64_t value = 0;
  do {
    const std::uint64_t high = NextBits();
    const std::uint64_t low = NextBits();
    value = high << 32 | low;
  } while (value < first_fair);
  return static_cast<std::int64_t>(value % range);
}

bool RandomStream::Chance(double probability) { return Uniform() < probability; }

double RandomStream::Normal() {
  const std::uint32_t high = NextBits();
  const std::uint32_t low = NextBits();
  return NormalOf(high, low);
}

void RandomStream::FillNormal(std::span<float> values, double sd) {
  // Up to the next whole block one by one; then blocks by their number, in any order.
  std::size_t next = 0;
  while (next < values.size() && used_ != 4) values[next++] = static_cast<float>(sd * Normal());

  const auto blocks = static_cast<std::int64_t>((values.size() - next) / 2);
  float* const first = values.data() + next;
#pragma omp parallel for schedule(static) if (blocks > 16'384)
  for (std::int64_t block = 0; block < blocks; ++block) {
    std::array<std::uint32_t, 4> counter = counter_;
    counter[0] += static_cast<std::uint32_t>(block);
    const auto bits = Philox4x32(counter, key_);
    first[2 * block] = static_cast<float>(sd * NormalOf(bits[0], bits[1]));
    first[2 * block + 1] = static_cast<float>(sd * NormalOf(bits[2], bits[3]));
  }
  counter_[0] += static_cast<std::uint32_t>(blocks);
  next += 2 * static_cast<std::size_t>(blocks);

  while (next < values.size()) values[next++] = static_cast<float>(sd * Normal());
}

}  // namespace isoscan
