#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace isoscan {

/// SHA-256 over bytes that arrive in pieces. FIPS 180-4, computed by OpenSSL.
class Sha256 {
 public:
  Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  ~Sha256();

  void Update(std::string_view bytes);
  /// 64 lower-case hexadecimal digits; ends the computation.
  std::string Finish() &&;

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

/// 64 lower-case hexadecimal digits.
std::string Sha256Of(std::string_view bytes);

/// Errors: those of FileError(): NOT_FOUND when there is no such file, or it is a folder.
absl::StatusOr<std::string> Sha256OfFile(const std::filesystem::path& path);

/// True for 64 lower-case hexadecimal digits: what may be used as a blob's file name.
bool IsSha256(std::string_view text);

}  // namespace isoscan
