-- Goes behind load.lua where {id} in the path stands for a number that differs each time. Where this is absent wrk repeats one request.
local before, after

function request()
  if not before then
    math.randomseed(number)
    local whole = wrk.format()
    local from, to = whole:find("{id}", 1, true)
    before, after = whole:sub(1, from - 1), whole:sub(to + 1)
  end
  return before .. math.random(1, 10000) .. after
end
