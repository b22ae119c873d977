#include "client/imaging/voxel_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "client/imaging/image_file.h"
#include "common/status/status_macros.h"
#include "tests/support/peak_memory.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/unit/client/imaging/phantom.h"
#include <sys/stat.h>

namespace isoscan {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

std::string Gzip(const std::string& text) {
  std::string zipped;
  const std::span<const std::byte> parts[] = {std::as_bytes(std::span(text))};
  EXPECT_OK(Deflate(parts, [&zipped](std::span<const std::byte> bytes) {
    zipped.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return absl::OkStatus();
  }));
  return zipped;
}

class VoxelStreamTest : public testing::Test {
 protected:
  std::filesystem::path Put(const std::string& bytes) const {
    const std::filesystem::path path = folder_.path() / "x.nii.gz";
    std::filesystem::remove(path);  // Writing over a file may wait for the disk.
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

  absl::StatusOr<std::string> ReadAll(const std::string& bytes, std::size_t block) const {
    ASSIGN_OR_RETURN(VoxelStream stream, VoxelStream::Open(Put(bytes)));
    std::string text;
    while (true) {
      std::string part(block, '\0');
      ASSIGN_OR_RETURN(const std::size_t count,
                       stream.Read(std::as_writable_bytes(std::span(part))));
      text.append(part, 0, count);
      if (count < block) return text;
    }
  }

  /// Noise and runs: literals, matches and several blocks.
  static std::string Text(std::size_t size) {
    std::string text;
    std::uint32_t state = 1;
    while (text.size() < size) {
      state = state * 1664525U + 1013904223U;
      text.append(state >> 30, static_cast<char>(state >> 24));
    }
    return text;
  }

  TemporaryDirectory folder_;
};

TEST_F(VoxelStreamTest, GivesWhatWasCompressedWhateverTheBlocks) {
  const std::string text = Text(500'000);
  for (const std::size_t block : {1'000'000, 500'000, 65'536, 4'097, 101}) {
    EXPECT_EQ(ReadAll(Gzip(text), block).value(), text) << block;
    EXPECT_EQ(ReadAll(text, block).value(), text) << block;
  }
}

TEST_F(VoxelStreamTest, ReadsMembersAsOneAndPaddingAsNone) {
  const std::string text = Text(300'000);
  const std::string members = Gzip(text.substr(0, 1)) + Gzip("") + Gzip(text.substr(1, 200'000)) +
                              Gzip(text.substr(200'001));

  EXPECT_EQ(ReadAll(members, 4'096).value(), text);
  EXPECT_EQ(ReadAll(members + std::string(200'000, '\0'), 4'096).value(), text);
}

TEST_F(VoxelStreamTest, RefusesWhatFollowsTheLastMember) {
  const std::string zipped = Gzip("voxels");

  for (const std::string& rest : {std::string("x"), std::string("\0x", 2), std::string(1, '\x1f'),
                                  std::string("\x1f\x8b", 2), zipped.substr(0, 15)}) {
    EXPECT_THAT(ReadAll(zipped + rest, 100), StatusIs(absl::StatusCode::kDataLoss));
  }
}

TEST_F(VoxelStreamTest, NoticesWhereverItIsCut) {
  const std::string zipped = Gzip(Text(200));
  ASSERT_GT(zipped.size(), 100);

  for (std::size_t size = 2; size < zipped.size(); ++size) {
    EXPECT_THAT(ReadAll(zipped.substr(0, size), 300),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("incomplete")))
        << size;
  }
}

TEST_F(VoxelStreamTest, NeverGivesOtherBytesThanWereCompressed) {
  const std::string text = Text(200);
  const std::string zipped = Gzip(text);

  std::size_t noticed = 0;
  for (std::size_t byte = 0; byte < zipped.size(); ++byte) {
    std::string damaged = zipped;
    damaged[byte] = static_cast<char>(damaged[byte] ^ (1 << byte % 8));

    const absl::StatusOr<std::string> read = ReadAll(damaged, 300);

    if (absl::IsDataLoss(read.status())) ++noticed;
    // A file that is not gzipped is taken as it is.
    if (read.ok()) {
      EXPECT_EQ(*read, byte < 2 ? damaged : text) << byte;
    }
  }
  EXPECT_GT(noticed, zipped.size() - 12);  // Of the header some bits mean nothing.
}

TEST_F(VoxelStreamTest, RefusesWhatIsNoFile) {
  ASSERT_EQ(mkfifo((folder_.path() / "pipe.nii").c_str(), 0600), 0);

  EXPECT_THAT(VoxelStream::Open(folder_.path() / "pipe.nii").status(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("pipe")));
  EXPECT_THAT(VoxelStream::Open(folder_.path()).status(), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(VoxelStreamTest, BoundsWhatAFileCanHold) {
  ASSERT_OK_AND_ASSIGN(const VoxelStream plain, VoxelStream::Open(Put(std::string(1'000, 'x'))));
  EXPECT_EQ(plain.greatest_bytes(), 1'000);

  const std::string zeros(10'000'000, '\0');
  ASSERT_OK_AND_ASSIGN(const VoxelStream zipped, VoxelStream::Open(Put(Gzip(zeros))));
  EXPECT_GE(zipped.greatest_bytes(), 10'000'000);
}

// A file of a kilobyte must not ask for a terabyte.
TEST_F(VoxelStreamTest, LetsNoHeaderAskForMoreThanItsFileCanHold) {
  RawNifti nifti{.size = {10'000, 10'000, 10'000}};
  nifti.voxels = std::string(700, '\1');

  for (const std::string& bytes :
       {nifti.Header() + nifti.voxels, Gzip(nifti.Header() + nifti.voxels)}) {
    EXPECT_THAT(
        ReadVolume(Put(bytes)),
        StatusIs(absl::StatusCode::kDataLoss, HasSubstr("promises 10000 x 10000 x 10000 voxels")));
    EXPECT_THAT(ReadGeometry(Put(bytes)), StatusIs(absl::StatusCode::kDataLoss));
  }
}

TEST_F(VoxelStreamTest, LetsNoVoxelsBeginBeyondTheFile) {
  RawNifti nifti{.size = {2, 2, 2}};
  nifti.voxels = std::string(32, '\1');
  std::string header = nifti.Header();
  const float offset = 1e6F;
  std::memcpy(header.data() + 108, &offset, sizeof(offset));

  EXPECT_THAT(ReadVolume(Put(header + nifti.voxels)),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("from byte 1000000")));
  EXPECT_THAT(ReadVolume(Put(Gzip(header + nifti.voxels + Text(40'000)))),
              StatusIs(absl::StatusCode::kDataLoss, AnyOf(HasSubstr("before its voxels"))));
}

TEST_F(VoxelStreamTest, RefusesVoxelsThatTheHeaderDoesNotCount) {
  RawNifti nifti{.size = {2, 2, 2}};
  nifti.voxels = std::string(32, '\1');
  const std::string bytes = nifti.Header() + nifti.voxels;

  EXPECT_OK(ReadVolume(Put(bytes + "\n")));
  EXPECT_OK(ReadVolume(Put(Gzip(bytes + "\n"))));
  EXPECT_THAT(ReadVolume(Put(bytes + std::string(70'000, 'x'))),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("goes on after the 2 x 2 x 2")));
  EXPECT_THAT(ReadVolume(Put(Gzip(bytes + std::string(70'000, 'x')))),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("goes on")));
}

using SlowVoxelStream = VoxelStreamTest;

TEST_F(SlowVoxelStream, ReadsALargeVolumeWithinItsOwnSizeAndAThird) {
  RawNifti nifti{.size = {512, 512, 300}};
  const std::string header = nifti.Header();
  constexpr std::size_t kSlice = 512 * 512;
  constexpr double kVolumeBytes = 300.0 * kSlice * sizeof(float);
  std::vector<float> slice(kSlice);
  for (std::size_t i = 0; i < kSlice; ++i) slice[i] = static_cast<float>(i * 7 % 1000);
  std::vector<std::span<const std::byte>> parts(300, std::as_bytes(std::span(slice)));
  parts.insert(parts.begin(), std::as_bytes(std::span(header)));
  for (const char* name : {"large.nii", "large.nii.gz"}) {
    const std::filesystem::path path = folder_.path() / name;
    std::ofstream file(path, std::ios::binary);
    const auto write = [&file](std::span<const std::byte> bytes) {
      file.write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
      return absl::OkStatus();
    };
    if (path.extension() == ".gz") {
      ASSERT_OK(Deflate(parts, write));
    } else {
      for (const std::span<const std::byte> part : parts) ASSERT_OK(write(part));
    }
    file.close();

    const std::int64_t peak = PeakMemoryOf([&path] {
      const absl::StatusOr<Volume> volume = ReadVolume(path);
      return volume.ok() && volume->voxels.back() == static_cast<float>((kSlice - 1) * 7 % 1000);
    });

    EXPECT_GT(peak, 0) << name;
    EXPECT_LT(static_cast<double>(peak), 1.3 * kVolumeBytes + 100e6) << name;
    RecordProperty(name, std::to_string(peak));
  }
}

}  // namespace
}  // namespace isoscan
