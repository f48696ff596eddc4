-- Requests of many people to sign-in. Goes behind load.lua; before it comes the table `people`, and behind it one of sign_in.lua,
-- refresh.lua and user.lua, which say what a request is. Each thread has every second of the people, and each request an address of its
-- own, as the proxy in front would tell it: limits count by address. 198.18.0.0/15 is set aside for measurements (RFC 2544).
local crew = {}
local load_setup, load_init, load_done = setup, init, done
local asked = 0
mine, answers, tokens = {}, {}, {}

function setup(thread)
  load_setup(thread)
  crew[#crew + 1] = thread
end

function init(args)
  load_init(args)
  for at = number, #people, 2 do mine[#mine + 1] = people[at] end
  begin()
end

function from_somewhere()
  asked = asked + 1
  local place = (2 * asked + number) % 16384
  wrk.headers["X-Forwarded-For"] = string.format("198.18.%d.%d", math.floor(place / 256), place % 256)
end

function count(status)
  answers[status] = (answers[status] or 0) + 1
end

function done(summary, latency)
  load_done(summary, latency)
  local all = {}
  for _, thread in ipairs(crew) do
    for status, times in pairs(thread:get("answers")) do all[status] = (all[status] or 0) + times end
    for id, token in pairs(thread:get("tokens")) do io.write(string.format("TOKEN %s %s\n", id, token)) end
  end
  for status, times in pairs(all) do io.write(string.format("ANSWERS %d %d\n", status, times)) end
end
