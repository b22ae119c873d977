#include "client/imaging/voxel_stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "common/status/file_error.h"
#include "common/status/status_macros.h"
#include <fcntl.h>
#include <isa-l/igzip_lib.h>
#include <unistd.h>

namespace isoscan {
namespace {

constexpr std::size_t kInputBytes = std::size_t{1} << 16;
constexpr std::uint8_t kGzipMagic[2] = {0x1f, 0x8b};

absl::Status Damaged(const std::string& path, const std::string& what) {
  return absl::DataLossError(
      fmt::format("{} {}: it is damaged or incomplete; copy or convert it again", path, what));
}

}  // namespace

struct VoxelStream::State {
  std::string path;
  int descriptor = -1;
  std::int64_t bytes_there = 0;  ///< Of the file, from the offset on.
  bool deflated = false;

  // The rest is for gzip and zlib alone.
  bool zlib = false;
  inflate_state inflate;
  std::unique_ptr<std::uint8_t[]> input;
  bool between_members = false;
  bool padded = false;
  bool finished = false;

  ~State() {
    if (descriptor >= 0) close(descriptor);
  }

  absl::StatusOr<std::size_t> ReadFile(void* out, std::size_t bytes) const {
    while (true) {
      const ssize_t count = read(descriptor, out, bytes);
      if (count >= 0) return static_cast<std::size_t>(count);
      if (errno != EINTR) return FileError("cannot read", path, errno);
    }
  }

  absl::StatusOr<std::size_t> ReadPlain(std::span<std::byte> out) const {
    std::size_t filled = 0;
    while (filled < out.size()) {
      ASSIGN_OR_RETURN(const std::size_t count, ReadFile(out.data() + filled, out.size() - filled));
      if (count == 0) break;
      filled += count;
    }
    return filled;
  }

  /// After a member: the end, padding, or the next member.
  absl::Status BeginMember() {
    if (inflate.avail_in == 0 || zlib) {
      finished = true;
    } else if (*inflate.next_in == 0) {
      padded = true;
      ++inflate.next_in;
      --inflate.avail_in;
    } else if (padded || *inflate.next_in != kGzipMagic[0]) {
      return Damaged(path, "holds something else after the end of its gzip data");
    } else {
      isal_inflate_reset(&inflate);
      inflate.crc_flag = ISAL_GZIP;
      between_members = false;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::size_t> ReadInflated(std::span<std::byte> out) {
    std::size_t filled = 0;
    while (filled < out.size() && !finished) {
      if (inflate.avail_in == 0) {
        ASSIGN_OR_RETURN(const std::size_t count, ReadFile(input.get(), kInputBytes));
        inflate.next_in = input.get();
        inflate.avail_in = static_cast<std::uint32_t>(count);
      }
      if (between_members) {
        RETURN_IF_ERROR(BeginMember());
        continue;
      }
      const bool at_end = inflate.avail_in == 0;
      inflate.next_out = reinterpret_cast<std::uint8_t*>(out.data() + filled);
      const auto room =
          static_cast<std::uint32_t>(std::min<std::size_t>(out.size() - filled, 1U << 30));
      inflate.avail_out = room;
      const int result = isal_inflate(&inflate);
      filled += room - inflate.avail_out;
      if (result == ISAL_INCORRECT_CHECKSUM) {
        return Damaged(path, "does not have the checksum or length that it was written with");
      }
      if (result < 0) return Damaged(path, "holds gzip data that cannot be inflated");
      between_members = inflate.block_state == ISAL_BLOCK_FINISH;
      if (!between_members && at_end && inflate.avail_out == room) {
        return Damaged(path, "ends too early, in the middle of its gzip data");
      }
    }
    return filled;
  }
};

VoxelStream::VoxelStream(std::unique_ptr<State> state) : state_(std::move(state)) {}
VoxelStream::VoxelStream(VoxelStream&&) noexcept = default;
VoxelStream& VoxelStream::operator=(VoxelStream&&) noexcept = default;
VoxelStream::~VoxelStream() = default;

absl::StatusOr<VoxelStream> VoxelStream::Open(const std::filesystem::path& path, Packing packing,
                                              std::int64_t offset) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found) {
    return absl::NotFoundError(fmt::format("there is no file {}", path.string()));
  }
  if (std::filesystem::is_directory(status)) return FileError("cannot open", path.string(), EISDIR);
  // Opening a pipe would wait for its writer.
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    return absl::NotFoundError(
        fmt::format("cannot open {}: it is a pipe or a device, not a file", path.string()));
  }
  auto state = std::make_unique_for_overwrite<State>();
  state->path = path.string();
  state->descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (state->descriptor < 0) return FileError("cannot open", path.string(), errno);
  state->bytes_there = std::max<std::int64_t>(lseek(state->descriptor, 0, SEEK_END) - offset, 0);
  lseek(state->descriptor, offset, SEEK_SET);
  std::uint8_t magic[2] = {};
  if (pread(state->descriptor, magic, sizeof(magic), offset) < 0) {
    return FileError("cannot read", path.string(), errno);
  }
  const bool gzipped = std::equal(magic, magic + 2, kGzipMagic);
  state->zlib = packing == Packing::kDeflated && !gzipped;
  state->deflated = packing == Packing::kDeflated || (packing == Packing::kByContent && gzipped);
  if (state->deflated) {
    state->input = std::make_unique_for_overwrite<std::uint8_t[]>(kInputBytes);
    isal_inflate_init(&state->inflate);
    state->inflate.crc_flag = state->zlib ? ISAL_ZLIB : ISAL_GZIP;
  }
  return VoxelStream(std::move(state));
}

absl::StatusOr<std::size_t> VoxelStream::Read(std::span<std::byte> out) {
  return state_->deflated ? state_->ReadInflated(out) : state_->ReadPlain(out);
}

std::int64_t VoxelStream::greatest_bytes() const {
  constexpr std::int64_t kGreatestRatio = 1032;
  return state_->deflated ? state_->bytes_there * kGreatestRatio : state_->bytes_there;
}

absl::Status Deflate(std::span<const std::span<const std::byte>> parts,
                     const std::function<absl::Status(std::span<const std::byte>)>& write) {
  std::vector<std::uint8_t> work(ISAL_DEF_LVL3_DEFAULT);
  std::vector<std::uint8_t> output(kInputBytes);
  isal_zstream stream;
  isal_deflate_init(&stream);
  stream.level = 3;
  stream.level_buf = work.data();
  stream.level_buf_size = static_cast<std::uint32_t>(work.size());
  stream.gzip_flag = IGZIP_GZIP;
  for (std::size_t part = 0; part < parts.size(); ++part) {
    std::span<const std::byte> left = parts[part];
    do {
      // The library counts in 32 bits.
      const std::size_t count = std::min<std::size_t>(left.size(), std::size_t{1} << 30);
      stream.next_in =
          const_cast<std::uint8_t*>(reinterpret_cast<const std::uint8_t*>(left.data()));
      stream.avail_in = static_cast<std::uint32_t>(count);
      left = left.subspan(count);
      stream.end_of_stream = part + 1 == parts.size() && left.empty() ? 1 : 0;
      do {
        stream.next_out = output.data();
        stream.avail_out = static_cast<std::uint32_t>(output.size());
        if (isal_deflate(&stream) != COMP_OK) return absl::InternalError("isal_deflate failed");
        RETURN_IF_ERROR(
            write(std::as_bytes(std::span(output).first(output.size() - stream.avail_out))));
      } while (stream.avail_out == 0);
    } while (!left.empty());
  }
  return absl::OkStatus();
}

}  // namespace isoscan
