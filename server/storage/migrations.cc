#include "server/storage/migrations.h"

#include <fmt/format.h>

#include <array>
#include <cstdint>

#include "server/storage/schema.h"

namespace isoscan {
namespace {

// "isos" in PRAGMA application_id, at byte 68 of the file.
constexpr std::int64_t kApplicationId = 0x69736f73;

// Version 2: what a site measured of the final model's invariance, beside its scores of that model.
constexpr char kCertificatesSql[] = R"sql(
CREATE TABLE certificates (
  study                TEXT NOT NULL,
  site                 TEXT NOT NULL,
  after_round          INTEGER NOT NULL,  -- As in label_scores.
  cases                INTEGER NOT NULL,
  largest_logit_change REAL NOT NULL,     -- In spreads; infinite where a mapped scan was refused.
  scale                REAL NOT NULL,
  bias                 REAL NOT NULL,
  voxels_changed       INTEGER NOT NULL,
  voxels_compared      INTEGER NOT NULL,
  PRIMARY KEY (study, site, after_round),
  FOREIGN KEY (study, site) REFERENCES participants (study, site)
) STRICT, WITHOUT ROWID;

CREATE TABLE degradation_points (
  study        TEXT NOT NULL,
  site         TEXT NOT NULL,
  after_round  INTEGER NOT NULL,
  perturbation TEXT NOT NULL,             -- common/invariance/certificate.cc
  amount       REAL NOT NULL,
  cases        INTEGER NOT NULL,
  flipped      REAL NOT NULL,
  dice         REAL,                      -- NULL: no case has one.
  PRIMARY KEY (study, site, after_round, perturbation, amount),
  FOREIGN KEY (study, site, after_round) REFERENCES certificates (study, site, after_round)
    ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
)sql";

// Version 3: what sites add to a study's standard (Nyul's landmarks, the tissue means of least
// squares), and the standard that was fixed at the start. Numbers are comma-separated.
constexpr char kStandardsSql[] = R"sql(
CREATE TABLE standard_sums (
  study TEXT NOT NULL,
  site  TEXT NOT NULL,
  cases INTEGER NOT NULL,
  sum   TEXT NOT NULL,
  PRIMARY KEY (study, site),
  FOREIGN KEY (study, site) REFERENCES participants (study, site)
) STRICT, WITHOUT ROWID;
CREATE TABLE standards (
  study   TEXT PRIMARY KEY REFERENCES studies (name),
  numbers TEXT NOT NULL
) STRICT, WITHOUT ROWID;
)sql";

// Version 4: drafts. What sites send of their cohorts until the study is planned from it, and the
// text that they approved for that.
constexpr char kDraftsSql[] = R"sql(
CREATE TABLE fingerprints (
  study    TEXT NOT NULL,
  site     TEXT NOT NULL,
  channels INTEGER NOT NULL,
  classes  INTEGER NOT NULL,
  cases    INTEGER NOT NULL,
  PRIMARY KEY (study, site),
  FOREIGN KEY (study, site) REFERENCES participants (study, site) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE TABLE fingerprint_sketches (
  study              TEXT NOT NULL,
  site               TEXT NOT NULL,
  part               INTEGER NOT NULL,  -- common/planning/fingerprint.h: in the order of Sketches().
  buckets            TEXT NOT NULL,     -- Keys and counts in turn, comma-separated.
  mean               REAL,              -- Of a channel's intensities; otherwise NULL.
  squared_deviations REAL,
  PRIMARY KEY (study, site, part),
  FOREIGN KEY (study, site) REFERENCES fingerprints (study, site) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE TABLE drafts (
  study   TEXT PRIMARY KEY REFERENCES studies (name),
  digest  TEXT NOT NULL,
  toml    TEXT NOT NULL,
  planned INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
)sql";

// Whom each round asks (of rounds that an older server opened: who took part), and the last round
// of training where that came before the study's last one.
constexpr char kAskedSql[] = R"sql(
CREATE TABLE asked (
  study TEXT NOT NULL,
  round INTEGER NOT NULL,
  site  TEXT NOT NULL,
  PRIMARY KEY (study, round, site),
  FOREIGN KEY (study, round) REFERENCES rounds (study, round),
  FOREIGN KEY (study, site) REFERENCES participants (study, site)
) STRICT, WITHOUT ROWID;
CREATE TABLE early_ends (
  study  TEXT PRIMARY KEY REFERENCES studies (name),
  round  INTEGER NOT NULL,
  reason TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO asked SELECT study, round, site FROM participation
  JOIN participants USING (study, site)
  WHERE reason NOT IN ('had not approved the study', 'has withdrawn from the study');
INSERT INTO asked SELECT study, round, site FROM rounds JOIN participants USING (study)
  WHERE closed IS NULL AND withdrawn = 0;
)sql";

// Version 6: what strategies carry from round to round, of the newest model alone; the loss that
// fair aggregation asks sites for.
constexpr char kStatesSql[] = R"sql(
CREATE TABLE server_states (
  study  TEXT PRIMARY KEY REFERENCES studies (name),
  digest TEXT NOT NULL,    -- The bytes lie in models/ by digest.
  bytes  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE site_weights (
  study  TEXT NOT NULL REFERENCES studies (name),
  site   TEXT NOT NULL,
  weight REAL NOT NULL,
  PRIMARY KEY (study, site)
) STRICT, WITHOUT ROWID;
ALTER TABLE updates ADD COLUMN loss_before REAL;  -- NULL: it was not asked for.
)sql";

// Script n - 1 leads from version n - 1 to n. A script that was released never changes.
constexpr std::array<const char*, 6> kScripts = {kSchemaSql, kCertificatesSql, kStandardsSql,
                                                 kDraftsSql, kAskedSql,        kStatesSql};

absl::StatusOr<std::int64_t> ReadInteger(Database& database, std::string_view sql) {
  std::int64_t value = 0;
  RETURN_IF_ERROR(database.Each([&](const Statement& row) { value = row.Integer(0); }, sql));
  return value;
}

}  // namespace

absl::Status Migrate(Database& database, Time now, std::optional<std::int64_t> up_to) {
  ASSIGN_OR_RETURN(const std::int64_t application, ReadInteger(database, "PRAGMA application_id"));
  ASSIGN_OR_RETURN(const std::int64_t tables,
                   ReadInteger(database, "SELECT count(*) FROM sqlite_schema"));
  if (application != kApplicationId && tables > 0) {
    return absl::FailedPreconditionError(fmt::format(
        "{} is a database of another program: give another --state folder", database.path()));
  }
  RETURN_IF_ERROR(
      database.RunScript("CREATE TABLE IF NOT EXISTS migrations ("
                         "  version INTEGER PRIMARY KEY, applied INTEGER NOT NULL) STRICT"));
  RETURN_IF_ERROR(
      database.RunScript(fmt::format("PRAGMA application_id = {}", kApplicationId).c_str()));
  ASSIGN_OR_RETURN(const std::int64_t version,
                   ReadInteger(database, "SELECT coalesce(max(version), 0) FROM migrations"));
  const auto newest = static_cast<std::int64_t>(kScripts.size());
  if (version > newest) {
    return absl::FailedPreconditionError(fmt::format(
        "{} has schema version {}, this isoscan-server knows versions up to {}: update the server",
        database.path(), version, newest));
  }
  for (std::int64_t next = version; next < up_to.value_or(newest); ++next) {
    ASSIGN_OR_RETURN(Transaction transaction, Transaction::Begin(database));
    RETURN_IF_ERROR(database.RunScript(kScripts[static_cast<std::size_t>(next)]));
    RETURN_IF_ERROR(
        database.Run("INSERT INTO migrations (version, applied) VALUES (?1, ?2)", next + 1, now));
    RETURN_IF_ERROR(std::move(transaction).Commit());
  }
  return absl::OkStatus();
}

}  // namespace isoscan
