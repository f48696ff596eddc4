-- Behind people.lua: each session refreshes with the latest token that it has, and is not asked again before that is answered.
local resting = {}

function begin()
  for _, who in ipairs(mine) do
    tokens[who.id] = who.refresh
    resting[#resting + 1] = who.id
  end
end

function request()
  -- wrk makes one request that it never sends, and does not tell whose a refusal was: then there are fewer.
  local id = table.remove(resting, 1) or mine[math.random(#mine)].id
  from_somewhere()
  return wrk.format(nil, nil, nil, string.format('{"refresh_token":"%s"}', tokens[id]))
end

function response(status, headers, body)
  count(status)
  local id, token = body:match('"user":{"id":"([^"]+)"'), body:match('"refresh_token":"([^"]+)"')
  if id and token then
    tokens[id] = token
    resting[#resting + 1] = id
  end
end
