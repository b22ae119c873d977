#include "common/weights/sha256.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <utility>
#include <vector>

#include "common/status/file_error.h"
#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

namespace isoscan {
namespace {

constexpr std::size_t kDigestBytes = 32;

// OpenSSL can only fail here when the process has no memory or no SHA-256 provider: nothing that a
// caller could act upon.
void AbortUnless(bool ok) {
  if (!ok) std::abort();
}

struct ContextDeleter {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

}  // namespace

struct Sha256::Context {
  std::unique_ptr<EVP_MD_CTX, ContextDeleter> handle{EVP_MD_CTX_new()};
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  AbortUnless(context_->handle != nullptr &&
              EVP_DigestInit_ex(context_->handle.get(), EVP_sha256(), nullptr) == 1);
}

Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;
Sha256::~Sha256() = default;

void Sha256::Update(std::string_view bytes) {
  AbortUnless(EVP_DigestUpdate(context_->handle.get(), bytes.data(), bytes.size()) == 1);
}

std::string Sha256::Finish() && {
  std::array<unsigned char, kDigestBytes> digest{};
  AbortUnless(EVP_DigestFinal_ex(context_->handle.get(), digest.data(), nullptr) == 1);
  context_.reset();

  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * digest.size());
  for (const unsigned char byte : digest) {
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

std::string Sha256Of(std::string_view bytes) {
  Sha256 sha256;
  sha256.Update(bytes);
  return std::move(sha256).Finish();
}

absl::StatusOr<std::string> Sha256OfFile(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return FileError("cannot open", name, errno);
  Sha256 sha256;
  std::vector<char> buffer(256 * 1024);
  ssize_t count = 0;
  int error = 0;
  do {
    count = read(descriptor, buffer.data(), buffer.size());
    error = errno;
    if (count > 0) sha256.Update({buffer.data(), static_cast<std::size_t>(count)});
  } while (count > 0 || (count < 0 && error == EINTR));
  close(descriptor);
  if (count < 0) return FileError("cannot read", name, error);
  return std::move(sha256).Finish();
}

bool IsSha256(std::string_view text) {
  return text.size() == 2 * kDigestBytes && std::all_of(text.begin(), text.end(), [](char digit) {
           return (digit >= '0' && digit <= '9') || (digit >= 'a' && digit <= 'f');
         });
}

}  // namespace isoscan
