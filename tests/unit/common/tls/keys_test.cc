#include "common/tls/keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/test_authority.h"
#include <openssl/pem.h>
#include <sys/stat.h>
#include <unistd.h>

namespace isoscan {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

// Made with `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes`; the
// fingerprint with `openssl x509 -fingerprint -sha256`.
constexpr const char* kFixedCertificate = R"(-----BEGIN CERTIFICATE-----
MIIBdTCCARugAwIBAgIUEArrPxmEyAVioLa/1m8J5fGMxKgwCgYIKoZIzj0EAwIw
EDEOMAwGA1UEAwwFZml4ZWQwHhcNMjYxMTIzMDYzNjM0WhcNMzYxMTIwMDYzNjM0
WjAQMQ4wDAYDVQQDDAVmaXhlZDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJdG
xA9ZITvxDEitSjhzpwq9oWD+9YV3LZBHAJhtRuG2nL2uke26KQlCCfSV5HLoneqg
/3AnI0ewSAHamD9EAFyjUzBRMB0GA1UdDgQWBBThymyass3II6F5x1E84akHXCX/
2DAfBgNVHSMEGDAWgBThymyass3II6F5x1E84akHXCX/2DAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0gAMEUCIQDzBfTYtCsUkjaRs27EBQU+OjHrbvaTuwzy
DwkjCoqjtgIgcLvXuyjNnxWTrxcaANo+XgQi8yWO/VULQEVbozr/bXc=
-----END CERTIFICATE-----
)";
constexpr const char* kFixedFingerprint =
    "06ca2d83b8bb7d57afdae8ec803f4e97c0b2b71083b52aeffa37d558e5511865";

mode_t ModeOf(const std::filesystem::path& path) {
  struct stat status = {};
  stat(path.c_str(), &status);
  return status.st_mode & 0777;
}

TEST(Identity, SurvivesTheWayToItsUriAndBack) {
  for (const Identity& identity :
       {Identity{Identity::Role::kSite, "st-marys"}, Identity{Identity::Role::kOperator, "lead.2"},
        Identity{Identity::Role::kServer, "isoscan.example.org"},
        Identity{Identity::Role::kServer, "::1"}}) {
    EXPECT_THAT(IdentityFromUri(ToUri(identity)), IsOkAndHolds(identity)) << ToUri(identity);
  }
  EXPECT_EQ(ToUri({Identity::Role::kSite, "st-marys"}), "urn:isoscan:site:st-marys");
}

TEST(Identity, RefusesEverythingElse) {
  for (const std::string& uri :
       {std::string(), std::string("urn:isoscan:site:"), std::string("urn:isoscan:site"),
        std::string("urn:isoscan:hospital:north"), std::string("urn:isoscan:sites:north"),
        std::string("urn:other:site:north"), std::string("URN:isoscan:site:north"),
        std::string("urn:isoscan:site:../etc"), std::string("urn:isoscan:site:a/b"),
        std::string("urn:isoscan:site:.hidden"), std::string("urn:isoscan:site:a:b"),
        std::string("urn:isoscan:site:a\0b", 20), std::string("urn:isoscan:site:a,DNS:b"),
        "urn:isoscan:site:" + std::string(65, 'a')}) {
    EXPECT_THAT(IdentityFromUri(uri), StatusIs(kInvalid, HasSubstr("expected urn:isoscan:ROLE")))
        << uri;
  }
  EXPECT_OK(IdentityFromUri("urn:isoscan:site:" + std::string(64, 'a')));
}

TEST(PrivateKey, IsNewEachTimeAndOfP256) {
  ASSERT_OK_AND_ASSIGN(const std::string first, CreatePrivateKey());
  ASSERT_OK_AND_ASSIGN(const std::string second, CreatePrivateKey());

  EXPECT_NE(first, second);
  EXPECT_THAT(first, StartsWith("-----BEGIN PRIVATE KEY-----\n"));
  const UniqueBio bio(BIO_new_mem_buf(first.data(), static_cast<int>(first.size())));
  const UniqueKey key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  ASSERT_NE(key, nullptr);
  EXPECT_EQ(EVP_PKEY_get_bits(key.get()), 256);
}

TEST(SigningRequest, CarriesTheIdentityIntoTheCertificate) {
  const TestAuthority authority;
  const Identity identity{Identity::Role::kSite, "st-marys"};
  ASSERT_OK_AND_ASSIGN(const std::string key, CreatePrivateKey());

  ASSERT_OK_AND_ASSIGN(const std::string request, CreateSigningRequest(key, identity));

  EXPECT_THAT(request, StartsWith("-----BEGIN CERTIFICATE REQUEST-----\n"));
  // Sign() ends the test when the request's own signature is wrong.
  EXPECT_THAT(IdentityOf(authority.Sign(request)), IsOkAndHolds(identity));
}

TEST(SigningRequest, RefusesABadKeyAndABadName) {
  ASSERT_OK_AND_ASSIGN(const std::string key, CreatePrivateKey());

  EXPECT_THAT(CreateSigningRequest("no key", {Identity::Role::kSite, "north"}),
              StatusIs(kInvalid, HasSubstr("not a private key in PEM form")));
  EXPECT_THAT(CreateSigningRequest(key, {Identity::Role::kSite, "north,DNS:evil"}),
              StatusIs(kInvalid, HasSubstr("urn:isoscan:site:north,DNS:evil")));
}

TEST(CertificateFingerprint, IsWhatTheOpensslProgramPrints) {
  EXPECT_THAT(CertificateFingerprint(kFixedCertificate), IsOkAndHolds(kFixedFingerprint));
  EXPECT_THAT(CertificateFingerprint("no certificate"),
              StatusIs(kInvalid, HasSubstr("not a certificate in PEM form")));
}

TEST(DaysUntilExpiry, CountsWholeDaysDown) {
  using Validity = TestAuthority::Validity;
  const TestAuthority authority;

  // It ends in 30 days, less the instant that has passed since.
  EXPECT_THAT(DaysUntilExpiry(authority.Site("north").certificate),
              IsOkAndHolds(testing::AnyOf(29, 30)));
  // It ended a day ago, and an instant.
  EXPECT_THAT(DaysUntilExpiry(authority.Site("north", Validity::kExpired).certificate),
              IsOkAndHolds(testing::AnyOf(-1, -2)));
  EXPECT_THAT(DaysUntilExpiry("-"), StatusIs(kInvalid, HasSubstr("not a certificate")));
}

TEST(IdentityOf, ReadsTheUriAmongOtherNames) {
  const TestAuthority authority;

  EXPECT_THAT(IdentityOf(authority.Site("north").certificate),
              IsOkAndHolds(Identity{Identity::Role::kSite, "north"}));
  EXPECT_THAT(IdentityOf(authority.Operator("lead").certificate),
              IsOkAndHolds(Identity{Identity::Role::kOperator, "lead"}));
  EXPECT_THAT(IdentityOf(authority.Server("10.0.0.7").certificate),
              IsOkAndHolds(Identity{Identity::Role::kServer, "10.0.0.7"}));
}

TEST(IdentityOf, RefusesNoIdentityTwoIdentitiesAndABadOne) {
  const TestAuthority authority;

  EXPECT_THAT(IdentityOf(authority.certificate()),
              StatusIs(kInvalid, HasSubstr("names no identity")));
  EXPECT_THAT(IdentityOf(authority.Named({"URI:urn:other:site:a", "DNS:a"}).certificate),
              StatusIs(kInvalid, HasSubstr("names no identity")));
  EXPECT_THAT(
      IdentityOf(authority.Named({"URI:urn:isoscan:site:a", "URI:urn:isoscan:site:b"}).certificate),
      StatusIs(kInvalid, AllOf(HasSubstr("two identities"), HasSubstr("site:b"))));
  EXPECT_THAT(IdentityOf(authority.Named({"URI:urn:isoscan:guest:a"}).certificate),
              StatusIs(kInvalid, HasSubstr("urn:isoscan:guest:a")));
}

TEST(Secret, IsForItsOwnerOnlyAndComesBackAsItWas) {
  const TemporaryDirectory folder;
  const std::filesystem::path path = folder.path() / "site.key";
  const std::string content(10'000, 'k');

  EXPECT_OK(WriteSecret(path, "an older key"));
  ASSERT_OK(WriteSecret(path, content));

  EXPECT_EQ(ModeOf(path), 0600);
  EXPECT_THAT(ReadSecret(path), IsOkAndHolds(content));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1)
      << "a temporary file was left behind";
}

TEST(Secret, IsRefusedWhenOthersMayReadIt) {
  const TemporaryDirectory folder;
  const std::filesystem::path path = folder.path() / "site.key";
  ASSERT_OK(WriteSecret(path, "key"));

  for (const mode_t mode : {0640, 0604, 0660}) {
    chmod(path.c_str(), mode);
    EXPECT_THAT(ReadSecret(path), StatusIs(absl::StatusCode::kPermissionDenied,
                                           HasSubstr("chmod 600 " + path.string())));
  }
  chmod(path.c_str(), 0400);
  EXPECT_THAT(ReadSecret(path), IsOkAndHolds("key"));
}

TEST(Secret, NamesTheFileThatIsMissingAndTheFolderThatIs) {
  const TemporaryDirectory folder;

  EXPECT_THAT(ReadSecret(folder.path() / "site.key"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("site.key: No such file")));
  EXPECT_THAT(ReadSecret(folder.path()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("Is a directory")));
  EXPECT_THAT(WriteSecret(folder.path() / "no" / "site.key", "key"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no/site.key: No such file")));
}

}  // namespace
}  // namespace isoscan
