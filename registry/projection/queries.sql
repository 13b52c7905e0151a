-- Every SQL statement of stillhouse, by name. `-- name: x` begins one; `$after` and the like are
-- named parameters. Only registry/ reads this file (registry/projection/queries.py).
--
-- Three parts: the projection's tables and views, how rows come from events, and questions.


-- name: tables
-- The core tables are a public interface (docs/sql.md). Every one only grows, and every row carries
-- the seq of its event, so "as of event N" is `seq <= N`, for tables and views alike. Keys are UUIDs,
-- the first 128 bits of the digest: joining 64-character text is five times slower. No primary keys and
-- no indexes: DuckDB scans faster than it maintains them, and the chain already forbids doubles.
CREATE TABLE event (
    seq BIGINT NOT NULL, hash VARCHAR NOT NULL, prev VARCHAR NOT NULL, ts TIMESTAMP NOT NULL,
    -- Named, because DuckDB tries every compression on text this long, which takes twice the time.
    type VARCHAR NOT NULL, actor VARCHAR NOT NULL, body JSON NOT NULL USING COMPRESSION zstd
);
CREATE TABLE artifact (
    key UUID NOT NULL, digest VARCHAR NOT NULL, kind VARCHAR NOT NULL, size BIGINT NOT NULL,
    seq BIGINT NOT NULL, ts TIMESTAMP NOT NULL, form VARCHAR NOT NULL, origin VARCHAR NOT NULL,
    name VARCHAR, role VARCHAR, run VARCHAR,
    first BOOLEAN NOT NULL,  -- of this digest, as this kind
    new BOOLEAN NOT NULL     -- of this digest at all
);
CREATE TABLE edge (
    child UUID NOT NULL, parent UUID NOT NULL, role VARCHAR NOT NULL, seq BIGINT NOT NULL,
    circumstance BOOLEAN NOT NULL
);
CREATE TABLE gate (
    seq BIGINT NOT NULL, subject UUID NOT NULL, gate VARCHAR NOT NULL, verdict VARCHAR NOT NULL,
    value DOUBLE, threshold VARCHAR, policy UUID NOT NULL, evidence UUID NOT NULL,
    ts TIMESTAMP NOT NULL, subject_digest VARCHAR NOT NULL, policy_digest VARCHAR NOT NULL,
    evidence_digest VARCHAR NOT NULL
);
CREATE TABLE gate_check (
    seq BIGINT NOT NULL, gate VARCHAR NOT NULL, subject VARCHAR NOT NULL, metric VARCHAR NOT NULL,
    verdict VARCHAR NOT NULL, value DOUBLE, op VARCHAR NOT NULL, threshold DOUBLE, n BIGINT,
    reason VARCHAR
);
CREATE TABLE waiver (
    seq BIGINT NOT NULL, ts TIMESTAMP NOT NULL, gate VARCHAR NOT NULL, subject VARCHAR NOT NULL,
    author VARCHAR NOT NULL, reason VARCHAR NOT NULL, until VARCHAR NOT NULL
);
CREATE TABLE run_event (
    seq BIGINT NOT NULL, ts TIMESTAMP NOT NULL, what VARCHAR NOT NULL, key UUID NOT NULL,
    run VARCHAR NOT NULL, attempt INTEGER, phase VARCHAR, slot VARCHAR, plan VARCHAR,
    seconds DOUBLE, phase_version INTEGER, params JSON, tools MAP(VARCHAR, VARCHAR), code VARCHAR,
    message VARCHAR, transient BOOLEAN
);
CREATE TABLE plan_event (
    seq BIGINT NOT NULL, ts TIMESTAMP NOT NULL, what VARCHAR NOT NULL, plan VARCHAR NOT NULL,
    priority INTEGER, reason VARCHAR
);
CREATE TABLE recipe (
    seq BIGINT NOT NULL, plan VARCHAR NOT NULL, name VARCHAR, tier VARCHAR, policy VARCHAR
);
CREATE TABLE tag_move (
    seq BIGINT NOT NULL, ts TIMESTAMP NOT NULL, name VARCHAR NOT NULL, digest VARCHAR NOT NULL,
    previous VARCHAR
);
CREATE TABLE release_cut (
    seq BIGINT NOT NULL, ts TIMESTAMP NOT NULL, release VARCHAR NOT NULL, plan VARCHAR NOT NULL,
    tier VARCHAR NOT NULL, depends_on BIGINT NOT NULL
);
CREATE TABLE metric (
    seq BIGINT NOT NULL, report VARCHAR NOT NULL, phase VARCHAR, subject VARCHAR,
    name VARCHAR NOT NULL, value DOUBLE, unit VARCHAR, n BIGINT, low DOUBLE, high DOUBLE
);
CREATE TABLE file (
    seq BIGINT NOT NULL, artifact VARCHAR NOT NULL, path VARCHAR NOT NULL, size BIGINT NOT NULL,
    blake3 VARCHAR NOT NULL, sha256 VARCHAR NOT NULL
);
-- Events of an earlier version, in the form that they have today; `event` keeps what was written.
CREATE TABLE upcast (seq BIGINT NOT NULL, body JSON NOT NULL);
CREATE TABLE cursor (seq BIGINT NOT NULL, hash VARCHAR NOT NULL, pos BIGINT NOT NULL);
CREATE TABLE layout (version INTEGER NOT NULL, payloads VARCHAR NOT NULL);

-- name: moment
-- What counts as now, in UTC.
CREATE VIEW moment AS SELECT now() AT TIME ZONE 'UTC' AS utc;

-- name: views
-- Stable, and documented in docs/sql.md. They name tables without a schema, so that the same text
-- makes the views of an earlier moment (registry/projection/asof.py).

-- Every event with the data that it would have today.
CREATE VIEW present AS
SELECT e.seq, e.ts, e.type, e.actor, coalesce(u.body, e.body) AS body
FROM event e LEFT JOIN upcast u USING (seq);

-- Current tags, one row a name.
CREATE VIEW tags AS
SELECT name, arg_max(digest, seq) AS digest, arg_max(ts, seq) AS ts, max(seq) AS seq
FROM tag_move GROUP BY name;

-- One row a digest and kind, however often it was published; name, form and run of the first.
-- Few are published twice, so only those are gathered.
CREATE VIEW artifacts AS
WITH again AS (
    SELECT
        key, kind, arg_min(origin, seq) FILTER (origin <> 'imported') AS origin,
        arg_min(name, seq) AS name, arg_min(run, seq) AS run, arg_min(role, seq) AS role,
        max(seq) AS seq, count(*) AS publications
    FROM artifact WHERE NOT first GROUP BY key, kind
),
tagged AS (SELECT digest, list(name ORDER BY name) AS names FROM tags GROUP BY digest)
SELECT
    a.digest, a.kind, a.size, a.form,
    CASE WHEN a.origin = 'imported' THEN coalesce(r.origin, a.origin) ELSE a.origin END AS origin,
    coalesce(a.name, r.name) AS name, coalesce(a.run, r.run) AS run, coalesce(a.role, r.role) AS role,
    a.seq, coalesce(r.seq, a.seq) AS latest_seq, 1 + coalesce(r.publications, 0) AS publications,
    a.ts, coalesce(t.names, []) AS tags, a.key
FROM artifact a
LEFT JOIN again r ON r.key = a.key AND r.kind = a.kind
LEFT JOIN tagged t ON t.digest = a.digest
WHERE a.first;

-- Arrows with whole digests, each once.
CREATE VIEW lineage AS
SELECT
    c.digest AS child, c.kind AS child_kind, e.role, p.digest AS parent, p.kind AS parent_kind,
    bool_and(e.circumstance) AS circumstance, min(e.seq) AS seq
FROM edge e
JOIN artifact c ON c.seq = e.seq
LEFT JOIN artifact p ON p.key = e.parent AND p.new
GROUP BY ALL;

-- One row a run key, as it stands: code and message are those of its latest failure. `status` is that of
-- registry/state/runs.py, and a test compares the two. A run that somebody cancelled, and that was then
-- ended, is `cancelled`: that is no failure of its own. `cancelled`: it is not tried again for such a wish.
CREATE VIEW runs AS
WITH latest AS (
    SELECT run, max(seq) AS seq, arg_max(attempt, seq) AS attempt
    FROM run_event WHERE what = 'started' GROUP BY run
),
stood AS (
    SELECT
        run, any_value(phase) AS phase, max(phase_version) AS phase_version,
        any_value(slot) AS slot, arg_min(plan, e.seq) AS plan,
        arg_max(what, e.seq) FILTER (what NOT IN ('cancelled', 'retried')) AS last,
        min(e.seq) FILTER (what = 'cancelled' AND e.seq > l.seq AND e.attempt = l.attempt) AS wished,
        max(e.seq) FILTER (what = 'cancelled' AND e.seq > l.seq AND e.attempt = l.attempt) AS wishes,
        max(e.seq) FILTER (what = 'retried') AS retried,
        max(e.seq) FILTER (what IN ('failed', 'abandoned')) AS over,
        max(e.attempt) AS attempt, arg_max(seconds, e.seq) AS seconds, arg_max(code, e.seq) AS code,
        arg_max(message, e.seq) AS message, arg_max(transient, e.seq) AS transient,
        arg_max(ts, e.seq) FILTER (what = 'started') AS started,
        arg_max(ts, e.seq) FILTER (what IN ('succeeded', 'failed', 'abandoned')) AS ended,
        any_value(params) AS params, arg_max(tools, e.seq) AS tools, max(l.seq) AS started_seq,
        max(e.seq) AS seq
    FROM run_event e JOIN latest l USING (run) WHERE what <> 'reused' GROUP BY run
)
SELECT
    run, phase, phase_version, slot, plan,
    CASE
        WHEN last = 'started' THEN 'running'
        WHEN last = 'abandoned' AND wished < over THEN 'cancelled'
        ELSE last
    END AS status,
    attempt, seconds, code, message, transient,
    -- A retry that was asked for before the end changes nothing.
    coalesce(
        last <> 'succeeded' AND wishes > CASE WHEN retried > over THEN retried ELSE 0 END, false
    ) AS cancelled,
    started, ended, params, tools, started_seq, seq
FROM stood;

-- Which run fills which slot of which plan.
CREATE VIEW slots AS
SELECT
    plan, slot, arg_max(phase, seq) AS phase, arg_max(run, seq) AS run,
    arg_max(what, seq) = 'reused' AS reused, max(seq) AS seq
FROM run_event WHERE what IN ('succeeded', 'reused') GROUP BY plan, slot;

-- One row an attempt that ended: what it took, who asked for it, and the first release that was cut
-- of that plan afterwards. A run that was reused has no attempt, and costs nothing. `cancelled`: as in
-- `runs`, of this attempt.
CREATE VIEW costs AS
WITH wished AS (
    SELECT key, attempt, min(seq) AS seq FROM run_event WHERE what = 'cancelled' GROUP BY ALL
)
SELECT
    e.run, e.attempt, e.phase, e.slot, e.plan, r.release,
    CASE WHEN w.seq IS NULL THEN e.what ELSE 'cancelled' END AS status,
    coalesce(e.seconds, epoch(e.ts - s.ts)) AS seconds,
    CASE WHEN e.what = 'succeeded' THEN 0 ELSE coalesce(e.seconds, epoch(e.ts - s.ts)) END AS lost,
    e.ts AS ended, e.seq
FROM run_event e
LEFT JOIN run_event s ON e.what = 'abandoned' AND s.what = 'started' AND s.key = e.key
    AND s.attempt = e.attempt
LEFT JOIN wished w ON e.what = 'abandoned' AND w.key = e.key AND w.attempt = e.attempt
    AND w.seq < e.seq
ASOF LEFT JOIN release_cut r ON r.plan = e.plan AND r.seq >= e.seq
WHERE e.what IN ('succeeded', 'failed', 'abandoned');

CREATE VIEW waivers AS
SELECT
    seq, ts, gate, subject, author, reason, until,
    coalesce(try_cast(until AS TIMESTAMP) > (SELECT utc FROM moment), false) AS active
FROM waiver;

-- The latest verdict of each gate over each subject, evidence and policy.
CREATE VIEW gates AS
WITH latest AS (
    SELECT
        gate, any_value(subject_digest) AS subject, arg_max(verdict, seq) AS verdict,
        arg_max(value, seq) AS value, arg_max(threshold, seq) AS threshold,
        any_value(evidence_digest) AS evidence, any_value(policy_digest) AS policy,
        max(seq) AS seq, arg_max(ts, seq) AS ts
    FROM gate g GROUP BY gate, g.subject, g.evidence, g.policy
),
waived AS (
    SELECT gate, subject, arg_max(author, seq) AS author, arg_max(until, seq) AS until
    FROM waivers WHERE active GROUP BY gate, subject
)
SELECT
    g.gate, g.subject, g.verdict, g.value, g.threshold, w.author AS waived_by,
    w.until AS waived_until, g.evidence, g.policy, g.seq, g.ts
FROM latest g LEFT JOIN waived w ON w.gate = g.gate AND w.subject = g.subject;

-- Every check of every verdict.
CREATE VIEW checks AS
SELECT seq, gate, subject, metric, verdict, value, op, threshold, n, reason FROM gate_check;

-- Every measured number of every report, once.
CREATE VIEW metrics AS
SELECT report, phase, subject, name, value, unit, n, low, high, min(seq) AS seq
FROM metric GROUP BY ALL;

-- Files of release-bound artifacts.
CREATE VIEW files AS
SELECT artifact, path, size, blake3, sha256, min(seq) AS seq FROM file GROUP BY ALL;

-- One row a plan that was ever asked for.
CREATE VIEW plans AS
WITH asked AS (
    SELECT
        plan, count(*) FILTER (what = 'requested') AS requests,
        arg_max(priority, seq) AS priority, arg_max(what, seq) AS what,
        arg_max(reason, seq) FILTER (what = 'cancelled') AS reason,
        max(ts) FILTER (what = 'requested') AS ts, max(seq) FILTER (what = 'requested') AS seq
    FROM plan_event GROUP BY plan
),
named AS (
    SELECT plan, any_value(name) AS name, any_value(tier) AS tier, any_value(policy) AS policy
    FROM recipe GROUP BY plan
),
sealed AS (SELECT plan, max(seq) AS seq FROM release_cut GROUP BY plan)
SELECT
    a.plan, n.name, n.tier, n.policy, a.requests, a.priority,
    CASE
        WHEN a.what = 'cancelled' THEN 'cancelled'
        WHEN s.seq IS NOT NULL THEN 'released'
        ELSE 'requested'
    END AS status,
    CASE WHEN a.what = 'cancelled' THEN a.reason END AS reason, a.ts, a.seq
FROM asked a LEFT JOIN named n USING (plan) LEFT JOIN sealed s USING (plan);

CREATE VIEW releases AS SELECT release, plan, tier, depends_on, seq, ts FROM release_cut;


-- name: add_events
-- The lines were verified, so their envelope is believed.
INSERT INTO event
SELECT
    f.seq, hash, f.prev, f.ts::TIMESTAMP, f.type, concat(f.actor.user, '@', f.actor.host), body
FROM (
    SELECT
        hash, body::JSON AS body,
        from_json(body, '{"actor": {"user": "VARCHAR", "host": "VARCHAR"}, "prev": "VARCHAR",
            "seq": "BIGINT", "ts": "VARCHAR", "type": "VARCHAR"}') AS f
    FROM (SELECT unnest($hash) AS hash, unnest($body) AS body)
);

-- name: add_upcasts
INSERT INTO upcast SELECT unnest($seq), unnest($body)::JSON;

-- name: add_artifacts
-- Here and below: one from_json parses an event once, where each `->>` would parse it again.
INSERT INTO artifact
WITH published AS (
    SELECT seq, ts, left(f.digest, 32)::UUID AS key, f.*
    FROM (
        SELECT
            seq, ts,
            from_json(body, '{"data": {"digest": "VARCHAR", "kind": "VARCHAR",
                "size": "BIGINT", "form": "VARCHAR", "origin": "VARCHAR", "name": "VARCHAR",
                "role": "VARCHAR", "run": "VARCHAR"}}').data AS f
        FROM present WHERE seq > $after AND type = 'artifact.published'
    )
),
known AS (
    SELECT a.key, list(a.kind) AS kinds FROM artifact a SEMI JOIN published USING (key) GROUP BY a.key
)
SELECT
    p.key, digest, kind, size, seq, ts, form, origin, name, role, run,
    NOT coalesce(list_contains(k.kinds, kind), false)
        AND row_number() OVER (PARTITION BY p.key, kind ORDER BY seq) = 1,
    k.kinds IS NULL AND row_number() OVER (PARTITION BY p.key ORDER BY seq) = 1
FROM published p LEFT JOIN known k ON k.key = p.key ORDER BY seq;

-- name: add_edges
INSERT INTO edge
SELECT
    left(child, 32)::UUID, left(p.digest, 32)::UUID, p.role, seq, coalesce(p.circumstance, false)
FROM (
    SELECT seq, f.digest AS child, unnest(f.parents) AS p
    FROM (
        SELECT
            seq,
            from_json(body, '{"data": {"digest": "VARCHAR", "parents": [
                {"role": "VARCHAR", "digest": "VARCHAR", "circumstance": "BOOLEAN"}]}}').data AS f
        FROM present WHERE seq > $after AND type = 'artifact.published'
    )
);

-- name: add_recipes
INSERT INTO recipe
SELECT seq, f.digest, f.facts.recipe.name, f.facts.recipe.tier, f.facts.recipe.policy
FROM (
    SELECT
        seq,
        from_json(body, '{"data": {"digest": "VARCHAR", "kind": "VARCHAR",
            "facts": {"recipe": {"name": "VARCHAR", "tier": "VARCHAR", "policy": "VARCHAR"}}
            }}').data AS f
    FROM present WHERE seq > $after AND type = 'artifact.published'
)
WHERE f.kind = 'recipe';

-- name: add_metrics
INSERT INTO metric
SELECT seq, report, phase, subject, m.name, m.value, m.unit, m.n, m.low, m.high
FROM (
    SELECT
        seq, f.digest AS report, f.facts.phase AS phase, f.facts.subject AS subject,
        unnest(f.facts.metrics) AS m
    FROM (
        SELECT
            seq,
            from_json(body, '{"data": {"digest": "VARCHAR", "facts": {
                "phase": "VARCHAR", "subject": "VARCHAR", "metrics": [{
                "name": "VARCHAR", "value": "DOUBLE", "unit": "VARCHAR", "n": "BIGINT",
                "low": "DOUBLE", "high": "DOUBLE"}]}}}').data AS f
        FROM present WHERE seq > $after AND type = 'artifact.published'
    )
)
WHERE m.name IS NOT NULL;

-- name: add_files
INSERT INTO file
SELECT seq, artifact, p.path, p.size, p.digest, p.sha256
FROM (
    SELECT seq, f.digest AS artifact, unnest(f.files) AS p
    FROM (
        SELECT
            seq,
            from_json(body, '{"data": {"digest": "VARCHAR", "files": [{
                "path": "VARCHAR", "size": "BIGINT", "digest": "VARCHAR", "sha256": "VARCHAR"
                }]}}').data AS f
        FROM present WHERE seq > $after AND type = 'artifact.published'
    )
);

-- name: add_gates
-- value and threshold are those of the check that decided: the first with the gate's own verdict.
INSERT INTO gate
SELECT
    seq, left(f.subject, 32)::UUID, f.gate, f.verdict, c.value, c.op || ' ' || c.threshold,
    left(f.policy, 32)::UUID, left(f.evidence, 32)::UUID, ts, f.subject, f.policy, f.evidence
FROM (
    SELECT seq, ts, f, list_filter(f.checks, lambda c: c.verdict = f.verdict)[1] AS c
    FROM (
        SELECT
            seq, ts,
            from_json(body, '{"data": {"gate": "VARCHAR", "subject": "VARCHAR",
                "evidence": "VARCHAR", "policy": "VARCHAR", "verdict": "VARCHAR", "checks": [
                {"verdict": "VARCHAR", "value": "DOUBLE", "op": "VARCHAR", "threshold": "VARCHAR"}
                ]}}').data AS f
        FROM present WHERE seq > $after AND type = 'gate.evaluated'
    )
);

-- name: add_checks
INSERT INTO gate_check
SELECT
    seq, gate, subject, c.metric, c.verdict, c.value, c.op, c.threshold, c.n, c.reason
FROM (
    SELECT seq, f.gate AS gate, f.subject AS subject, unnest(f.checks) AS c
    FROM (
        SELECT
            seq,
            from_json(body, '{"data": {"gate": "VARCHAR", "subject": "VARCHAR",
                "checks": [{"metric": "VARCHAR", "verdict": "VARCHAR", "value": "DOUBLE",
                "op": "VARCHAR", "threshold": "DOUBLE", "n": "BIGINT", "reason": "VARCHAR"}]
                }}').data AS f
        FROM present WHERE seq > $after AND type = 'gate.evaluated'
    )
);

-- name: add_waivers
INSERT INTO waiver
SELECT seq, ts, f.gate, f.subject, f.author, f.reason, f.until
FROM (
    SELECT
        seq, ts,
        from_json(body, '{"data": {"gate": "VARCHAR", "subject": "VARCHAR",
            "author": "VARCHAR", "reason": "VARCHAR", "until": "VARCHAR"}}').data AS f
    FROM present WHERE seq > $after AND type = 'gate.waived'
);

-- name: add_run_events
INSERT INTO run_event
SELECT
    seq, ts, what, left(f.run, 32)::UUID, f.run, f.attempt, f.phase, f.slot, f.plan, f.seconds,
    f.phase_version, f.params, f.tools, f.code, coalesce(f.message, f.reason), f.transient
FROM (
    SELECT
        seq, ts, type[5:] AS what,
        from_json(body, '{"data": {"run": "VARCHAR", "attempt": "INTEGER",
            "phase": "VARCHAR", "slot": "VARCHAR", "plan": "VARCHAR", "seconds": "DOUBLE",
            "phase_version": "INTEGER", "params": "JSON", "tools": "MAP(VARCHAR, VARCHAR)",
            "code": "VARCHAR", "message": "VARCHAR", "reason": "VARCHAR",
            "transient": "BOOLEAN"}}').data AS f
    FROM present
    WHERE seq > $after AND type IN ('run.started', 'run.succeeded', 'run.failed', 'run.abandoned',
        'run.cancelled', 'run.retried', 'run.reused')
);

-- name: add_plan_events
INSERT INTO plan_event
SELECT seq, ts, what, f.plan, f.priority, f.reason
FROM (
    SELECT
        seq, ts, type[6:] AS what,
        from_json(body, '{"data": {"plan": "VARCHAR", "priority": "INTEGER",
            "reason": "VARCHAR"}}').data AS f
    FROM present WHERE seq > $after AND type IN ('plan.requested', 'plan.cancelled')
);

-- name: add_tag_moves
INSERT INTO tag_move
SELECT seq, ts, f.name, f.digest, f.previous
FROM (
    SELECT
        seq, ts,
        from_json(body, '{"data": {"name": "VARCHAR", "digest": "VARCHAR",
            "previous": "VARCHAR"}}').data AS f
    FROM present WHERE seq > $after AND type = 'tag.moved'
);

-- name: add_release_cuts
INSERT INTO release_cut
SELECT seq, ts, f.release, f.plan, f.tier, f.depends_on
FROM (
    SELECT
        seq, ts,
        from_json(body, '{"data": {"release": "VARCHAR", "plan": "VARCHAR",
            "tier": "VARCHAR", "depends_on": "BIGINT"}}').data AS f
    FROM present WHERE seq > $after AND type = 'release.cut'
);

-- name: forget_cursor
DELETE FROM cursor;

-- name: set_cursor
INSERT INTO cursor VALUES ($seq, $hash, $pos);

-- name: set_layout
INSERT INTO layout VALUES ($version, $payloads);

-- name: layout
SELECT version, payloads FROM layout;

-- name: cursor
SELECT seq, hash, pos, (SELECT count(*) FROM event) AS events FROM cursor;


-- name: seq_at
-- The last event that was recorded at $time or before. Times never go back (registry/ledger/ledger.py).
SELECT coalesce(max(seq), 0) FROM event WHERE ts <= $time;

-- name: time_of
SELECT ts FROM event WHERE seq = $seq;

-- name: as_of_table
CREATE TEMP VIEW {table} AS SELECT * FROM borrowed.main.{table} WHERE seq <= {seq};

-- name: as_of_cursor
-- A line is a hash, a TAB, the JSON, and a LF.
CREATE TEMP VIEW cursor AS
SELECT
    coalesce(max(seq), 0) AS seq, coalesce(arg_max(hash, seq), repeat('0', 64)) AS hash,
    coalesce(sum(64 + 1 + strlen(body) + 1), 0)::BIGINT AS pos
FROM event;

-- name: as_of_moment
CREATE TEMP VIEW moment AS SELECT TIMESTAMP '{moment}' AS utc;

-- name: audit_rows
-- What the projection remembers of every event, and whether its copy still is what was hashed.
SELECT
    seq, hash, prev,
    CASE WHEN sha256(body::VARCHAR) = hash THEN coalesce(
        seq = (body->>'$.seq')::BIGINT AND prev = body->>'$.prev' AND type = body->>'$.type'
            AND ts = (body->>'$.ts')::TIMESTAMP
            AND actor = concat(body->>'$.actor.user', '@', body->>'$.actor.host'),
        false
    ) ELSE false END AS whole
FROM event ORDER BY seq;

-- name: audit_releases
SELECT DISTINCT body->>'$.data.release' AS release FROM event
WHERE type = 'release.cut' AND release IS NOT NULL ORDER BY release;

-- name: audit_copies
-- Its copies of the events that say what rests on what, and of one event more.
SELECT body FROM event
WHERE seq = $seq OR type IN ('artifact.published', 'release.cut') ORDER BY seq;

-- name: audit_layouts
-- With a fresh projection attached beside: rows when the two are of different layouts.
(FROM borrowed.main.layout EXCEPT ALL FROM fresh.main.layout)
UNION ALL (FROM fresh.main.layout EXCEPT ALL FROM borrowed.main.layout);

-- name: audit_views
-- Views, and tables that only one of the two has, or has with other columns.
WITH shape AS (
    SELECT database_name, view_name AS name, sql FROM duckdb_views() WHERE NOT internal
    UNION ALL
    SELECT database_name, table_name, sql FROM duckdb_tables()
),
mine AS (SELECT name, sql FROM shape WHERE database_name = 'borrowed'),
told AS (SELECT name, sql FROM shape WHERE database_name = 'fresh')
SELECT DISTINCT name
FROM ((FROM mine EXCEPT ALL FROM told) UNION ALL (FROM told EXCEPT ALL FROM mine)) ORDER BY name;

-- name: audit_tables
-- Tables that both have, and whether their rows carry a seq.
SELECT t.table_name, bool_or(c.column_name = 'seq')
FROM duckdb_tables() t
JOIN duckdb_tables() o ON o.database_name = 'fresh' AND o.table_name = t.table_name
    AND o.sql = t.sql
JOIN duckdb_columns() c ON c.database_name = 'borrowed' AND c.table_name = t.table_name
WHERE t.database_name = 'borrowed' GROUP BY t.table_name ORDER BY t.table_name;
