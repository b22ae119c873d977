#include "server/storage/site_registry.h"

#include <fmt/format.h>

#include "common/study/study.h"

namespace isoscan {
namespace {

RegisteredSite::State StateOf(const std::string& word) {
  if (word == "enrolled") return RegisteredSite::State::kEnrolled;
  if (word == "suspended") return RegisteredSite::State::kSuspended;
  return RegisteredSite::State::kInvited;
}

// One site, or all of them for an empty name.
absl::StatusOr<std::vector<RegisteredSite>> Read(Database& database, const std::string& name) {
  std::vector<RegisteredSite> sites;
  RETURN_IF_ERROR(database.Each(
      [&](const Statement& row) {
        RegisteredSite& site = sites.emplace_back();
        site.name = row.Text(0);
        site.state = StateOf(row.Text(1));
        site.fingerprint = row.Text(2);
        if (!row.IsNull(3)) site.certificate_ends = row.Moment(3);
      },
      "SELECT name, state, fingerprint, certificate_ends FROM sites "
      "WHERE name = ?1 OR ?1 = '' ORDER BY name",
      name));
  return sites;
}

absl::StatusOr<std::optional<RegisteredSite>> Find(Database& database, const std::string& name) {
  ASSIGN_OR_RETURN(std::vector<RegisteredSite> sites, Read(database, name));
  if (sites.empty()) return std::nullopt;
  return std::move(sites.front());
}

}  // namespace

absl::Status SiteRegistry::Invite(const std::string& site, const std::string& token_sha256,
                                  Time expires) {
  if (!IsName(site)) {
    return absl::InvalidArgumentError(fmt::format(
        "'{}' is no site name: 1 to 63 lower-case letters, digits and inner hyphens", site));
  }
  absl::MutexLock lock(&database_.mutex());
  ASSIGN_OR_RETURN(const std::optional<RegisteredSite> known, Find(database_, site));
  if (known.has_value() && known->state != RegisteredSite::State::kInvited) {
    return absl::AlreadyExistsError(
        fmt::format("{} has already enrolled: it needs no invitation", site));
  }
  ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database_));
  RETURN_IF_ERROR(
      database_.Run("INSERT INTO sites (name, state, fingerprint) VALUES (?1, 'invited', '') "
                    "ON CONFLICT (name) DO NOTHING",
                    site));
  RETURN_IF_ERROR(
      database_.Run("DELETE FROM invitations WHERE site = ?1 AND redeemed IS NULL", site));
  RETURN_IF_ERROR(
      database_.Run("INSERT INTO invitations (token_sha256, site, expires) VALUES (?1, ?2, ?3)",
                    token_sha256, site, expires));
  return std::move(transaction).Commit();
}

absl::Status SiteRegistry::Redeem(const std::string& token_sha256, const std::string& site,
                                  const IssuedSiteCertificate& certificate, Time now) {
  absl::MutexLock lock(&database_.mutex());
  bool known = false;
  std::string redeemed_by;
  Time expires{};
  RETURN_IF_ERROR(database_.Each(
      [&](const Statement& row) {
        known = true;
        expires = row.Moment(0);
        redeemed_by = row.Text(1);
      },
      "SELECT expires, key_sha256 FROM invitations WHERE token_sha256 = ?1 AND site = ?2",
      token_sha256, site));
  if (!known) {
    return absl::PermissionDeniedError(
        fmt::format("there is no invitation of {} with this token: ask the coordinator for a new "
                    "one (isoscan-admin site invite {})",
                    site, site));
  }
  if (!redeemed_by.empty() && redeemed_by != certificate.key_sha256) {
    return absl::PermissionDeniedError(fmt::format(
        "the invitation of {} has been used with another key: a token is for one; if that was this "
        "site, enrol again in the same --folder, otherwise tell the coordinator",
        site));
  }
  if (now >= expires) {
    return absl::PermissionDeniedError(
        fmt::format("the invitation of {} has expired: ask the coordinator for a new one", site));
  }
  ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database_));
  // The first time counts: who repeats it does not make it younger.
  RETURN_IF_ERROR(
      database_.Run("UPDATE invitations SET redeemed = coalesce(redeemed, ?2), key_sha256 = ?3 "
                    "WHERE token_sha256 = ?1",
                    token_sha256, now, certificate.key_sha256));
  RETURN_IF_ERROR(
      database_.Run("UPDATE sites SET state = 'enrolled', fingerprint = ?2, certificate_ends = ?3 "
                    "WHERE name = ?1 AND state != 'suspended'",
                    site, certificate.fingerprint, certificate.ends));
  if (database_.changes() == 0) {
    return absl::PermissionDeniedError(fmt::format("{} is suspended: ask the coordinator", site));
  }
  return std::move(transaction).Commit();
}

absl::Status SiteRegistry::IsAllowed(const std::string& site,
                                     const std::string& fingerprint) const {
  absl::MutexLock lock(&database_.mutex());
  ASSIGN_OR_RETURN(const std::optional<RegisteredSite> known, Find(database_, site));
  if (!known.has_value()) {
    return absl::PermissionDeniedError(
        fmt::format("{} is no site of this server: ask the coordinator for an invitation", site));
  }
  switch (known->state) {
    case RegisteredSite::State::kInvited:
      return absl::PermissionDeniedError(
          fmt::format("{} has not enrolled yet: run isoscan-client enrol", site));
    case RegisteredSite::State::kSuspended:
      return absl::PermissionDeniedError(fmt::format("{} is suspended: ask the coordinator", site));
    case RegisteredSite::State::kEnrolled:
      break;
  }
  if (known->fingerprint != fingerprint) {
    return absl::PermissionDeniedError(fmt::format(
        "{} has enrolled with another certificate: use the latest one, or ask the coordinator",
        site));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<RegisteredSite>> SiteRegistry::List() const {
  absl::MutexLock lock(&database_.mutex());
  return Read(database_, /*name=*/"");
}

}  // namespace isoscan
