#include "tests/support/test_authority.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include <openssl/pem.h>
#include <openssl/rand.h>

namespace isoscan {
namespace {

constexpr long kDay = 24 * 60 * 60;

void Check(bool succeeded, const char* what) {
  if (succeeded) return;
  std::fprintf(stderr, "test authority: %s: %s\n", what, OpenSslError().c_str());
  std::abort();
}

template <typename Write, typename Handle>
std::string Pem(const Write& write, Handle* handle) {
  const UniqueBio bio(BIO_new(BIO_s_mem()));
  Check(write(bio.get(), handle) == 1, "cannot write PEM");
  return TextOf(bio.get());
}

void Extend(X509* certificate, int kind, const std::string& value) {
  const UniqueExtension extension(X509V3_EXT_conf_nid(nullptr, nullptr, kind, value.c_str()));
  Check(extension != nullptr, value.c_str());
  Check(X509_add_ext(certificate, extension.get(), -1) == 1, value.c_str());
}

void SetCommonName(X509_NAME* subject, const std::string& name) {
  Check(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                                   reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1,
                                   0) == 1,
        "cannot set a subject");
}

/// An unsigned certificate with a random serial number.
UniqueCertificate Unsigned(EVP_PKEY* key, TestAuthority::Validity validity) {
  UniqueCertificate certificate(X509_new());
  std::uint64_t serial = 0;
  RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof(serial));
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate.get()), serial >> 1);
  X509_set_version(certificate.get(), X509_VERSION_3);
  const bool expired = validity == TestAuthority::Validity::kExpired;
  const bool not_yet = validity == TestAuthority::Validity::kNotYet;
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), not_yet ? kDay : -2 * kDay);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), expired ? -kDay : 30 * kDay);
  Check(X509_set_pubkey(certificate.get(), key) == 1, "cannot set a public key");
  return certificate;
}

std::string PrivateKeyPem(EVP_PKEY* key) {
  return Pem(
      [](BIO* bio, EVP_PKEY* written) {
        return PEM_write_bio_PKCS8PrivateKey(bio, written, nullptr, nullptr, 0, nullptr, nullptr);
      },
      key);
}

bool IsNumericalAddress(const std::string& host) {
  return host.find_first_not_of("0123456789.") == std::string::npos ||
         host.find(':') != std::string::npos;
}

}  // namespace

TestAuthority::TestAuthority()
    : key_(EVP_EC_gen("P-256")), certificate_(Unsigned(key_.get(), Validity::kNow)) {
  // A subject of its own: two authorities of one name would be told apart by their keys alone.
  SetCommonName(X509_get_subject_name(certificate_.get()),
                "Test authority " +
                    std::to_string(ASN1_INTEGER_get(X509_get0_serialNumber(certificate_.get()))));
  X509_set_issuer_name(certificate_.get(), X509_get_subject_name(certificate_.get()));
  Extend(certificate_.get(), NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
  Extend(certificate_.get(), NID_key_usage, "critical,keyCertSign,cRLSign");
  Check(X509_sign(certificate_.get(), key_.get(), EVP_sha256()) != 0, "cannot sign");
  certificate_pem_ = Pem(PEM_write_bio_X509, certificate_.get());
}

TlsFiles TestAuthority::Named(const std::vector<std::string>& names, Validity validity) const {
  const UniqueKey key(EVP_EC_gen("P-256"));
  const UniqueCertificate certificate = Unsigned(key.get(), validity);
  SetCommonName(X509_get_subject_name(certificate.get()), "test");
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(certificate_.get()));
  Extend(certificate.get(), NID_basic_constraints, "critical,CA:FALSE");
  Extend(certificate.get(), NID_key_usage, "critical,digitalSignature");
  Extend(certificate.get(), NID_ext_key_usage, "serverAuth,clientAuth");
  std::string joined;
  for (const std::string& name : names) joined += (joined.empty() ? "" : ",") + name;
  if (!joined.empty()) Extend(certificate.get(), NID_subject_alt_name, joined);
  Check(X509_sign(certificate.get(), key_.get(), EVP_sha256()) != 0, "cannot sign");
  return {certificate_pem_, Pem(PEM_write_bio_X509, certificate.get()), PrivateKeyPem(key.get())};
}

TlsFiles TestAuthority::Server(const std::string& host, Validity validity) const {
  std::vector<std::string> names = {"URI:" + ToUri({Identity::Role::kServer, host}),
                                    "DNS:localhost", "IP:127.0.0.1"};
  if (host != "localhost" && host != "127.0.0.1") {
    names.push_back((IsNumericalAddress(host) ? "IP:" : "DNS:") + host);
  }
  return Named(names, validity);
}

TlsFiles TestAuthority::Site(const std::string& name, Validity validity) const {
  return Named({"URI:" + ToUri({Identity::Role::kSite, name})}, validity);
}

TlsFiles TestAuthority::Operator(const std::string& name, Validity validity) const {
  return Named({"URI:" + ToUri({Identity::Role::kOperator, name})}, validity);
}

std::string TestAuthority::Sign(const std::string& signing_request_pem) const {
  const UniqueBio bio(
      BIO_new_mem_buf(signing_request_pem.data(), static_cast<int>(signing_request_pem.size())));
  const UniqueSigningRequest request(PEM_read_bio_X509_REQ(bio.get(), nullptr, nullptr, nullptr));
  Check(request != nullptr, "this is no signing request");
  EVP_PKEY* key = X509_REQ_get0_pubkey(request.get());
  Check(X509_REQ_verify(request.get(), key) == 1, "the request's signature is wrong");
  const UniqueCertificate certificate = Unsigned(key, Validity::kNow);
  X509_set_subject_name(certificate.get(), X509_REQ_get_subject_name(request.get()));
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(certificate_.get()));
  STACK_OF(X509_EXTENSION)* extensions = X509_REQ_get_extensions(request.get());
  for (int i = 0; i < sk_X509_EXTENSION_num(extensions); ++i) {
    X509_add_ext(certificate.get(), sk_X509_EXTENSION_value(extensions, i), -1);
  }
  sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
  Check(X509_sign(certificate.get(), key_.get(), EVP_sha256()) != 0, "cannot sign");
  return Pem(PEM_write_bio_X509, certificate.get());
}

}  // namespace isoscan
