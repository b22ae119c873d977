#include "server/storage/site_registry.h"

#include "server/storage/sqlite_journal.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using testing::HasSubstr;
constexpr auto kDenied = absl::StatusCode::kPermissionDenied;

class SiteRegistryTest : public testing::Test {
 protected:
  SiteRegistryTest() : journal_(*SqliteJournal::Open(folder_.path() / "journal.db")) {}
  SiteRegistry& sites() { return journal_->sites(); }

  const Time now_ = Time(std::chrono::hours(1000));
  const Time tomorrow_ = now_ + std::chrono::hours(24);
  /// As the authority would have made it: another certificate every time, also for the same key.
  IssuedSiteCertificate Certificate(const std::string& fingerprint,
                                    const std::string& key = "k1") const {
    return {.fingerprint = fingerprint, .key_sha256 = key, .ends = tomorrow_};
  }

  const std::string token_ = std::string(64, '1');
  TemporaryDirectory folder_;
  std::unique_ptr<SqliteJournal> journal_;
};

TEST_F(SiteRegistryTest, RedeemsATokenForOneKeyAlone) {
  ASSERT_OK(sites().Invite("berlin", token_, tomorrow_));

  EXPECT_OK(sites().Redeem(token_, "berlin", Certificate("f1"), now_));
  EXPECT_THAT(sites().Redeem(token_, "berlin", Certificate("f2", "k2"), now_),
              StatusIs(kDenied, HasSubstr("has been used with another key")));
  EXPECT_OK(sites().IsAllowed("berlin", "f1"));
}

TEST_F(SiteRegistryTest, GivesASiteThatRepeatsItsEnrolmentTheNewerCertificate) {
  ASSERT_OK(sites().Invite("berlin", token_, tomorrow_));
  ASSERT_OK(sites().Redeem(token_, "berlin", Certificate("f1"), now_));

  EXPECT_OK(sites().Redeem(token_, "berlin", Certificate("f2"), now_));

  EXPECT_OK(sites().IsAllowed("berlin", "f2"));
  EXPECT_THAT(sites().IsAllowed("berlin", "f1"),
              StatusIs(kDenied, HasSubstr("another certificate")));
  EXPECT_THAT(sites().Redeem(token_, "berlin", Certificate("f3"), tomorrow_),
              StatusIs(kDenied, HasSubstr("has expired")));
}

TEST_F(SiteRegistryTest, RedeemsNoTokenThatIsUnknownForeignExpiredOrReplaced) {
  ASSERT_OK(sites().Invite("berlin", token_, tomorrow_));

  EXPECT_THAT(sites().Redeem(std::string(64, '2'), "berlin", Certificate("f1"), now_),
              StatusIs(kDenied, HasSubstr("no invitation of berlin")));
  EXPECT_THAT(sites().Redeem(token_, "charite", Certificate("f1"), now_),
              StatusIs(kDenied, HasSubstr("no invitation of charite")));
  EXPECT_THAT(sites().Redeem(token_, "berlin", Certificate("f1"), tomorrow_),
              StatusIs(kDenied, HasSubstr("has expired")));
  ASSERT_OK(sites().Invite("berlin", std::string(64, '3'), tomorrow_));
  EXPECT_THAT(sites().Redeem(token_, "berlin", Certificate("f1"), now_),
              StatusIs(kDenied, HasSubstr("no invitation of berlin")));
  EXPECT_OK(sites().Redeem(std::string(64, '3'), "berlin", Certificate("f1"), now_));
}

TEST_F(SiteRegistryTest, AllowsASiteWithItsOwnCertificateAlone) {
  ASSERT_OK(sites().Invite("berlin", token_, tomorrow_));
  EXPECT_THAT(sites().IsAllowed("berlin", "f1"),
              StatusIs(kDenied, HasSubstr("has not enrolled yet")));
  ASSERT_OK(sites().Redeem(token_, "berlin", Certificate("f1"), now_));

  EXPECT_OK(sites().IsAllowed("berlin", "f1"));
  EXPECT_THAT(sites().IsAllowed("berlin", "f2"),
              StatusIs(kDenied, HasSubstr("another certificate")));
  EXPECT_THAT(sites().IsAllowed("charite", "f1"),
              StatusIs(kDenied, HasSubstr("no site of this server")));
  EXPECT_THAT(sites().Invite("berlin", std::string(64, '2'), tomorrow_),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("already enrolled")));
  EXPECT_THAT(sites().Invite("St Mary's", token_, tomorrow_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("St Mary's")));
}

TEST_F(SiteRegistryTest, RemembersItsSites) {
  ASSERT_OK(sites().Invite("charite", token_, tomorrow_));
  ASSERT_OK(sites().Invite("berlin", std::string(64, '2'), tomorrow_));
  ASSERT_OK(sites().Redeem(token_, "charite", Certificate("f1"), now_));
  journal_.reset();
  journal_ = *SqliteJournal::Open(folder_.path() / "journal.db");

  ASSERT_OK_AND_ASSIGN(const std::vector<RegisteredSite> known, sites().List());

  ASSERT_EQ(known.size(), 2U);
  EXPECT_EQ(known[0].name, "berlin");
  EXPECT_EQ(known[0].state, RegisteredSite::State::kInvited);
  EXPECT_EQ(known[0].certificate_ends, std::nullopt);
  EXPECT_EQ(known[1].state, RegisteredSite::State::kEnrolled);
  EXPECT_EQ(known[1].fingerprint, "f1");
  EXPECT_EQ(known[1].certificate_ends, tomorrow_);
}

}  // namespace
}  // namespace isoscan
