-- A ban that was lifted stays as a row: whoever saw the same attack, and was about to write the same ban, is not heard.
alter table ntier.bans add column if not exists lifted_at timestamptz;
