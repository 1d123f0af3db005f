-- A record: all limits of one key, packed. Its first byte is the format's version.
--   seen    the latest time that it was written at
--   last    the furthest that any limit ever was ahead: until then it must be kept
--   limits  name, level, mark, used, ...: all but slots. See `State` and `Kind` in rules/mod.rs
--   slots   id, holder, count, expiry, ...
--   marks   writer, sequence number, expiry, ...: which settlements were applied
-- Times are ticks of 1/16 microsecond since 2024, below 2^53, so that doubles hold them exactly.

local VERSION = 2
local EPOCH = 1704067200
local LATEST = 9007199254740991
local GRAIN = 1024
local LATEST_GRAIN = LATEST - LATEST % GRAIN
local MOST = 2199023255551
local SHIFT_MODULUS = 4503599627370496
local TICKS_IN_MS = 16000
local MARGIN_MS = 1000

-- The rules. A limit's name is its id, and the rule above it.
local RATE, SLOTS, CALENDAR, SLIDING = 0, 1, 2, 3
local RULE = 4294967296

local function clock()
  local time = redis.call('TIME')
  return math.max(0, ((time[1] - EPOCH) * 1000000 + time[2]) * 16)
end

-- What a clock that went back must not change: how far ahead each limit is.
local function move_back(record, by)
  local limits = record.limits
  for i = 1, #limits, 4 do
    limits[i + 1] = math.max(0, limits[i + 1] - by)
    if limits[i] < RULE then limits[i + 2] = (limits[i + 2] + by) % SHIFT_MODULUS end
  end
  for i = 4, #record.slots, 4 do record.slots[i] = record.slots[i] - by end
  for i = 3, #record.marks, 3 do record.marks[i] = record.marks[i] - by end
  record.last = math.max(0, record.last - by)
end

local function read(key, now)
  local packed = redis.call('GET', key)
  if not packed then return {last = 0, limits = {}, slots = {}, marks = {}} end
  if string.byte(packed) ~= VERSION then error('palisade: a record of another version') end
  local record = {}
  local version, seen
  version, seen, record.last, record.limits, record.slots, record.marks = cmsgpack.unpack(packed)
  if seen > now then move_back(record, seen - now) end
  return record
end

-- The list without the entries of `width` that are in `gone`, or the list itself.
local function without(list, width, gone)
  if not gone then return list end
  local result = {}
  for i = 1, #list, width do
    if not gone[i] then
      for j = i, i + width - 1 do result[#result + 1] = list[j] end
    end
  end
  return result
end

-- Writes what is not idle, to be gone when it is.
local function write(key, record, now)
  local limits, slots, marks, ends = record.limits, record.slots, record.marks, record.last
  local gone
  if ends <= now then
    limits = {}
  else
    for i = 1, #limits, 4 do
      if limits[i + 1] <= now and (limits[i] >= RULE or limits[i + 2] == 0) then
        gone = gone or {}
        gone[i] = true
      end
    end
    limits = without(limits, 4, gone)
  end
  gone = nil
  for i = 1, #slots, 4 do
    if slots[i + 2] > 0 and slots[i + 3] > now then
      if slots[i + 3] > ends then ends = slots[i + 3] end
    else
      gone = gone or {}
      gone[i] = true
    end
  end
  slots = without(slots, 4, gone)
  if ends <= now then
    redis.call('DEL', key)
    return
  end
  gone = nil
  for i = 1, #marks, 3 do
    if marks[i + 2] <= now then
      gone = gone or {}
      gone[i] = true
    end
  end
  marks = without(marks, 3, gone)
  local packed = cmsgpack.pack(VERSION, now, record.last, limits, slots, marks)
  local ttl = math.ceil((ends - now) / TICKS_IN_MS) + MARGIN_MS
  redis.call('SET', key, packed, 'PX', string.format('%.0f', ttl))
end

-- Where the limit of `name` stands in the list, or where it would be added.
local function limit_at(record, name)
  for i = 1, #record.limits, 4 do
    if record.limits[i] == name then return i end
  end
  return #record.limits + 1
end

local function state_of(record, name)
  local at, limits = limit_at(record, name), record.limits
  return limits[at + 1] or 0, limits[at + 2] or 0, limits[at + 3] or 0
end

local function set_state(record, name, level, mark, used)
  local at, limits = limit_at(record, name), record.limits
  limits[at], limits[at + 1], limits[at + 2], limits[at + 3] = name, level, mark, used
  record.last = math.max(record.last, level)
end

-- The period that counts now, as in rules/calendar.rs.
local function see_period(level, mark, used, number, kept_for, now)
  local ends = now + kept_for
  ends = math.min(ends - ends % GRAIN + GRAIN, LATEST_GRAIN)
  if level <= now or mark < number then return ends, number, 0 end
  if mark == number then return math.max(level, ends), mark, used end
  return level, mark, used
end

-- The windows that count now, and the end of this one, as in rules/sliding.rs.
local function see_windows(level, mark, used, window, now)
  local over = level % window
  local start = math.max(now - now % window, level - over + (over > 0 and window or 0) - 2 * window)
  local last = math.min(start + 2 * window, LATEST_GRAIN)
  if level <= now then
    mark, used = 0, 0
  elseif level <= start + window then
    mark, used = used, 0
  end
  return last, mark, used, start + window
end

-- Where the slots of `id` that `holder` holds stand, or where they would be added.
local function slots_at(record, id, holder)
  for i = 1, #record.slots, 4 do
    if record.slots[i] == id and record.slots[i + 1] == holder then return i end
  end
  return #record.slots + 1
end
