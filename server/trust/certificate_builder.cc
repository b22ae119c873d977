#include "server/trust/certificate_builder.h"

#include <fmt/format.h>

#include <chrono>
#include <cstddef>
#include <ctime>
#include <memory>
#include <utility>

#include "common/status/status_macros.h"
#include "common/weights/sha256.h"
#include <openssl/bn.h>
#include <openssl/pem.h>

namespace isoscan {
namespace {

using UniqueNumber = std::unique_ptr<BIGNUM, OpenSslFree<BN_free>>;

constexpr auto kClockAllowance = std::chrono::hours(1);

UniqueBio ReadBio(const std::string& pem) {
  return UniqueBio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

std::time_t Seconds(Time time) {
  return std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count();
}

/// 128 random bits. Through a number, since DER allows no leading zero bytes.
bool SetRandomSerial(X509* certificate) {
  const UniqueNumber serial(BN_new());
  return BN_rand(serial.get(), 128, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1 &&
         BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(certificate)) != nullptr;
}

bool SetCommonName(X509* certificate, const std::string& common_name) {
  X509_NAME* subject = X509_get_subject_name(certificate);
  const auto* organization = reinterpret_cast<const unsigned char*>("Isoscan");
  const auto* name = reinterpret_cast<const unsigned char*>(common_name.c_str());
  return X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_UTF8, organization, -1, -1, 0) == 1 &&
         X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, name, -1, -1, 0) == 1;
}

std::string TextOf(const GENERAL_NAME& name) {
  const auto text = [](const ASN1_IA5STRING* string) {
    return std::string(reinterpret_cast<const char*>(ASN1_STRING_get0_data(string)),
                       static_cast<std::size_t>(ASN1_STRING_length(string)));
  };
  switch (name.type) {
    case GEN_URI:
      return "URI:" + text(name.d.uniformResourceIdentifier);
    case GEN_DNS:
      return "DNS:" + text(name.d.dNSName);
    default:
      return "other";
  }
}

}  // namespace

absl::StatusOr<UniqueCertificate> ParseCertificatePem(const std::string& pem) {
  UniqueCertificate certificate(PEM_read_bio_X509(ReadBio(pem).get(), nullptr, nullptr, nullptr));
  if (certificate == nullptr) {
    return absl::InvalidArgumentError(
        fmt::format("this is not a certificate in PEM form: {}", OpenSslError()));
  }
  return certificate;
}

absl::StatusOr<UniqueKey> ParsePrivateKeyPem(const std::string& pem) {
  // Without this, OpenSSL asks for the password of an encrypted key on the terminal.
  const auto no_password = [](char*, int, int, void*) { return -1; };
  UniqueKey key(PEM_read_bio_PrivateKey(ReadBio(pem).get(), nullptr, no_password, nullptr));
  if (key == nullptr) {
    return absl::InvalidArgumentError(
        fmt::format("this is not a private key in PEM form, without password: {}", OpenSslError()));
  }
  return key;
}

absl::StatusOr<UniqueSigningRequest> ParseSigningRequestPem(const std::string& pem) {
  UniqueSigningRequest request(
      PEM_read_bio_X509_REQ(ReadBio(pem).get(), nullptr, nullptr, nullptr));
  if (request == nullptr) {
    return absl::InvalidArgumentError(
        fmt::format("this is not a PKCS#10 signing request in PEM form: {}", OpenSslError()));
  }
  EVP_PKEY* key = X509_REQ_get0_pubkey(request.get());
  if (key == nullptr || X509_REQ_verify(request.get(), key) != 1) {
    OpenSslError();
    return absl::InvalidArgumentError(
        "the signing request was not signed with the key that it names");
  }
  return request;
}

std::vector<std::string> AlternativeNames(X509_REQ* request) {
  std::vector<std::string> texts;
  STACK_OF(X509_EXTENSION)* extensions = X509_REQ_get_extensions(request);
  const UniqueGeneralNames names(static_cast<GENERAL_NAMES*>(
      X509V3_get_d2i(extensions, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; i < sk_GENERAL_NAME_num(names.get()); ++i) {
    texts.push_back(TextOf(*sk_GENERAL_NAME_value(names.get(), i)));
  }
  sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
  return texts;
}

absl::StatusOr<Time> EndOf(const X509* certificate) {
  std::tm end{};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end) != 1) {
    return absl::InvalidArgumentError("the certificate's end is no date");
  }
  return Time(std::chrono::seconds(timegm(&end)));
}

absl::StatusOr<std::string> PublicKeySha256(EVP_PKEY* key) {
  const UniqueBio der(BIO_new(BIO_s_mem()));
  if (i2d_PUBKEY_bio(der.get(), key) != 1) {
    return absl::InternalError(fmt::format("cannot encode a public key: {}", OpenSslError()));
  }
  return Sha256Of(isoscan::TextOf(der.get()));
}

absl::StatusOr<CertificateBuilder> CertificateBuilder::Start(EVP_PKEY* key,
                                                             const std::string& common_name,
                                                             Time now, Time ends) {
  UniqueCertificate certificate(X509_new());
  constexpr long kVersion3 = 2;
  if (certificate == nullptr || X509_set_version(certificate.get(), kVersion3) != 1 ||
      !SetRandomSerial(certificate.get()) || !SetCommonName(certificate.get(), common_name) ||
      X509_set_pubkey(certificate.get(), key) != 1 ||
      ASN1_TIME_set(X509_getm_notBefore(certificate.get()), Seconds(now - kClockAllowance)) ==
          nullptr ||
      ASN1_TIME_set(X509_getm_notAfter(certificate.get()), Seconds(ends)) == nullptr) {
    return absl::InternalError(
        fmt::format("cannot make the certificate of {}: {}", common_name, OpenSslError()));
  }
  return CertificateBuilder(std::move(certificate));
}

absl::Status CertificateBuilder::AddExtension(int nid, const std::string& value, X509* issuer) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer != nullptr ? issuer : certificate_.get(), certificate_.get(),
                 nullptr, nullptr, 0);
  const UniqueExtension extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
  if (extension == nullptr || X509_add_ext(certificate_.get(), extension.get(), -1) != 1) {
    return absl::InternalError(fmt::format("cannot write {} = {} into a certificate: {}",
                                           OBJ_nid2sn(nid), value, OpenSslError()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> CertificateBuilder::Sign(X509* issuer, EVP_PKEY* issuer_key) && {
  X509* const certificate = certificate_.get();
  const X509* const signer = issuer != nullptr ? issuer : certificate;
  const UniqueBio text(BIO_new(BIO_s_mem()));
  if (X509_set_issuer_name(certificate, X509_get_subject_name(signer)) != 1 ||
      X509_sign(certificate, issuer_key, EVP_sha256()) == 0 ||
      PEM_write_bio_X509(text.get(), certificate) != 1) {
    return absl::InternalError(fmt::format("cannot sign a certificate: {}", OpenSslError()));
  }
  return TextOf(text.get());
}

}  // namespace isoscan
