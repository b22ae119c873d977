#include "common/tls/keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <optional>
#include <utility>
#include <vector>

#include "common/status/file_error.h"
#include "common/status/status_macros.h"
#include "common/tls/openssl_handles.h"
#include <fcntl.h>
#include <openssl/pem.h>
#include <sys/stat.h>
#include <unistd.h>

namespace isoscan {
namespace {

constexpr std::string_view kUriPrefix = "urn:isoscan:";
constexpr std::size_t kMaximumNameLength = 64;
constexpr std::array kRoles = {std::pair(Identity::Role::kSite, std::string_view("site")),
                               std::pair(Identity::Role::kOperator, std::string_view("operator")),
                               std::pair(Identity::Role::kServer, std::string_view("server"))};

bool IsLetterOrDigit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool IsAllowedName(std::string_view name, Identity::Role role) {
  const bool is_server = role == Identity::Role::kServer;
  const auto is_allowed = [is_server](char c) {
    return IsLetterOrDigit(c) || c == '.' || c == '-' || c == '_' || (is_server && c == ':');
  };
  if (name.empty() || name.size() > kMaximumNameLength) return false;
  if (!IsLetterOrDigit(name.front()) && !(is_server && name.front() == ':')) return false;
  return std::ranges::all_of(name, is_allowed);
}

absl::StatusOr<UniqueCertificate> ParseCertificate(const std::string& pem) {
  const UniqueBio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  UniqueCertificate certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  if (certificate == nullptr) {
    return absl::InvalidArgumentError(
        fmt::format("this is not a certificate in PEM form: {}", OpenSslError()));
  }
  return certificate;
}

absl::StatusOr<UniqueKey> ParsePrivateKey(const std::string& pem) {
  const UniqueBio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  // Without this, OpenSSL asks for the password of an encrypted key on the terminal.
  const auto no_password = [](char*, int, int, void*) { return -1; };
  UniqueKey key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr));
  if (key == nullptr) {
    return absl::InvalidArgumentError(
        fmt::format("this is not a private key in PEM form, without password: {}", OpenSslError()));
  }
  return key;
}

/// Every URI among the names, in their order.
std::vector<std::string> UrisOf(const GENERAL_NAMES* names) {
  std::vector<std::string> uris;
  for (int i = 0; i < sk_GENERAL_NAME_num(names); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names, i);
    if (name->type != GEN_URI) continue;
    const ASN1_IA5STRING* text = name->d.uniformResourceIdentifier;
    uris.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                      static_cast<std::size_t>(ASN1_STRING_length(text)));
  }
  return uris;
}

absl::Status AddIdentity(X509_REQ* request, const Identity& identity) {
  const std::string name = "URI:" + ToUri(identity);
  const UniqueExtension extension(
      X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, name.c_str()));
  if (extension == nullptr) {
    return absl::InternalError(fmt::format("cannot name {}: {}", name, OpenSslError()));
  }
  STACK_OF(X509_EXTENSION)* extensions = sk_X509_EXTENSION_new_null();
  sk_X509_EXTENSION_push(extensions, extension.get());
  const int added = X509_REQ_add_extensions(request, extensions);
  sk_X509_EXTENSION_free(extensions);
  if (added != 1) return absl::InternalError(OpenSslError());
  return absl::OkStatus();
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int descriptor) : descriptor_(descriptor) {}
  ~FileDescriptor() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;

  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

/// 0, or the errno of what failed.
int WriteAndSync(int descriptor, std::string_view content) {
  while (!content.empty()) {
    const ssize_t written = write(descriptor, content.data(), content.size());
    if (written < 0 && errno != EINTR) return errno;
    if (written > 0) content.remove_prefix(static_cast<std::size_t>(written));
  }
  return fsync(descriptor) == 0 ? 0 : errno;
}

}  // namespace

std::string ToUri(const Identity& identity) {
  const auto role = std::ranges::find(kRoles, identity.role, &decltype(kRoles)::value_type::first);
  return fmt::format("{}{}:{}", kUriPrefix, role->second, identity.name);
}

absl::StatusOr<Identity> IdentityFromUri(std::string_view uri) {
  if (uri.starts_with(kUriPrefix)) {
    const std::string_view rest = uri.substr(kUriPrefix.size());
    for (const auto& [role, word] : kRoles) {
      if (!rest.starts_with(word) || rest.substr(word.size(), 1) != ":") continue;
      const std::string_view name = rest.substr(word.size() + 1);
      if (IsAllowedName(name, role)) return Identity{role, std::string(name)};
    }
  }
  return absl::InvalidArgumentError(
      fmt::format("\"{}\" is no identity of Isoscan's: expected urn:isoscan:ROLE:NAME, ROLE being "
                  "site, operator or server, NAME of up to {} letters, digits and . - _",
                  uri, kMaximumNameLength));
}

absl::StatusOr<std::string> CreatePrivateKey() {
  const UniqueKey key(EVP_EC_gen("P-256"));
  const UniqueBio bio(BIO_new(BIO_s_mem()));
  if (key == nullptr || PEM_write_bio_PKCS8PrivateKey(bio.get(), key.get(), nullptr, nullptr, 0,
                                                      nullptr, nullptr) != 1) {
    return absl::InternalError(fmt::format("cannot make a private key: {}", OpenSslError()));
  }
  return TextOf(bio.get());
}

absl::StatusOr<std::string> CreateSigningRequest(const std::string& private_key_pem,
                                                 const Identity& identity) {
  ASSIGN_OR_RETURN(const Identity checked, IdentityFromUri(ToUri(identity)));
  ASSIGN_OR_RETURN(const UniqueKey key, ParsePrivateKey(private_key_pem));
  const UniqueSigningRequest request(X509_REQ_new());
  X509_NAME* subject = X509_REQ_get_subject_name(request.get());
  const auto* common_name = reinterpret_cast<const unsigned char*>(checked.name.c_str());
  RETURN_IF_ERROR(AddIdentity(request.get(), checked));
  const UniqueBio bio(BIO_new(BIO_s_mem()));
  if (X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, common_name, -1, -1, 0) != 1 ||
      X509_REQ_set_pubkey(request.get(), key.get()) != 1 ||
      X509_REQ_sign(request.get(), key.get(), EVP_sha256()) == 0 ||
      PEM_write_bio_X509_REQ(bio.get(), request.get()) != 1) {
    return absl::InternalError(
        fmt::format("cannot make the signing request of {}: {}", ToUri(identity), OpenSslError()));
  }
  return TextOf(bio.get());
}

absl::StatusOr<std::string> CertificateFingerprint(const std::string& certificate_pem) {
  ASSIGN_OR_RETURN(const UniqueCertificate certificate, ParseCertificate(certificate_pem));
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int size = 0;
  if (X509_digest(certificate.get(), EVP_sha256(), digest.data(), &size) != 1) {
    return absl::InternalError(fmt::format("cannot digest a certificate: {}", OpenSslError()));
  }
  std::string hexadecimal;
  for (unsigned int i = 0; i < size; ++i) hexadecimal += fmt::format("{:02x}", digest[i]);
  return hexadecimal;
}

absl::StatusOr<int> DaysUntilExpiry(const std::string& certificate_pem) {
  ASSIGN_OR_RETURN(const UniqueCertificate certificate, ParseCertificate(certificate_pem));
  int days = 0;
  int seconds = 0;
  if (ASN1_TIME_diff(&days, &seconds, nullptr, X509_get0_notAfter(certificate.get())) != 1) {
    return absl::InvalidArgumentError("the certificate's end is no date");
  }
  return seconds < 0 ? days - 1 : days;  // Both have the sign of the difference.
}

absl::StatusOr<Identity> IdentityOf(const std::string& certificate_pem) {
  ASSIGN_OR_RETURN(const UniqueCertificate certificate, ParseCertificate(certificate_pem));
  const UniqueGeneralNames names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate.get(), NID_subject_alt_name, nullptr, nullptr)));
  std::optional<Identity> found;
  for (const std::string& uri : UrisOf(names.get())) {
    if (!uri.starts_with(kUriPrefix)) continue;
    if (found) {
      return absl::InvalidArgumentError(
          fmt::format("the certificate names two identities, {} and {}", ToUri(*found), uri));
    }
    ASSIGN_OR_RETURN(found, IdentityFromUri(uri));
  }
  if (!found) {
    return absl::InvalidArgumentError(
        "the certificate names no identity urn:isoscan:ROLE:NAME: it was not made for Isoscan");
  }
  return *found;
}

absl::Status WriteSecret(const std::filesystem::path& path, const std::string& content) {
  std::string temporary = path.string() + ".XXXXXX";
  {
    const FileDescriptor file(mkostemp(temporary.data(), O_CLOEXEC));  // Mode 0600.
    if (file.get() < 0) return FileError("cannot write", path.string(), errno);
    int error = WriteAndSync(file.get(), content);
    if (error == 0 && std::rename(temporary.c_str(), path.c_str()) != 0) error = errno;
    if (error != 0) {
      unlink(temporary.c_str());
      return FileError("cannot write", path.string(), error);
    }
  }
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  const FileDescriptor directory(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0 || fsync(directory.get()) != 0) {
    return FileError("cannot write", folder.string(), errno);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadSecret(const std::filesystem::path& path) {
  const FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status = {};
  if (file.get() < 0 || fstat(file.get(), &status) != 0) {
    return FileError("cannot read the private key", path.string(), errno);
  }
  if (S_ISDIR(status.st_mode)) {
    return FileError("cannot read the private key", path.string(), EISDIR);
  }
  if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return absl::PermissionDeniedError(
        fmt::format("the private key {} has mode {:03o}, so others than its owner may use it: "
                    "run `chmod 600 {}`",
                    path.string(), status.st_mode & 0777, path.string()));
  }
  std::string content;
  std::array<char, 4096> block;
  while (true) {
    const ssize_t count = read(file.get(), block.data(), block.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FileError("cannot read the private key", path.string(), errno);
    if (count == 0) return content;
    content.append(block.data(), static_cast<std::size_t>(count));
  }
}

}  // namespace isoscan
