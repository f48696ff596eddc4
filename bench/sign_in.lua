-- Behind people.lua: they sign in, one after the other.
local at = 0

function begin() end

function request()
  at = at % #mine + 1
  from_somewhere()
  return wrk.format(nil, nil, nil, string.format('{"email":"%s","password":"%s"}', mine[at].email, password))
end

function response(status)
  count(status)
end
