#include "client/evaluation/label_extents.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstddef>
#include <cstring>
#include <limits>

#include "client/imaging/byte_bits.h"
#include "client/kernels/vector_clones.h"

namespace isoscan {
namespace {

/// Maps of fewer voxels are done before another thread wakes up.
constexpr std::int64_t kLargeMap = 1 << 18;

/// Voxels that are looked at together.
constexpr std::int64_t kWord = 64;

constexpr std::size_t kValues = 256;

struct Range {
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  std::int64_t greatest = std::numeric_limits<std::int64_t>::min();

  void Include(std::int64_t first, std::int64_t last) {
    least = std::min(least, first);
    greatest = std::max(greatest, last);
  }
};

struct Sight {
  LabelOverlap overlap;
  std::array<Range, 3> axes;
};

using Sights = std::array<Sight, kValues>;

/// Takes the runs of voxels that have one pair of values, in the order in which they lie.
class SliceSights {
 public:
  SliceSights(std::int64_t width, std::int64_t z, Sights& sights)
      : sights_(sights), width_(width), z_(z), row_end_(width) {}

  void Add(std::int64_t first, std::int64_t end, std::uint8_t expected, std::uint8_t found) {
    if ((expected | found) == 0) return;
    while (first < end) {
      for (; first >= row_end_; row_end_ += width_) ++y_;
      const std::int64_t stop = std::min(end, row_end_);
      sights_[expected].overlap.reference_voxels += stop - first;
      sights_[found].overlap.predicted_voxels += stop - first;
      Include(sights_[expected], first, stop);
      if (expected == found) {
        sights_[expected].overlap.common_voxels += stop - first;
      } else {
        Include(sights_[found], first, stop);
      }
      first = stop;
    }
  }

 private:
  void Include(Sight& sight, std::int64_t first, std::int64_t end) const {
    const std::int64_t row_first = row_end_ - width_;
    sight.axes[0].Include(first - row_first, end - 1 - row_first);
    sight.axes[1].Include(y_, y_);
    sight.axes[2].Include(z_, z_);
  }

  Sights& sights_;
  std::int64_t width_;
  std::int64_t z_;
  std::int64_t y_ = 0;
  std::int64_t row_end_;
};

/// Bit i is set where byte i of a word differs from the byte before it.
std::uint64_t ChangesOf(const std::uint8_t* reference, const std::uint8_t* predicted) {
  std::array<std::array<std::uint64_t, kWord / 8>, 4> bytes;
  std::memcpy(bytes[0].data(), reference, kWord);
  std::memcpy(bytes[1].data(), reference - 1, kWord);
  std::memcpy(bytes[2].data(), predicted, kWord);
  std::memcpy(bytes[3].data(), predicted - 1, kWord);
  std::uint64_t any = 0;
  for (std::size_t i = 0; i < bytes[0].size(); ++i) {
    bytes[0][i] = (bytes[0][i] ^ bytes[1][i]) | (bytes[2][i] ^ bytes[3][i]);
    any |= bytes[0][i];
  }
  return any == 0 ? 0 : NonzeroBytes(bytes[0]);
}

ISOSCAN_VECTOR_CLONES
void ScanSlice(const std::uint8_t* reference, const std::uint8_t* predicted, std::int64_t count,
               SliceSights slice) {
  std::int64_t run = 0;
  const auto end_run = [&](std::int64_t end) {
    slice.Add(run, end, reference[run], predicted[run]);
    run = end;
  };
  std::int64_t i = 1;
  for (; i + kWord <= count; i += kWord) {
    for (std::uint64_t changes = ChangesOf(reference + i, predicted + i); changes != 0;
         changes &= changes - 1) {
      end_run(i + std::countr_zero(changes));
    }
  }
  for (; i < count; ++i) {
    if (reference[i] != reference[i - 1] || predicted[i] != predicted[i - 1]) end_run(i);
  }
  if (count > 0) end_run(count);
}

void Join(const Sights& slices, Sights& all) {
  for (std::size_t value = 0; value < kValues; ++value) {
    const Sight& from = slices[value];
    Sight& to = all[value];
    to.overlap.reference_voxels += from.overlap.reference_voxels;
    to.overlap.predicted_voxels += from.overlap.predicted_voxels;
    to.overlap.common_voxels += from.overlap.common_voxels;
    for (std::size_t axis = 0; axis < 3; ++axis) {
      to.axes[axis].Include(from.axes[axis].least, from.axes[axis].greatest);
    }
  }
}

}  // namespace

std::vector<LabelExtent> FindExtents(const LabelMap& reference, const LabelMap& predicted) {
  assert(reference.voxels.size() == predicted.voxels.size());
  const std::array<std::int64_t, 3>& size = reference.geometry.size;
  const std::int64_t slice = size[0] * size[1];
  Sights all;
#pragma omp parallel if (slice * size[2] > kLargeMap)
  {
    Sights mine;
#pragma omp for schedule(static) nowait
    for (std::int64_t z = 0; z < size[2]; ++z) {
      ScanSlice(reference.voxels.data() + z * slice, predicted.voxels.data() + z * slice, slice,
                SliceSights(size[0], z, mine));
    }
#pragma omp critical(isoscan_label_extents)
    Join(mine, all);
  }

  std::vector<LabelExtent> extents(kValues);
  for (std::size_t value = 1; value < kValues; ++value) {
    const Sight& sight = all[value];
    extents[value].overlap = sight.overlap;
    if (sight.overlap.reference_voxels + sight.overlap.predicted_voxels == 0) continue;
    for (std::size_t axis = 0; axis < 3; ++axis) {
      extents[value].box.first[axis] = sight.axes[axis].least;
      extents[value].box.end[axis] = sight.axes[axis].greatest + 1;
    }
  }
  return extents;
}

}  // namespace isoscan
