-- Messages to phones go the way of e-mails: `sms` and `whatsapp` beside `email`.
alter table ntier.mail add column if not exists channel text not null default 'email';

-- A user is found by the number that is to be the next one.
create index if not exists users_phone_change_idx on auth.users (phone_change) where phone_change <> '';
