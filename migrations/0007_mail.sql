-- E-mails on their way. They are written in the transaction of what they are about, so that none is lost and none is sent for what
-- has not happened; whoever delivers them marks them.
create table if not exists ntier.mail (
  id bigint generated always as identity primary key,
  recipient text not null,
  -- What it is about: confirmation, recovery, magic_link, invite, email_change.
  kind text not null,
  subject text not null,
  plain text not null,
  html text not null,
  created_at timestamptz not null default now(),
  -- Delivered, or shown in the inbox of `ntier dev`.
  sent_at timestamptz,
  attempts int not null default 0,
  next_attempt_at timestamptz not null default now(),
  last_error text
);
create index if not exists mail_waiting on ntier.mail (next_attempt_at) where sent_at is null;

-- A link's token is looked for by its hash; digits alone are found with their address only.
create unique index if not exists confirmation_token_idx on auth.users (confirmation_token) where confirmation_token !~ '^[0-9 ]*$';
create unique index if not exists recovery_token_idx on auth.users (recovery_token) where recovery_token !~ '^[0-9 ]*$';
create unique index if not exists email_change_token_current_idx on auth.users (email_change_token_current) where email_change_token_current !~ '^[0-9 ]*$';
create unique index if not exists email_change_token_new_idx on auth.users (email_change_token_new) where email_change_token_new !~ '^[0-9 ]*$';
