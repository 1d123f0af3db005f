-- A record: all limits of one key, packed.
--   head    the format's version and how many rates there are, a byte each; then, as doubles:
--     seen  the latest time that it was written at
--     last  the furthest that any limit ever was ahead: until then it must be kept
--     kept  until when its slots last
--   rates   the ids of all, then the levels of all, then the marks of all
--   rest    most often nothing; else, by MessagePack:
--     limits  name, level, mark, used, ...: the others but slots. See `State` and `Kind` in rules/mod.rs
--     slots   id, holder, count, expiry, ...
--     marks   writer, sequence number, expiry, ...: which settlements were applied
-- Times are ticks of 1/16 microsecond since 2024, below 2^53, so that doubles hold them exactly.

local VERSION = 3
-- Of it, all stands by MessagePack: version, seen, last, limits and the rates among them, slots, marks.
local OLD_VERSION = 2
local HEAD = '<BBddd'
local HEAD_SIZE = 26
local MOST_RATES = 64
-- A rate stays in a record of so many limits though it is idle.
local FEW = 16
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
  local record, version, seen = {}, string.byte(packed), nil
  if version == VERSION then
    local count, kept
    version, count, seen, record.last, kept = struct.unpack(HEAD, packed)
    local rest = string.sub(packed, HEAD_SIZE + 20 * count + 1)
    if rest == '' then
      record.limits, record.slots, record.marks = {}, {}, {}
    else
      record.limits, record.slots, record.marks = cmsgpack.unpack(rest)
    end
    local limits = record.limits
    local last = #limits
    local format = '<' .. string.rep('I4', count) .. string.rep('d', 2 * count)
    local rates = {struct.unpack(format, packed, HEAD_SIZE + 1)}
    for i = 1, count do
      limits[last + 1], limits[last + 2] = rates[i], rates[count + i]
      limits[last + 3], limits[last + 4] = rates[2 * count + i], 0
      last = last + 4
    end
  elseif version == OLD_VERSION then
    version, seen, record.last, record.limits, record.slots, record.marks = cmsgpack.unpack(packed)
  else
    error('palisade: a record of another version')
  end
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

-- Writes what is not idle, to be gone when it is. Idle rates stay where they are, as long as they are few: that they stand
-- together as they are asked for is what `decide_rates` in acquire.lua needs.
local function write(key, record, now)
  local limits, slots, marks = record.limits, record.slots, record.marks
  local gone, kept = nil, 0
  for i = 1, #slots, 4 do
    if slots[i + 2] > 0 and slots[i + 3] > now then
      if slots[i + 3] > kept then kept = slots[i + 3] end
    else
      gone = gone or {}
      gone[i] = true
    end
  end
  slots = without(slots, 4, gone)
  local ends = math.max(record.last, kept)
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
  local ids, levels, shifts, others, count = {}, {}, {}, {}, 0
  if record.last <= now then limits = {} end
  for i = 1, #limits, 4 do
    local name, level, mark = limits[i], limits[i + 1], limits[i + 2]
    if level <= now and (name >= RULE or mark == 0 and #limits > 4 * FEW) then
      -- Idle.
    elseif name < RULE and count < MOST_RATES then
      count = count + 1
      ids[count], levels[count], shifts[count] = name, level, mark
    else
      local last = #others
      others[last + 1], others[last + 2], others[last + 3], others[last + 4] = name, level, mark, limits[i + 3]
    end
  end
  local packed = struct.pack(HEAD, VERSION, count, now, record.last, kept)
  if count > 0 then
    local doubles = '<' .. string.rep('d', count)
    packed = packed .. struct.pack('<' .. string.rep('I4', count), unpack(ids))
      .. struct.pack(doubles, unpack(levels)) .. struct.pack(doubles, unpack(shifts))
  end
  if #others + #slots + #marks > 0 then packed = packed .. cmsgpack.pack(others, slots, marks) end
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
