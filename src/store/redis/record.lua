-- A record: all limits of one key, packed. Its first byte is the format's version.
--   seen    the latest time that it was written at
--   last    the furthest that any rate ever was ahead: until then it must be kept
--   rates   id, tat, shift, ...
--   slots   id, holder, count, expiry, ...
--   marks   writer, sequence number, expiry, ...: which settlements were applied
-- Times are ticks of 1/16 microsecond since 2024, below 2^53, so that doubles hold them exactly.

local VERSION = 1
local EPOCH = 1704067200
local LATEST = 9007199254740991
local SHIFT_MODULUS = 4503599627370496
local TICKS_IN_MS = 16000
local MARGIN_MS = 1000

local function clock()
  local time = redis.call('TIME')
  return math.max(0, ((time[1] - EPOCH) * 1000000 + time[2]) * 16)
end

-- What a clock that went back must not change: how far ahead each limit is.
local function move_back(record, by)
  for i = 1, #record.rates, 3 do
    record.rates[i + 1] = math.max(0, record.rates[i + 1] - by)
    record.rates[i + 2] = (record.rates[i + 2] + by) % SHIFT_MODULUS
  end
  for i = 4, #record.slots, 4 do record.slots[i] = record.slots[i] - by end
  for i = 3, #record.marks, 3 do record.marks[i] = record.marks[i] - by end
  record.last = math.max(0, record.last - by)
end

local function read(key, now)
  local packed = redis.call('GET', key)
  if not packed then return {last = 0, rates = {}, slots = {}, marks = {}} end
  if string.byte(packed) ~= VERSION then error('palisade: a record of another version') end
  local record = {}
  local version, seen
  version, seen, record.last, record.rates, record.slots, record.marks = cmsgpack.unpack(packed)
  if seen > now then move_back(record, seen - now) end
  return record
end

-- The entries of `width` that `keep` says to keep.
local function kept(list, width, keep)
  local result = {}
  for i = 1, #list, width do
    if keep(i) then
      for j = i, i + width - 1 do result[#result + 1] = list[j] end
    end
  end
  return result
end

-- Writes what is not idle, to be gone when it is.
local function write(key, record, now)
  local idle = record.last <= now
  local rates = kept(record.rates, 3, function(i)
    return not idle and (record.rates[i + 1] > now or record.rates[i + 2] > 0)
  end)
  local ends = record.last
  local slots = kept(record.slots, 4, function(i)
    local live = record.slots[i + 2] > 0 and record.slots[i + 3] > now
    if live then ends = math.max(ends, record.slots[i + 3]) end
    return live
  end)
  local marks = kept(record.marks, 3, function(i) return record.marks[i + 2] > now end)
  if ends <= now then
    redis.call('DEL', key)
    return
  end
  local packed = cmsgpack.pack(VERSION, now, record.last, rates, slots, marks)
  local ttl = math.ceil((ends - now) / TICKS_IN_MS) + MARGIN_MS
  redis.call('SET', key, packed, 'PX', string.format('%.0f', ttl))
end

-- Where the rate of `id` stands in the list, or where it would be added.
local function rate_at(record, id)
  for i = 1, #record.rates, 3 do
    if record.rates[i] == id then return i end
  end
  return #record.rates + 1
end

-- Where the slots of `id` that `holder` holds stand, or where they would be added.
local function slots_at(record, id, holder)
  for i = 1, #record.slots, 4 do
    if record.slots[i] == id and record.slots[i + 1] == holder then return i end
  end
  return #record.slots + 1
end
