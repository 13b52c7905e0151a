-- Every SQL statement of stillhouse, by name. `-- name: x` begins one; `:after` and the like are
-- named parameters ($after in DuckDB). Only registry/ reads this file (registry/queries.py).
--
-- Two parts: the projection (its layout and how rows come from events), and questions to it.


-- name: layout
-- The core tables are a public interface: event, artifact, edge, gate, cursor. Keys are UUIDs, the
-- first 128 bits of the digest: joining 64-character text is five times slower. No primary keys and
-- no indexes: DuckDB scans faster than it maintains them, and the chain already forbids doubles.
CREATE TABLE event (
    seq BIGINT NOT NULL, hash VARCHAR NOT NULL, prev VARCHAR NOT NULL, ts TIMESTAMP NOT NULL,
    type VARCHAR NOT NULL, actor VARCHAR NOT NULL, body JSON NOT NULL
);
CREATE TABLE artifact (
    key UUID NOT NULL, digest VARCHAR NOT NULL, kind VARCHAR NOT NULL, size BIGINT NOT NULL,
    seq BIGINT NOT NULL
);
CREATE TABLE edge (
    child UUID NOT NULL, parent UUID NOT NULL, role VARCHAR NOT NULL, seq BIGINT NOT NULL,
    circumstance BOOLEAN NOT NULL
);
CREATE TABLE gate (
    seq BIGINT NOT NULL, subject UUID NOT NULL, gate VARCHAR NOT NULL, verdict VARCHAR NOT NULL,
    value DOUBLE, threshold VARCHAR, policy UUID NOT NULL, evidence UUID NOT NULL
);
CREATE TABLE cursor (seq BIGINT NOT NULL, hash VARCHAR NOT NULL, pos BIGINT NOT NULL);
CREATE TABLE layout (version INTEGER NOT NULL);

-- Current tags, one row a name.
CREATE VIEW tags AS
SELECT body->>'$.data.name' AS name, body->>'$.data.digest' AS digest, seq, ts
FROM event WHERE type = 'tag.moved'
QUALIFY row_number() OVER (PARTITION BY name ORDER BY seq DESC) = 1;

-- One row a digest and kind, however often it was published; name, form and run of the first.
CREATE VIEW artifacts AS
WITH publication AS (
    SELECT
        a.digest, a.kind, a.size, a.seq, e.ts,
        e.body->>'$.data.form' AS form,
        e.body->>'$.data.origin' AS origin,
        e.body->>'$.data.name' AS name,
        e.body->>'$.data.run' AS run,
        e.body->>'$.data.role' AS role
    FROM artifact a JOIN event e USING (seq)
)
SELECT
    p.digest, p.kind, any_value(p.size) AS size, arg_min(p.form, p.seq) AS form,
    coalesce(arg_min(p.origin, p.seq) FILTER (p.origin <> 'imported'), 'imported') AS origin,
    arg_min(p.name, p.seq) AS name, arg_min(p.run, p.seq) AS run, arg_min(p.role, p.seq) AS role,
    min(p.seq) AS seq, max(p.seq) AS latest_seq, count(*) AS publications, min(p.ts) AS ts,
    coalesce(any_value(t.names), []) AS tags
FROM publication p
LEFT JOIN (SELECT digest, list(name ORDER BY name) AS names FROM tags GROUP BY digest) t
    USING (digest)
GROUP BY p.digest, p.kind;

-- Arrows with whole digests, each once.
CREATE VIEW lineage AS
WITH named AS (SELECT key, any_value(digest) AS digest, min_by(kind, seq) AS kind FROM artifact GROUP BY key)
SELECT
    c.digest AS child, c.kind AS child_kind, e.role, p.digest AS parent, p.kind AS parent_kind,
    bool_and(e.circumstance) AS circumstance, min(e.seq) AS seq
FROM edge e JOIN named c ON c.key = e.child LEFT JOIN named p ON p.key = e.parent
GROUP BY ALL;

-- One row a run key, as it stands.
CREATE VIEW runs AS
WITH step AS (
    SELECT
        seq, ts, split_part(type, '.', 2) AS status, body->'$.data' AS data,
        body->>'$.data.run' AS run
    FROM event
    WHERE type IN ('run.started', 'run.succeeded', 'run.failed', 'run.abandoned')
)
SELECT
    run, arg_min(data->>'$.phase', seq) AS phase,
    arg_min((data->>'$.phase_version')::INTEGER, seq) FILTER (status = 'started') AS phase_version,
    arg_min(data->>'$.slot', seq) AS slot, arg_min(data->>'$.plan', seq) AS plan,
    arg_max(status, seq) AS status,
    arg_max((data->>'$.attempt')::INTEGER, seq) AS attempt,
    arg_max((data->>'$.seconds')::DOUBLE, seq) AS seconds,
    arg_max(data->>'$.code', seq) FILTER (status = 'failed') AS code,
    arg_max(data->>'$.message', seq) FILTER (status = 'failed') AS message,
    arg_max(ts, seq) FILTER (status = 'started') AS started,
    arg_max(seq, seq) FILTER (status = 'started') AS started_seq, max(seq) AS seq
FROM step GROUP BY run;

-- Which run fills which slot of which plan.
CREATE VIEW slots AS
SELECT
    body->>'$.data.plan' AS plan, body->>'$.data.slot' AS slot, body->>'$.data.phase' AS phase,
    body->>'$.data.run' AS run, type = 'run.reused' AS reused, seq
FROM event WHERE type IN ('run.succeeded', 'run.reused')
QUALIFY row_number() OVER (PARTITION BY plan, slot ORDER BY seq DESC) = 1;

CREATE VIEW waivers AS
SELECT
    seq, ts, body->>'$.data.gate' AS gate, body->>'$.data.subject' AS subject,
    body->>'$.data.author' AS author, body->>'$.data.reason' AS reason,
    body->>'$.data.until' AS until,
    (body->>'$.data.until')::TIMESTAMP > now() AT TIME ZONE 'UTC' AS active
FROM event WHERE type = 'gate.waived';

-- The latest verdict of each gate over each subject, evidence and policy.
CREATE VIEW gates AS
WITH latest AS (
    SELECT * FROM gate
    QUALIFY row_number() OVER (PARTITION BY gate, subject, evidence, policy ORDER BY seq DESC) = 1
)
SELECT
    g.gate, e.body->>'$.data.subject' AS subject, g.verdict, g.value, g.threshold,
    w.author AS waived_by, w.until AS waived_until,
    e.body->>'$.data.evidence' AS evidence, e.body->>'$.data.policy' AS policy, g.seq, e.ts
FROM latest g JOIN event e USING (seq)
LEFT JOIN (
    SELECT gate, subject, arg_max(author, seq) AS author, arg_max(until, seq) AS until
    FROM waivers WHERE active GROUP BY gate, subject
) w ON w.gate = g.gate AND w.subject = (e.body->>'$.data.subject');

-- Every check of every verdict.
CREATE VIEW checks AS
SELECT
    e.seq, e.body->>'$.data.gate' AS gate, e.body->>'$.data.subject' AS subject,
    c->>'$.metric' AS metric, c->>'$.verdict' AS verdict, (c->>'$.value')::DOUBLE AS value,
    c->>'$.op' AS op, (c->>'$.threshold')::DOUBLE AS threshold, (c->>'$.n')::BIGINT AS n,
    c->>'$.reason' AS reason
FROM event e, unnest((e.body->'$.data.checks')::JSON[]) AS u(c)
WHERE e.type = 'gate.evaluated';

-- Every measured number of every report, once.
CREATE VIEW metrics AS
SELECT
    e.body->>'$.data.digest' AS report, e.body->>'$.data.facts.phase' AS phase,
    e.body->>'$.data.facts.subject' AS subject, m->>'$.name' AS name,
    (m->>'$.value')::DOUBLE AS value, m->>'$.unit' AS unit, (m->>'$.n')::BIGINT AS n,
    (m->>'$.low')::DOUBLE AS low, (m->>'$.high')::DOUBLE AS high, min(e.seq) AS seq
FROM event e, unnest((e.body->'$.data.facts.metrics')::JSON[]) AS u(m)
WHERE e.type = 'artifact.published' AND (e.body->'$.data.facts.metrics') IS NOT NULL
GROUP BY ALL;

-- Files of release-bound artifacts.
CREATE VIEW files AS
SELECT
    e.body->>'$.data.digest' AS artifact, f->>'$.path' AS path, (f->>'$.size')::BIGINT AS size,
    f->>'$.digest' AS blake3, f->>'$.sha256' AS sha256, min(e.seq) AS seq
FROM event e, unnest((e.body->'$.data.files')::JSON[]) AS u(f)
WHERE e.type = 'artifact.published'
GROUP BY ALL;

CREATE VIEW plans AS
WITH request AS (
    SELECT body->>'$.data.plan' AS plan, max(seq) AS seq, count(*) AS requests, max(ts) AS ts
    FROM event WHERE type = 'plan.requested' GROUP BY plan
)
SELECT
    r.plan, any_value(e.body->>'$.data.facts.recipe.name') AS name,
    any_value(e.body->>'$.data.facts.recipe.tier') AS tier,
    any_value(e.body->>'$.data.facts.recipe.policy') AS policy,
    any_value(r.requests) AS requests, any_value(r.ts) AS ts, any_value(r.seq) AS seq
FROM request r
LEFT JOIN artifact a ON a.digest = r.plan AND a.kind = 'recipe'
LEFT JOIN event e ON e.seq = a.seq
GROUP BY r.plan;

CREATE VIEW releases AS
SELECT
    body->>'$.data.release' AS release, body->>'$.data.plan' AS plan, body->>'$.data.tier' AS tier,
    (body->>'$.data.depends_on')::BIGINT AS depends_on, seq, ts
FROM event WHERE type = 'release.cut';


-- name: add_events
INSERT INTO event
SELECT
    l.seq, l.hash, l.prev, l.ts::TIMESTAMP, l.type,
    concat(l.body->>'$.actor.user', '@', l.body->>'$.actor.host'), l.body
FROM (
    SELECT
        unnest($seq) AS seq, unnest($hash) AS hash, unnest($prev) AS prev, unnest($ts) AS ts,
        unnest($type) AS type, unnest($body)::JSON AS body
) AS l;

-- name: add_artifacts
-- Here and below: one from_json parses an event once, where each `->>` would parse it again.
INSERT INTO artifact
SELECT left(f.digest, 32)::UUID, f.digest, f.kind, f.size, seq
FROM (
    SELECT
        seq,
        from_json(body, '{"data": {"digest": "VARCHAR", "kind": "VARCHAR", "size": "BIGINT"}}').data AS f
    FROM event WHERE seq > $after AND type = 'artifact.published'
);

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
        FROM event WHERE seq > $after AND type = 'artifact.published'
    )
);

-- name: add_gates
-- value and threshold are those of the check that decided: the first with the gate's own verdict.
INSERT INTO gate
SELECT
    seq, left(f.subject, 32)::UUID, f.gate, f.verdict, c.value,
    c.op || ' ' || c.threshold, left(f.policy, 32)::UUID, left(f.evidence, 32)::UUID
FROM (
    SELECT seq, f, list_filter(f.checks, lambda c: c.verdict = f.verdict)[1] AS c
    FROM (
        SELECT
            seq,
            from_json(body, '{"data": {"gate": "VARCHAR", "subject": "VARCHAR",
                "evidence": "VARCHAR", "policy": "VARCHAR", "verdict": "VARCHAR", "checks": [
                {"verdict": "VARCHAR", "value": "DOUBLE", "op": "VARCHAR", "threshold": "VARCHAR"}
                ]}}').data AS f
        FROM event WHERE seq > $after AND type = 'gate.evaluated'
    )
);

-- name: forget_cursor
DELETE FROM cursor;

-- name: set_cursor
INSERT INTO cursor VALUES ($seq, $hash, $pos);

-- name: set_version
INSERT INTO layout VALUES ($version);

-- name: version
SELECT version FROM layout;

-- name: cursor
SELECT seq, hash, pos, (SELECT count(*) FROM event) AS events FROM cursor;


-- name: audit
-- Counts events of the projection that are not what the chain says. 0: intact.
SELECT count(*) FROM (SELECT *, lag(hash, 1, repeat('0', 64)) OVER (ORDER BY seq) AS lp FROM event)
WHERE hash <> sha256(body::VARCHAR) OR prev <> lp OR prev <> body->>'prev';

-- name: audit_log
-- The same over the ledger itself, with nothing but DuckDB and the file. 0: intact.
SELECT count(*) FROM (
    SELECT
        hash, body, row_number() OVER () AS line,
        lag(hash, 1, repeat('0', 64)) OVER () AS lp
    FROM read_csv(
        'events.log', delim = '\t', header = false, quote = '', escape = '', auto_detect = false,
        max_line_size = 1048576, columns = {'hash': 'VARCHAR', 'body': 'VARCHAR'}
    )
)
WHERE hash IS DISTINCT FROM sha256(body) OR (body->>'prev') IS DISTINCT FROM lp
    OR (body->>'seq')::BIGINT IS DISTINCT FROM line;


-- name: edges_above
-- Every arrow between an artifact and what shaped it, however far. UNION drops what was reached
-- before, so a cycle ends. (USING KEY would give the depth, but took 70 times as long.)
WITH RECURSIVE reached(key) AS (
    SELECT left($root, 32)::UUID
    UNION
    SELECT e.parent FROM reached JOIN edge e ON e.child = reached.key
),
named AS (
    SELECT a.key, any_value(a.digest) AS digest, min_by(a.kind, a.seq) AS kind
    FROM artifact a SEMI JOIN reached USING (key) GROUP BY a.key
)
SELECT DISTINCT c.digest, p.digest, p.kind, e.role, e.circumstance
FROM edge e JOIN named c ON c.key = e.child JOIN named p ON p.key = e.parent
ORDER BY ALL;

-- name: edges_below
WITH RECURSIVE reached(key) AS (
    SELECT left($root, 32)::UUID
    UNION
    SELECT e.child FROM reached JOIN edge e ON e.parent = reached.key
),
named AS (
    SELECT a.key, any_value(a.digest) AS digest, min_by(a.kind, a.seq) AS kind
    FROM artifact a SEMI JOIN reached USING (key) GROUP BY a.key
)
SELECT DISTINCT p.digest, c.digest, c.kind, e.role, e.circumstance
FROM edge e JOIN named c ON c.key = e.child JOIN named p ON p.key = e.parent
ORDER BY ALL;


-- name: release_artifacts
-- The roots and all that shaped them; of several publications the first by a run or probe counts.
WITH RECURSIVE reached(key) AS (
    SELECT DISTINCT left(root, 32)::UUID FROM (SELECT unnest($roots) AS root)
    UNION
    SELECT e.parent FROM reached JOIN edge e ON e.child = reached.key
),
publication AS (
    SELECT
        a.digest, a.kind, a.size, a.seq, e.body->>'$.data.origin' AS origin,
        e.body->>'$.data.role' AS role, e.body->>'$.data.name' AS name,
        e.body->>'$.data.run' AS run, e.body->>'$.data.facts' AS facts
    FROM artifact a SEMI JOIN reached USING (key) JOIN event e ON e.seq = a.seq
)
SELECT digest, kind, size, origin, role, name, seq, run, facts FROM publication
QUALIFY row_number() OVER (PARTITION BY digest, kind ORDER BY origin = 'imported', seq) = 1
ORDER BY seq, digest;

-- name: release_runs
-- Some runs: what the attempt that succeeded was started with, and what it made.
WITH ended AS (
    SELECT body->>'$.data.run' AS run, seq, body->>'$.data.outputs' AS outputs
    FROM event WHERE type = 'run.succeeded'
    QUALIFY row_number() OVER (PARTITION BY run ORDER BY seq) = 1
),
started AS (
    SELECT body->>'$.data.run' AS run, seq, body->>'$.data' AS data
    FROM event WHERE type = 'run.started'
)
SELECT e.run, e.seq, arg_max(s.data, s.seq) AS started, any_value(e.outputs) AS outputs
FROM ended e JOIN started s ON s.run = e.run AND s.seq < e.seq
WHERE e.run IN (SELECT unnest($runs))
GROUP BY e.run, e.seq ORDER BY e.seq;

-- name: release_failures
-- Slots of a plan that nothing fills, and why their last attempt did not.
SELECT slot, arg_max(message, seq) AS message, max(seq) AS seq
FROM (
    SELECT
        seq, body->>'$.data.slot' AS slot,
        coalesce(body->>'$.data.message', body->>'$.data.reason') AS message
    FROM event
    WHERE type IN ('run.failed', 'run.abandoned') AND (body->>'$.data.plan') = $plan
)
WHERE slot NOT IN (SELECT slot FROM slots WHERE plan = $plan)
GROUP BY slot ORDER BY slot;

-- name: gate_events
-- Some verdicts and waivers, whole.
SELECT seq, body FROM event
WHERE type IN ('gate.evaluated', 'gate.waived') AND seq IN (SELECT unnest($seqs)) ORDER BY seq;

-- name: event_hash
SELECT hash FROM event WHERE seq = $seq;
