"""The tables of a ledger's SQLite file, as the steps in which they came to be. Pure.

A new version adds a step, and those here stay.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

APPLICATION_ID = 0x54424C31  # "TBL1": told apart from other programs' databases
MIGRATIONS = (
    """
CREATE TABLE runs (
    run TEXT PRIMARY KEY, machine TEXT NOT NULL, started_ms INTEGER NOT NULL, ended_ms INTEGER,
    mode TEXT NOT NULL, budgets TEXT NOT NULL, exit_code INTEGER
) WITHOUT ROWID;
CREATE TABLE attempts (
    key INTEGER PRIMARY KEY, run TEXT NOT NULL, instance TEXT NOT NULL, attempt INTEGER NOT NULL,
    session TEXT, command TEXT, base_command TEXT, model TEXT, started_ms INTEGER NOT NULL, ended_ms INTEGER,
    outcome TEXT, exact INTEGER NOT NULL DEFAULT 0,
    input INTEGER NOT NULL DEFAULT 0, output INTEGER NOT NULL DEFAULT 0, cache_write INTEGER NOT NULL DEFAULT 0,
    cache_read INTEGER NOT NULL DEFAULT 0, cost_nano INTEGER,
    UNIQUE (run, instance, attempt)
);
CREATE INDEX attempts_by_end ON attempts (ended_ms);
CREATE INDEX attempts_by_command ON attempts (base_command, ended_ms);
CREATE TABLE records (
    id TEXT PRIMARY KEY, attempt INTEGER NOT NULL REFERENCES attempts (key), at_ms INTEGER NOT NULL,
    model TEXT NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL, cache_write INTEGER NOT NULL,
    cache_read INTEGER NOT NULL, cost_nano INTEGER, cost_source TEXT
) WITHOUT ROWID;
CREATE INDEX records_by_time ON records (at_ms);
CREATE INDEX records_by_attempt ON records (attempt);
CREATE TABLE quarters (
    start_ms INTEGER NOT NULL, attempt INTEGER NOT NULL, model TEXT NOT NULL, input INTEGER NOT NULL,
    output INTEGER NOT NULL, cache_write INTEGER NOT NULL, cache_read INTEGER NOT NULL, cost_nano INTEGER,
    PRIMARY KEY (start_ms, attempt, model)
) WITHOUT ROWID;
CREATE INDEX quarters_by_attempt ON quarters (attempt);
CREATE TRIGGER add_up AFTER INSERT ON records BEGIN
    INSERT INTO quarters VALUES (NEW.at_ms / 900000 * 900000, NEW.attempt, NEW.model, NEW.input, NEW.output,
        NEW.cache_write, NEW.cache_read, NEW.cost_nano)
    ON CONFLICT DO UPDATE SET input = input + NEW.input, output = output + NEW.output,
        cache_write = cache_write + NEW.cache_write, cache_read = cache_read + NEW.cache_read,
        cost_nano = CASE WHEN NEW.cost_nano IS NULL THEN cost_nano ELSE coalesce(cost_nano, 0) + NEW.cost_nano END;
    UPDATE attempts SET input = input + NEW.input, output = output + NEW.output,
        cache_write = cache_write + NEW.cache_write, cache_read = cache_read + NEW.cache_read,
        cost_nano = CASE WHEN NEW.cost_nano IS NULL THEN cost_nano ELSE coalesce(cost_nano, 0) + NEW.cost_nano END
    WHERE key = NEW.attempt;
END;
CREATE TABLE holds (
    key INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, instance TEXT NOT NULL, tokens INTEGER NOT NULL,
    cost_nano INTEGER NOT NULL, expires_ms INTEGER NOT NULL
);
CREATE TABLE alerts (key TEXT PRIMARY KEY, run TEXT NOT NULL, at_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE notes (
    id TEXT PRIMARY KEY, run TEXT NOT NULL, at_ms INTEGER NOT NULL, kind TEXT NOT NULL, instance TEXT,
    text TEXT NOT NULL
) WITHOUT ROWID;
""",
    """
ALTER TABLE attempts ADD COLUMN other_sessions TEXT NOT NULL DEFAULT '[]';
ALTER TABLE attempts ADD COLUMN workspace TEXT;
""",
    "CREATE INDEX attempts_by_instance ON attempts (instance, ended_ms);",
    "ALTER TABLE attempts ADD COLUMN verified INTEGER;",
    """
ALTER TABLE records ADD COLUMN source TEXT NOT NULL DEFAULT '';
ALTER TABLE records ADD COLUMN terms TEXT NOT NULL DEFAULT '[]';
ALTER TABLE records ADD COLUMN write_1h INTEGER NOT NULL DEFAULT 0;
ALTER TABLE records ADD COLUMN searches INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempts ADD COLUMN subagents TEXT NOT NULL DEFAULT '[]';
""",
    """
CREATE TABLE launches (key INTEGER PRIMARY KEY, run TEXT NOT NULL, at_ms INTEGER NOT NULL);
CREATE INDEX launches_by_time ON launches (at_ms);
""",
    "ALTER TABLE holds ADD COLUMN sent_ms INTEGER;",
    """
ALTER TABLE runs ADD COLUMN account TEXT NOT NULL DEFAULT '';
CREATE INDEX runs_by_account ON runs (account);
CREATE TABLE accounts (account TEXT PRIMARY KEY, zone TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE limits (
    account TEXT NOT NULL REFERENCES accounts (account), period TEXT NOT NULL, unit TEXT NOT NULL,
    most INTEGER NOT NULL, PRIMARY KEY (account, period, unit)
) WITHOUT ROWID;
""",
    """
CREATE TABLE posts (
    key INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, run TEXT NOT NULL, at_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL, text TEXT NOT NULL
);
CREATE INDEX posts_by_topic ON posts (topic, key);
CREATE INDEX posts_by_end ON posts (expires_ms);
""",
)


def statements(script: str) -> Iterator[str]:
    """A script's statements, triggers whole: `executescript` would commit before them."""
    part = ""
    for line in script.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            yield part
            part = ""
