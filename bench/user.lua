-- Behind people.lua: they ask who they are. The requests are put together once; these are not limited, and have no address of their own.
local requests, at = {}, 0

function begin()
  for _, who in ipairs(mine) do
    wrk.headers.authorization = "Bearer " .. who.access
    requests[#requests + 1] = wrk.format()
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end
