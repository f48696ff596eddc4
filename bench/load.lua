-- What wrk asks: method, path and body are arguments, names and values of headers come behind them. A request is put together once, so
-- that wrk takes little of the processor from what is measured.
local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
end

function init(args)
  wrk.method, wrk.path = args[1], args[2]
  wrk.body = args[3] ~= "" and args[3] or nil
  for at = 4, #args, 2 do wrk.headers[args[at]] = args[at + 1] end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"microseconds":%d,"p50":%f,"p99":%f,"status":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
