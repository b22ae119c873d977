#include "server/trust/authority.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <string_view>
#include <utility>

#include "common/status/status_macros.h"
#include "server/trust/certificate_builder.h"
#include <openssl/ec.h>
#include <openssl/x509v3.h>

namespace isoscan {
namespace {

constexpr auto kAuthorityLife = std::chrono::hours(24) * 3652;  // Ten years.
constexpr auto kCertificateLife = std::chrono::hours(24) * 397;

enum class Usage { kClient, kServer };

/// Signs an end certificate for the holder of `key`, known by `alternative_names`.
absl::StatusOr<SignedCertificate> SignEndCertificate(const Authority& authority, EVP_PKEY* key,
                                                     const std::string& common_name,
                                                     const std::string& alternative_names,
                                                     Usage usage, Time now) {
  ASSIGN_OR_RETURN(const UniqueCertificate issuer,
                   ParseCertificatePem(authority.certificate_pem()));
  ASSIGN_OR_RETURN(const UniqueKey issuer_key, ParsePrivateKeyPem(authority.private_key_pem()));
  ASSIGN_OR_RETURN(const Time authority_ends, EndOf(issuer.get()));
  if (authority_ends <= now) {
    return absl::FailedPreconditionError(
        "the authority's own certificate has ended: this server's federation needs a new authority "
        "(isoscan-server init in a new folder)");
  }
  const Time ends = std::min<Time>(now + kCertificateLife, authority_ends);
  ASSIGN_OR_RETURN(CertificateBuilder builder,
                   CertificateBuilder::Start(key, common_name, now, ends));
  RETURN_IF_ERROR(builder.AddExtension(NID_basic_constraints, "critical,CA:FALSE"));
  RETURN_IF_ERROR(builder.AddExtension(NID_key_usage, "critical,digitalSignature"));
  RETURN_IF_ERROR(builder.AddExtension(NID_ext_key_usage,
                                       usage == Usage::kClient ? "clientAuth" : "serverAuth"));
  RETURN_IF_ERROR(builder.AddExtension(NID_subject_alt_name, alternative_names));
  RETURN_IF_ERROR(builder.AddExtension(NID_subject_key_identifier, "hash"));
  RETURN_IF_ERROR(builder.AddExtension(NID_authority_key_identifier, "keyid:always", issuer.get()));
  SignedCertificate certificate;
  ASSIGN_OR_RETURN(certificate.pem, std::move(builder).Sign(issuer.get(), issuer_key.get()));
  ASSIGN_OR_RETURN(certificate.fingerprint, CertificateFingerprint(certificate.pem));
  ASSIGN_OR_RETURN(certificate.key_sha256, PublicKeySha256(key));
  certificate.ends = std::chrono::floor<std::chrono::seconds>(ends);
  return certificate;
}

absl::StatusOr<KeyedCertificate> IssueEndCertificate(const Authority& authority,
                                                     const Identity& identity,
                                                     const std::string& further_names, Usage usage,
                                                     Time now) {
  KeyedCertificate issued;
  ASSIGN_OR_RETURN(const Identity checked, IdentityFromUri(ToUri(identity)));
  ASSIGN_OR_RETURN(issued.private_key_pem, CreatePrivateKey());
  ASSIGN_OR_RETURN(const UniqueKey key, ParsePrivateKeyPem(issued.private_key_pem));
  ASSIGN_OR_RETURN(issued.certificate,
                   SignEndCertificate(authority, key.get(), checked.name,
                                      "URI:" + ToUri(checked) + further_names, usage, now));
  return issued;
}

/// A weak key would make the certificate as good as public.
absl::Status CheckKey(EVP_PKEY* key) {
  char group[32] = {};
  if (EVP_PKEY_is_a(key, "EC") == 1) EVP_PKEY_get_group_name(key, group, sizeof(group), nullptr);
  const std::string_view name = group;
  if (name == "prime256v1" || name == "secp384r1") return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("the signing request's key is {}; allowed are EC P-256 and P-384",
                  name.empty() ? EVP_PKEY_get0_type_name(key) : group));
}

bool IsIpAddress(const std::string& host) {
  ASN1_OCTET_STRING* address = a2i_IPADDRESS(host.c_str());
  ASN1_OCTET_STRING_free(address);
  return address != nullptr;
}

}  // namespace

absl::StatusOr<Authority> Authority::Create(Time now) {
  ASSIGN_OR_RETURN(std::string private_key_pem, CreatePrivateKey());
  ASSIGN_OR_RETURN(const UniqueKey key, ParsePrivateKeyPem(private_key_pem));
  ASSIGN_OR_RETURN(CertificateBuilder builder,
                   CertificateBuilder::Start(key.get(), "Isoscan consortium authority", now,
                                             now + kAuthorityLife));
  RETURN_IF_ERROR(builder.AddExtension(NID_basic_constraints, "critical,CA:TRUE,pathlen:0"));
  RETURN_IF_ERROR(builder.AddExtension(NID_key_usage, "critical,keyCertSign,cRLSign"));
  RETURN_IF_ERROR(builder.AddExtension(NID_subject_key_identifier, "hash"));
  ASSIGN_OR_RETURN(std::string certificate_pem, std::move(builder).Sign(nullptr, key.get()));
  return Authority(std::move(certificate_pem), std::move(private_key_pem));
}

absl::StatusOr<Authority> Authority::FromPem(std::string certificate_pem,
                                             std::string private_key_pem) {
  ASSIGN_OR_RETURN(const UniqueCertificate certificate, ParseCertificatePem(certificate_pem));
  ASSIGN_OR_RETURN(const UniqueKey key, ParsePrivateKeyPem(private_key_pem));
  if (X509_check_ca(certificate.get()) != 1) {
    return absl::InvalidArgumentError("the authority's certificate may not sign others");
  }
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    OpenSslError();
    return absl::InvalidArgumentError(
        "the authority's private key is not the one of its certificate");
  }
  return Authority(std::move(certificate_pem), std::move(private_key_pem));
}

absl::StatusOr<SignedCertificate> Authority::SignSite(const std::string& signing_request_pem,
                                                      const std::string& site, Time now) const {
  ASSIGN_OR_RETURN(const UniqueSigningRequest request, ParseSigningRequestPem(signing_request_pem));
  const Identity identity{Identity::Role::kSite, site};
  const std::string name = "URI:" + ToUri(identity);
  const std::vector<std::string> names = AlternativeNames(request.get());
  if (names.size() != 1 || names.front() != name) {
    return absl::PermissionDeniedError(
        fmt::format("the signing request is for {}, the invitation for {}",
                    names.empty() ? "nobody" : fmt::format("{}", fmt::join(names, ", ")), name));
  }
  EVP_PKEY* key = X509_REQ_get0_pubkey(request.get());
  RETURN_IF_ERROR(CheckKey(key));
  return SignEndCertificate(*this, key, site, name, Usage::kClient, now);
}

absl::StatusOr<KeyedCertificate> Authority::IssueServer(const std::string& host, Time now) const {
  std::vector<std::string> names = {"DNS:localhost", "IP:127.0.0.1"};
  const std::string own = (IsIpAddress(host) ? "IP:" : "DNS:") + host;
  if (std::find(names.begin(), names.end(), own) == names.end()) {
    names.insert(names.begin(), own);
  }
  return IssueEndCertificate(*this, {Identity::Role::kServer, host},
                             fmt::format(",{}", fmt::join(names, ",")), Usage::kServer, now);
}

absl::StatusOr<KeyedCertificate> Authority::IssueOperator(const std::string& name, Time now) const {
  return IssueEndCertificate(*this, {Identity::Role::kOperator, name}, "", Usage::kClient, now);
}

absl::StatusOr<Identity> RequestedIdentity(const std::string& signing_request_pem) {
  ASSIGN_OR_RETURN(const UniqueSigningRequest request, ParseSigningRequestPem(signing_request_pem));
  constexpr std::string_view kUri = "URI:";
  const std::vector<std::string> names = AlternativeNames(request.get());
  if (names.size() != 1 || !names.front().starts_with(kUri)) {
    return absl::InvalidArgumentError(
        fmt::format("the signing request names {} alternative names, expected one, "
                    "urn:isoscan:site:NAME",
                    names.size()));
  }
  return IdentityFromUri(names.front().substr(kUri.size()));
}

}  // namespace isoscan
