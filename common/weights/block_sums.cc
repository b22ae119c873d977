#include "common/weights/block_sums.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <span>
#include <utility>

#include "common/status/file_error.h"
#include "common/status/status_macros.h"
#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

namespace isoscan {
namespace {

constexpr std::string_view kMagic = "isosums1";
constexpr auto kBlock = static_cast<std::size_t>(BlockSums::kBlockBytes);

std::uint64_t SumOf(std::string_view block) { return XXH3_64bits(block.data(), block.size()); }

void AppendNumber(std::string& text, std::uint64_t number) {
  text.append(reinterpret_cast<const char*>(&number), sizeof(number));
}

std::uint64_t NumberAt(std::string_view text, std::size_t offset) {
  std::uint64_t number = 0;
  std::memcpy(&number, text.data() + offset, sizeof(number));
  return number;
}

}  // namespace

std::filesystem::path BlockSums::PathFor(const std::filesystem::path& file) {
  std::filesystem::path path = file;
  return path += ".sums";
}

void BlockSums::EndBlock() {
  sums_.push_back(SumOf(pending_));
  pending_.clear();
}

void BlockSums::Add(std::string_view bytes) {
  bytes_ += static_cast<std::int64_t>(bytes.size());
  while (!bytes.empty()) {
    if (pending_.empty() && bytes.size() >= kBlock) {
      sums_.push_back(SumOf(bytes.substr(0, kBlock)));
      bytes.remove_prefix(kBlock);
      continue;
    }
    const std::size_t taken = std::min(kBlock - pending_.size(), bytes.size());
    pending_.append(bytes.substr(0, taken));
    bytes.remove_prefix(taken);
    if (pending_.size() == kBlock) EndBlock();
  }
}

bool BlockSums::Match(std::int64_t at, std::string_view bytes) const {
  const auto end = at + static_cast<std::int64_t>(bytes.size());
  if (at < 0 || at % kBlockBytes != 0 || end > bytes_) return false;
  if (end % kBlockBytes != 0 && end != bytes_) return false;
  for (auto block = static_cast<std::size_t>(at / kBlockBytes); !bytes.empty(); ++block) {
    const std::string_view content = bytes.substr(0, kBlock);
    const std::uint64_t sum = block < sums_.size() ? sums_[block] : SumOf(pending_);
    if (SumOf(content) != sum) return false;
    bytes.remove_prefix(content.size());
  }
  return true;
}

absl::Status BlockSums::WriteBeside(const std::filesystem::path& file) const {
  const std::filesystem::path path = PathFor(file);
  std::string text(kMagic);
  AppendNumber(text, static_cast<std::uint64_t>(bytes_));
  for (const std::uint64_t sum : sums_) AppendNumber(text, sum);
  if (!pending_.empty()) AppendNumber(text, SumOf(pending_));
  AppendNumber(text, SumOf(text));
  std::ofstream stream(path, std::ios::binary | std::ios::trunc);
  stream.write(text.data(), static_cast<std::streamsize>(text.size()));
  stream.close();
  if (stream.fail()) return FileError("cannot write", path.filename().string(), errno);
  return absl::OkStatus();
}

absl::StatusOr<BlockSums> BlockSums::ReadBeside(const std::filesystem::path& file) {
  const std::filesystem::path path = PathFor(file);
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return FileError("cannot open", path.filename().string(), errno);
  const std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  constexpr std::size_t kNumber = sizeof(std::uint64_t);
  constexpr std::size_t kFirstSum = kMagic.size() + kNumber;
  const auto damaged = [&] {
    return absl::DataLossError(fmt::format("{} is damaged", path.filename().string()));
  };
  if (text.size() < kFirstSum + kNumber || text.size() % kNumber != 0 ||
      !text.starts_with(kMagic)) {
    return damaged();
  }
  const std::size_t end = text.size() - kNumber;
  if (NumberAt(text, end) != SumOf(std::string_view(text).substr(0, end))) return damaged();
  BlockSums sums;
  sums.bytes_ = static_cast<std::int64_t>(NumberAt(text, kMagic.size()));
  for (std::size_t at = kFirstSum; at < end; at += kNumber) {
    sums.sums_.push_back(NumberAt(text, at));
  }
  if (sums.sums_.size() != (static_cast<std::size_t>(sums.bytes_) + kBlock - 1) / kBlock) {
    return damaged();
  }
  return sums;
}

absl::StatusOr<FileSums> SumsOfFile(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return FileError("cannot open", name, errno);
  Sha256 sha256;
  FileSums sums;
  std::vector<char> buffer(16 * kBlock);
  ssize_t count = 0;
  int error = 0;
  do {
    count = read(descriptor, buffer.data(), buffer.size());
    error = errno;
    if (count <= 0) continue;
    const std::string_view bytes(buffer.data(), static_cast<std::size_t>(count));
    sha256.Update(bytes);
    sums.blocks.Add(bytes);
  } while (count > 0 || (count < 0 && error == EINTR));
  close(descriptor);
  if (count < 0) return FileError("cannot read", name, error);
  sums.sha256 = std::move(sha256).Finish();
  return sums;
}

absl::StatusOr<BlockSums> BlockSumsOf(const std::filesystem::path& path,
                                      const std::string& sha256) {
  if (absl::StatusOr<BlockSums> kept = BlockSums::ReadBeside(path); kept.ok()) return kept;
  ASSIGN_OR_RETURN(FileSums sums, SumsOfFile(path));
  if (sums.sha256 != sha256) {
    return absl::DataLossError(
        fmt::format("{} is damaged: its SHA-256 is {}", path.filename().string(), sums.sha256));
  }
  // Without them the next reader does this work again, and nothing else.
  sums.blocks.WriteBeside(path).IgnoreError();
  return std::move(sums.blocks);
}

}  // namespace isoscan
