#include "server/trust/authority.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "common/clock/clock.h"
#include "server/trust/authority_folder.h"
#include "server/trust/certificate_builder.h"
#include "server/trust/invitation_token.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

namespace isoscan {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using testing::MatchesRegex;

struct FreeStore {
  void operator()(X509_STORE* store) const { X509_STORE_free(store); }
  void operator()(X509_STORE_CTX* context) const { X509_STORE_CTX_free(context); }
};

/// OpenSSL's own verdict, as strict as it can be: "ok", or why not.
std::string Verify(const Authority& authority, const std::string& certificate_pem, int purpose) {
  const UniqueCertificate root = *ParseCertificatePem(authority.certificate_pem());
  const UniqueCertificate leaf = *ParseCertificatePem(certificate_pem);
  const std::unique_ptr<X509_STORE, FreeStore> store(X509_STORE_new());
  X509_STORE_add_cert(store.get(), root.get());
  X509_STORE_set_flags(store.get(), X509_V_FLAG_X509_STRICT);
  const std::unique_ptr<X509_STORE_CTX, FreeStore> context(X509_STORE_CTX_new());
  X509_STORE_CTX_init(context.get(), store.get(), leaf.get(), nullptr);
  X509_STORE_CTX_set_purpose(context.get(), purpose);
  if (X509_verify_cert(context.get()) == 1) return "ok";
  return X509_verify_cert_error_string(X509_STORE_CTX_get_error(context.get()));
}

std::string SerialOf(const std::string& certificate_pem) {
  const UniqueCertificate certificate = *ParseCertificatePem(certificate_pem);
  const ASN1_INTEGER* serial = X509_get0_serialNumber(certificate.get());
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(serial)),
          static_cast<std::size_t>(ASN1_STRING_length(serial))};
}

std::string RequestOf(const Identity& identity) {
  return *CreateSigningRequest(*CreatePrivateKey(), identity);
}

class AuthorityTest : public testing::Test {
 protected:
  const Time now_ = SystemClock().Now();
  const Authority authority_ = *Authority::Create(now_);
  const std::string request_ = RequestOf({Identity::Role::kSite, "north"});
};

TEST_F(AuthorityTest, SignsASiteForItsNameAndForNothingElse) {
  ASSERT_OK_AND_ASSIGN(const SignedCertificate signed_certificate,
                       authority_.SignSite(request_, "north", now_));

  EXPECT_EQ(Verify(authority_, signed_certificate.pem, X509_PURPOSE_SSL_CLIENT), "ok");
  EXPECT_THAT(Verify(authority_, signed_certificate.pem, X509_PURPOSE_SSL_SERVER),
              HasSubstr("purpose"));
  EXPECT_THAT(IdentityOf(signed_certificate.pem),
              IsOkAndHolds(Identity{Identity::Role::kSite, "north"}));
  EXPECT_THAT(CertificateFingerprint(signed_certificate.pem),
              IsOkAndHolds(signed_certificate.fingerprint));
  EXPECT_EQ(signed_certificate.ends,
            std::chrono::floor<std::chrono::seconds>(now_ + std::chrono::hours(24) * 397));
  EXPECT_THAT(DaysUntilExpiry(signed_certificate.pem), IsOkAndHolds(AnyOf(396, 397)));
}

TEST_F(AuthorityTest, RefusesARequestForAnotherName) {
  EXPECT_THAT(
      authority_.SignSite(request_, "south", now_),
      StatusIs(absl::StatusCode::kPermissionDenied,
               AllOf(HasSubstr("urn:isoscan:site:north"), HasSubstr("urn:isoscan:site:south"))));
  const std::string operator_request = RequestOf({Identity::Role::kOperator, "north"});
  EXPECT_THAT(authority_.SignSite(operator_request, "north", now_),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("operator:north")));
}

TEST_F(AuthorityTest, RefusesARequestThatWasChangedAfterItsSigning) {
  const UniqueBio text(BIO_new_mem_buf(request_.data(), static_cast<int>(request_.size())));
  const UniqueSigningRequest request(PEM_read_bio_X509_REQ(text.get(), nullptr, nullptr, nullptr));
  const UniqueKey other = *ParsePrivateKeyPem(*CreatePrivateKey());
  X509_REQ_set_pubkey(request.get(), other.get());
  const UniqueBio changed(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509_REQ(changed.get(), request.get());

  EXPECT_THAT(authority_.SignSite(TextOf(changed.get()), "north", now_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("was not signed with")));
  EXPECT_THAT(authority_.SignSite("no request", "north", now_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not a PKCS#10")));
}

TEST_F(AuthorityTest, RefusesAWeakKey) {
  const UniqueKey weak(EVP_RSA_gen(1024));
  const UniqueSigningRequest request(X509_REQ_new());
  STACK_OF(X509_EXTENSION)* extensions = sk_X509_EXTENSION_new_null();
  sk_X509_EXTENSION_push(extensions, X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name,
                                                         "URI:urn:isoscan:site:north"));
  X509_REQ_add_extensions(request.get(), extensions);
  sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
  X509_REQ_set_pubkey(request.get(), weak.get());
  X509_REQ_sign(request.get(), weak.get(), EVP_sha256());
  const UniqueBio text(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509_REQ(text.get(), request.get());

  EXPECT_THAT(authority_.SignSite(TextOf(text.get()), "north", now_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("RSA")));
}

TEST_F(AuthorityTest, GivesTheServerEveryNameThatItIsDialledBy) {
  for (const std::string host : {"federation.example.org", "10.1.2.3", "localhost", "::1"}) {
    ASSERT_OK_AND_ASSIGN(const KeyedCertificate server, authority_.IssueServer(host, now_));
    const UniqueCertificate certificate = *ParseCertificatePem(server.certificate.pem);

    EXPECT_EQ(Verify(authority_, server.certificate.pem, X509_PURPOSE_SSL_SERVER), "ok");
    EXPECT_EQ(X509_check_host(certificate.get(), "localhost", 0, 0, nullptr), 1);
    EXPECT_EQ(X509_check_ip_asc(certificate.get(), "127.0.0.1", 0), 1);
    EXPECT_TRUE(X509_check_host(certificate.get(), host.c_str(), 0, 0, nullptr) == 1 ||
                X509_check_ip_asc(certificate.get(), host.c_str(), 0) == 1)
        << host;
    EXPECT_THAT(IdentityOf(server.certificate.pem),
                IsOkAndHolds(Identity{Identity::Role::kServer, host}));
  }
}

TEST_F(AuthorityTest, MakesAnOperatorsCertificate) {
  ASSERT_OK_AND_ASSIGN(const KeyedCertificate issued, authority_.IssueOperator("ann", now_));

  EXPECT_EQ(Verify(authority_, issued.certificate.pem, X509_PURPOSE_SSL_CLIENT), "ok");
  EXPECT_THAT(IdentityOf(issued.certificate.pem),
              IsOkAndHolds(Identity{Identity::Role::kOperator, "ann"}));
}

TEST_F(AuthorityTest, CannotBeExtendedByWhoItSigned) {
  ASSERT_OK_AND_ASSIGN(const KeyedCertificate site, authority_.IssueOperator("ann", now_));

  EXPECT_THAT(Authority::FromPem(site.certificate.pem, site.private_key_pem),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("may not sign others")));
}

TEST_F(AuthorityTest, DrawsEverySerialAnewAndEveryCertificateCanBeRead) {
  // Enough for serials that begin with zero bits and bytes, which DER writes in fewer bytes.
  constexpr std::size_t kCertificates = 1000;
  std::set<std::string> serials;
  for (std::size_t i = 0; i < kCertificates; ++i) {
    ASSERT_OK_AND_ASSIGN(const SignedCertificate site,
                         authority_.SignSite(request_, "north", now_));
    serials.insert(SerialOf(site.pem));
  }
  EXPECT_EQ(serials.size(), kCertificates);
}

TEST_F(AuthorityTest, SignsNothingThatOutlivesIt) {
  const Time late = now_ + std::chrono::hours(24) * 3600;
  const UniqueCertificate own = *ParseCertificatePem(authority_.certificate_pem());
  ASSERT_OK_AND_ASSIGN(const Time ends, EndOf(own.get()));

  ASSERT_OK_AND_ASSIGN(const SignedCertificate last, authority_.SignSite(request_, "north", late));
  EXPECT_EQ(last.ends, ends);
  EXPECT_THAT(authority_.SignSite(request_, "north", ends + std::chrono::hours(1)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("has ended")));
}

TEST_F(AuthorityTest, ComesBackFromItsFolderAndKeepsItsKeyPrivate) {
  const TemporaryDirectory folder;
  ASSERT_OK(SaveAuthority(authority_, folder.path()));

  const auto mode = std::filesystem::status(folder.path() / "authority.key").permissions();
  EXPECT_EQ(mode, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  ASSERT_OK_AND_ASSIGN(const Authority loaded, LoadAuthority(folder.path()));
  ASSERT_OK_AND_ASSIGN(const SignedCertificate site, loaded.SignSite(request_, "north", now_));
  EXPECT_EQ(Verify(authority_, site.pem, X509_PURPOSE_SSL_CLIENT), "ok");
}

TEST_F(AuthorityTest, RefusesAFolderWhoseKeyIsNotItsCertificates) {
  const TemporaryDirectory folder;
  ASSERT_OK(SaveAuthority(authority_, folder.path()));
  ASSERT_OK(WriteSecret(folder.path() / "authority.key", *CreatePrivateKey()));

  EXPECT_THAT(LoadAuthority(folder.path()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr(folder.path().string()), HasSubstr("not the one"))));
}

TEST(RequestedIdentity, IsTheOneNameOfTheRequest) {
  EXPECT_THAT(RequestedIdentity(RequestOf({Identity::Role::kSite, "north"})),
              IsOkAndHolds(Identity{Identity::Role::kSite, "north"}));
}

TEST(InvitationToken, IsLongAndNeverTheSame) {
  ASSERT_OK_AND_ASSIGN(const std::string first, CreateInvitationToken());
  ASSERT_OK_AND_ASSIGN(const std::string second, CreateInvitationToken());

  EXPECT_THAT(first, MatchesRegex("[0-9a-f]{64}"));
  EXPECT_NE(first, second);
}

}  // namespace
}  // namespace isoscan
