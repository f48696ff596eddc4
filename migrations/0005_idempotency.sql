-- What was answered to writes that came with an Idempotency-Key, so that the same request sent again has no second effect. A row is
-- written in the transaction of the write itself; it is kept for a day.
create table if not exists ntier.idempotency_keys (
  -- Role and subject: a key is its caller's own.
  caller text not null,
  key text not null,
  -- SHA-256 of the request: another request with the same key is a mistake.
  fingerprint text not null,
  -- What the write gave; null only within its transaction.
  answer json,
  created_at timestamptz not null default now(),
  primary key (caller, key)
);
create index if not exists idempotency_keys_created_at on ntier.idempotency_keys (created_at);
