-- A loader with a constant rate: wrk -s openloop.lua URL -- BYTES RATE SECONDS CONNECTIONS SEED
--
-- Arrivals are drawn once from a seeded Poisson process and never wait for answers: each takes a
-- free connection, and one that finds none free waits for one while its clock runs. A latency runs
-- from the sending of the request to the moment at which the kernel received the answer
-- (SO_TIMESTAMPNS), so a loader that is busy does not add to it; how late it sent is printed too.
-- wrk only lends its LuaJIT: everything happens in init(), before wrk's own threads start. The loop
-- spins, at the scheduling class SCHED_IDLE: the origin, on the same core, always goes first (as
-- equals they made each other wait for milliseconds).

local ffi = require("ffi")
local C = ffi.C

ffi.cdef(string.format([[
  struct address { uint16_t family, port; uint8_t ip[4], zero[8]; };
  struct event { uint32_t events; int32_t fd; uint32_t unused; } %s;
  struct moment { int64_t sec, nsec; };
  struct priority { int value; };
  struct piece { void *base; size_t length; };
  struct stamp { size_t length; int level, type; struct moment at; };
  struct message {
    void *name; unsigned name_length; struct piece *pieces; size_t count;
    void *control; size_t control_length; int flags;
  };
  int socket(int, int, int);
  int connect(int, const struct address *, unsigned);
  int setsockopt(int, int, int, const void *, unsigned);
  int fcntl(int, int, ...);
  long send(int, const void *, size_t, int);
  long recvmsg(int, struct message *, int);
  int epoll_create1(int);
  int epoll_ctl(int, int, int, struct event *);
  int epoll_wait(int, struct event *, int, int);
  int clock_gettime(int, struct moment *);
  int sched_setscheduler(int, int, const struct priority *);
]], ffi.arch == "x64" and "__attribute__((packed))" or ""))

local SIZE = 65536
local buffer = ffi.new("uint8_t[?]", SIZE)
local moment = ffi.new("struct moment")
local piece = ffi.new("struct piece", { buffer, SIZE })
local stamp = ffi.new("struct stamp")
local message = ffi.new("struct message")
message.count = 1
C.clock_gettime(0, moment)
local epoch = moment.sec -- times are counted from here, so that a double holds the nanoseconds
local errors = { connect = 0, read = 0, write = 0, status = 0, timeout = 0 }

local function nanoseconds(at)
  return tonumber(at.sec - epoch) * 1e9 + tonumber(at.nsec)
end

local function now()
  C.clock_gettime(0, moment)
  return nanoseconds(moment)
end

-- Reads into `buffer`; returns how much, and sets `stamp` to when it came.
local function read(fd)
  -- Named here, and not once above, so that the collector sees that they are still in use.
  message.pieces, message.control, message.control_length = piece, stamp, ffi.sizeof(stamp)
  return tonumber(C.recvmsg(fd, message, 0))
end

local function octets(ip)
  return { ip:match("(%d+)%.(%d+)%.(%d+)%.(%d+)") }
end

-- One blocking connection with TCP_NODELAY and SO_TIMESTAMPNS.
local function open(ip, port)
  local fd = C.socket(2, 1, 0)
  local address = ffi.new("struct address", { family = 2 })
  address.port = bit.bor(bit.lshift(bit.band(port, 255), 8), bit.rshift(port, 8))
  for i, octet in ipairs(octets(ip)) do
    address.ip[i - 1] = tonumber(octet)
  end
  if C.connect(fd, address, 16) ~= 0 then
    errors.connect = errors.connect + 1
  end
  C.setsockopt(fd, 6, 1, ffi.new("int[1]", 1), 4)
  C.setsockopt(fd, 1, 35, ffi.new("int[1]", 1), 4)
  return fd
end

-- Whether what was just read ends the answer: bodies end in LF, heads in CR LF.
local function ends(count)
  return buffer[count - 1] == 10 and buffer[count - 2] ~= 13
end

-- Whether what was just read begins an answer ("H") that is not 200.
local function refuses()
  return buffer[0] == 72 and not (buffer[9] == 50 and buffer[10] == 48 and buffer[11] == 48)
end

-- Due times in nanoseconds from the start.
local function schedule(rate, seconds, seed)
  math.randomseed(seed)
  local due, count, at = {}, 0, 0
  while at < seconds * 1e9 do
    count = count + 1
    due[count] = at
    at = at - math.log(1 - math.random()) * 1e9 / rate
  end
  return due, count
end

-- All connections, each of which has made one request, and an epoll that watches them.
local function crowd(count, ask, port)
  local poll, fds = C.epoll_create1(0), {}
  for i = 1, count do
    local fd = open(wrk.host, port)
    C.send(fd, ask, #ask, 0)
    repeat
      local got = read(fd)
      if got <= 0 then
        errors.read = errors.read + 1
        return poll, fds
      end
    until ends(got)
    C.fcntl(fd, 4, ffi.cast("int", 2048)) -- F_SETFL, O_NONBLOCK
    local event = ffi.new("struct event", { events = 1, fd = fd })
    C.epoll_ctl(poll, 1, fd, event)
    fds[i] = fd
  end
  return poll, fds
end

-- Sends request k at due[k]; returns the latencies and how late each request was sent.
local function run(due, total, poll, fds, ask)
  local free, first, last = ffi.new("int[?]", total + #fds), 0, #fds -- a queue in one long row
  for i, fd in ipairs(fds) do
    free[i - 1] = fd
  end
  local sent, latencies, late = ffi.new("double[?]", 65536), {}, {}
  local events = ffi.new("struct event[256]")
  local following, done, starved, length = 1, 0, false, #ask
  local start = now()
  local deadline = start + due[total] + 5e9
  while done < total do
    local at = now()
    if at > deadline then
      errors.timeout = errors.timeout + total - done
      break
    end
    while following <= total and start + due[following] <= at do
      if first == last then
        starved = true
        break
      end
      local fd = free[first]
      first = first + 1
      at = now()
      -- A request that was kept waiting by slow answers pays for its wait.
      sent[fd] = starved and start + due[following] or at
      late[following] = at - start - due[following]
      if C.send(fd, ask, length, 0) ~= length then
        errors.write = errors.write + 1
        return latencies, late
      end
      following = following + 1
    end
    starved = starved and first == last
    for i = 0, C.epoll_wait(poll, events, 256, 0) - 1 do
      local fd = events[i].fd
      local got = read(fd)
      if got <= 0 or refuses() then
        local kind = got <= 0 and "read" or "status"
        errors[kind] = errors[kind] + 1
        return latencies, late
      elseif ends(got) then
        done = done + 1
        latencies[done] = nanoseconds(stamp.at) - sent[fd]
        free[last] = fd
        last = last + 1
      end
    end
  end
  return latencies, late
end

-- In microseconds.
local function percentile(ordered, share)
  return (ordered[math.min(#ordered, math.floor(#ordered * share) + 1)] or 0) / 1000
end

function init(args)
  local size, rate, seconds, connections, seed = unpack(args)
  local ask = "GET " .. wrk.path .. " HTTP/1.1\r\nHost: " .. wrk.host .. "\r\n\r\n"
  local due, total = schedule(tonumber(rate), tonumber(seconds), tonumber(seed))
  local poll, fds = crowd(tonumber(connections), ask, tonumber(wrk.port))
  C.sched_setscheduler(0, 5, ffi.new("struct priority"))
  local began = now()
  local latencies, late = run(due, total, poll, fds, ask)
  local took = now() - began
  table.sort(latencies)
  table.sort(late)
  io.write(string.format(
    'RESULT {"requests":%d,"bytes":%d,"duration_us":%d,"p50":%.1f,"p99":%.1f,"p999":%.1f,' ..
    '"max":%.1f,"late_p99":%.1f,"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,' ..
    '"timeout":%d}}\n',
    #latencies, #latencies * size, took / 1000,
    percentile(latencies, 0.5), percentile(latencies, 0.99), percentile(latencies, 0.999),
    percentile(latencies, 1), percentile(late, 0.99),
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
  os.exit(0)
end
