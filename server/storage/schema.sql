-- The journal of isoscan-server, schema version 1. Times are milliseconds since the Unix epoch.
-- Changes to a released schema are migrations (migrations.cc) and never edits of this file.

-- --- Studies ---------------------------------------------------------------------------------------

CREATE TABLE studies (
  name         TEXT PRIMARY KEY,
  digest       TEXT NOT NULL,      -- SHA-256 of toml; what sites approve.
  toml         TEXT NOT NULL,
  phase        TEXT NOT NULL CHECK (phase IN ('created', 'running', 'paused', 'finished', 'stopped')),
  created      INTEGER NOT NULL,
  phase_since  INTEGER NOT NULL,
  round        INTEGER NOT NULL    -- The open round; 0 before the start; rounds + 1: final scores.
) STRICT, WITHOUT ROWID;

-- Sites that have approved a study, and what they declared of their cohorts.
CREATE TABLE participants (
  study             TEXT NOT NULL REFERENCES studies (name),
  site              TEXT NOT NULL,
  training_cases    INTEGER NOT NULL CHECK (training_cases > 0),
  held_out_cases    INTEGER NOT NULL CHECK (held_out_cases > 0),
  refused_cases     INTEGER NOT NULL,
  raw_low           REAL NOT NULL,
  raw_high          REAL NOT NULL,
  raw_counts        TEXT NOT NULL,  -- Comma-separated.
  harmonized_low    REAL NOT NULL,
  harmonized_high   REAL NOT NULL,
  harmonized_counts TEXT NOT NULL,
  approved          INTEGER NOT NULL,
  at_start          INTEGER NOT NULL,  -- 1: had approved when the study started.
  withdrawn         INTEGER NOT NULL,
  PRIMARY KEY (study, site)
) STRICT, WITHOUT ROWID;

-- --- Rounds ----------------------------------------------------------------------------------------

-- Round rounds + 1 is the one of the final scores; no model comes out of it.
CREATE TABLE rounds (
  study               TEXT NOT NULL REFERENCES studies (name),
  round               INTEGER NOT NULL,
  opened              INTEGER NOT NULL,
  closed              INTEGER,          -- NULL while open.
  seconds_aggregating REAL,
  PRIMARY KEY (study, round)
) STRICT, WITHOUT ROWID;

-- Global models; the bytes lie in models/ by digest. Round 0: the initial weights.
CREATE TABLE models (
  study  TEXT NOT NULL REFERENCES studies (name),
  round  INTEGER NOT NULL,
  digest TEXT NOT NULL,
  bytes  INTEGER NOT NULL,
  PRIMARY KEY (study, round)
) STRICT, WITHOUT ROWID;

-- What sites handed in. The weights lie in uploads/ until their round is closed.
CREATE TABLE updates (
  study            TEXT NOT NULL,
  round            INTEGER NOT NULL,
  site             TEXT NOT NULL,
  weights_digest   TEXT NOT NULL,
  training_cases   INTEGER NOT NULL CHECK (training_cases > 0),
  steps            INTEGER NOT NULL,
  mean_loss        REAL NOT NULL,
  seconds_training REAL NOT NULL,
  seconds_scoring  REAL NOT NULL,
  received         INTEGER NOT NULL,
  PRIMARY KEY (study, round, site),
  FOREIGN KEY (study, round) REFERENCES rounds (study, round),
  FOREIGN KEY (study, site) REFERENCES participants (study, site)
) STRICT, WITHOUT ROWID;

-- Every site of a closed round: its weight in the mean, or why it is not in it.
CREATE TABLE participation (
  study  TEXT NOT NULL,
  round  INTEGER NOT NULL,
  site   TEXT NOT NULL,
  weight REAL NOT NULL,    -- 0: left out.
  reason TEXT NOT NULL,    -- Why it was left out; '' for a contributor.
  PRIMARY KEY (study, round, site),
  FOREIGN KEY (study, round) REFERENCES rounds (study, round)
) STRICT, WITHOUT ROWID;

-- --- Scores of held-out cases ------------------------------------------------------------------------

-- after_round: rounds aggregated into a global model; -1 stands for the site's local-only model.
CREATE TABLE label_scores (
  study            TEXT NOT NULL,
  site             TEXT NOT NULL,
  after_round      INTEGER NOT NULL,
  case_index       INTEGER NOT NULL,
  cohort           TEXT NOT NULL,
  label            INTEGER NOT NULL,  -- Position in the study's labels.
  dice             REAL,              -- NULL: label and prediction are both empty.
  reference_voxels INTEGER NOT NULL,
  predicted_voxels INTEGER NOT NULL,
  common_voxels    INTEGER NOT NULL,
  PRIMARY KEY (study, site, after_round, case_index, label),
  FOREIGN KEY (study, site) REFERENCES participants (study, site)
) STRICT, WITHOUT ROWID;

-- --- Sites -------------------------------------------------------------------------------------------

CREATE TABLE sites (
  name             TEXT PRIMARY KEY,
  state            TEXT NOT NULL CHECK (state IN ('invited', 'enrolled', 'suspended')),
  fingerprint      TEXT NOT NULL,     -- SHA-256 of the certificate's DER; '' while invited.
  certificate_ends INTEGER            -- NULL while invited.
) STRICT, WITHOUT ROWID;

-- The token itself is known to the invited site alone.
CREATE TABLE invitations (
  token_sha256 TEXT PRIMARY KEY,
  site         TEXT NOT NULL REFERENCES sites (name),
  expires      INTEGER NOT NULL,
  redeemed     INTEGER,               -- NULL: not yet.
  key_sha256   TEXT                   -- Of the public key that redeemed it; NULL: not yet.
) STRICT, WITHOUT ROWID;
