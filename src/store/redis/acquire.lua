-- Decides admissions, each by itself: charges all of it or nothing, or only looks.
-- ARGV: the lease of slots in ticks; then each admission, packed:
--   the number of its records, which are the next of the KEYS; the number of its charges; whether to take; whether all are
--   rates of one record: a byte each
--   of each charge its limit's id
--   of each what it asks and the room for it
--   of each its rule and the number of its record, a byte each, and what else the rule needs
--   the holder of slots
-- Answers one as it is, several in a list, each with the error that it met, or packed: whether it fits, the time, and of the limits, before
-- the charge or after it, all levels, then all marks, then all units used, which are left out where all are rates of one record.

local call, byte, sub = redis.call, string.byte, string.sub
local pack, unpacked = struct.pack, struct.unpack
local now = clock()
local lease = tonumber(ARGV[1])
local REFUSED, ADMITTED = pack('<Bd', 0, now), pack('<Bd', 1, now)
-- Eight charges are the most.
local DOUBLES = '<dddddddd'
local ASK_HEAD = 4

-- Decides on rates that stand together in their record, as most often they do, and leaves all else of it as it is. Nothing is
-- returned, or changed, where they do not.
local levels = {}
local function decide_rates(ask, key)
  local keys, count, take = byte(ask, 1, 3)
  local asked_at = ASK_HEAD + 4 * count + 1
  local ids = sub(ask, ASK_HEAD + 1, asked_at - 1)
  local packed = call('GET', key)
  if not packed then packed = pack(HEAD, VERSION, count, now, 0, 0) .. ids .. string.rep('\0', 16 * count) end
  if byte(packed) ~= VERSION then return nil end
  local version, rates, seen, last, kept = unpacked(HEAD, packed)
  local place = string.find(packed, ids, HEAD_SIZE + 1, true)
  if seen > now or not place then return nil end
  place = (place - HEAD_SIZE - 1) / 4
  if place % 1 > 0 or place + count > rates then return nil end
  local levels_at = HEAD_SIZE + 4 * rates + 8 * place + 1
  local fits, changes, at = true, false, levels_at
  for i = 1, count do
    local level, step, room
    level, at = unpacked('<d', packed, at)
    step, room, asked_at = unpacked('<dd', ask, asked_at)
    local from = level < now and now or level
    if from - now + step > room then fits = false end
    if step > 0 then
      changes, level = true, from + step
      if level > LATEST then level = LATEST end
      if level > last then last = level end
    end
    levels[i] = level
  end
  local marks_at = levels_at + 8 * rates
  local marks = sub(packed, marks_at, marks_at + 8 * count - 1)
  if not (fits and changes and take == 1) then
    return (fits and ADMITTED or REFUSED) .. sub(packed, levels_at, at - 1) .. marks
  end
  local new = pack(sub(DOUBLES, 1, count + 1), unpack(levels, 1, count))
  local ttl = math.ceil(((kept > last and kept or last) - now) / TICKS_IN_MS) + MARGIN_MS
  local head = pack(HEAD, VERSION, rates, now, last, kept)
  packed = head .. sub(packed, HEAD_SIZE + 1, levels_at - 1) .. new .. sub(packed, at)
  call('SET', key, packed, 'PX', string.format('%.0f', ttl))
  return ADMITTED .. new .. marks
end

-- Decides on all there may be. Its records are the KEYS after the `first`.
local function decide(ask, first)
  local keys, count, take = byte(ask, 1, 3)
  local holder = sub(ask, -8)
  local records = {}
  for i = 1, keys do records[i] = read(KEYS[first + i], now) end
  -- Of each limit before and after the charge: all levels, then all marks, then all units used.
  local before, after, asked = {}, {}, {}
  local fits, id_at, asked_at = true, ASK_HEAD + 1, ASK_HEAD + 4 * count + 1
  local at = asked_at + 16 * count
  for i = 1, count do
    local id, step, room, rule, number
    id, id_at = unpacked('<I4', ask, id_at)
    step, room, asked_at = unpacked('<dd', ask, asked_at)
    rule, number, at = unpacked('<BB', ask, at)
    local record = records[number]
    local level, mark, used, taken, place = 0, 0, 0, 0, 0
    if rule == SLOTS then
      local list = record.slots
      for i = 1, #list, 4 do
        if list[i] == id and list[i + 3] > now then level = level + list[i + 2] end
      end
      taken = level
    else
      local limits, name = record.limits, rule * RULE + id
      -- Most often in the order in which they were written.
      place = record.next or 1
      if limits[place] ~= name then place = limit_at(record, name) end
      record.next = place + 4
      level, mark, used = limits[place + 1] or 0, limits[place + 2] or 0, limits[place + 3] or 0
    end
    local marks, units = count + i, 2 * count + i
    before[i], before[marks], before[units] = level, mark, used
    if rule == RATE then
      if level < now then level = now end
      taken = level - now
    elseif rule == CALENDAR then
      local period, kept_for
      period, kept_for, at = unpacked('<dd', ask, at)
      level, mark, used = see_period(level, mark, used, period, kept_for, now)
      taken = used
    elseif rule == SLIDING then
      local window, part, parts, window_end
      window, part, parts, at = unpacked('<ddd', ask, at)
      level, mark, used, window_end = see_windows(level, mark, used, window, now)
      local rest = math.min(math.ceil(math.min(window_end - now, window) / part), parts)
      local low = mark % parts
      taken = used + (mark - low) / parts * rest + math.ceil(low * rest / parts)
    end
    if taken + step > room then fits = false end
    if step == 0 then
      level, mark, used = before[i], before[marks], before[units]
    elseif rule == RATE or rule == SLOTS then
      level = math.min(level + step, LATEST)
    else
      used = math.min(used + step, MOST)
    end
    after[i], after[marks], after[units] = level, mark, used
    local j = 5 * i
    asked[j - 4], asked[j - 3], asked[j - 2], asked[j - 1], asked[j] = record, rule, id, place, step
  end

  local states = before
  if fits and take == 1 then
    states = after
    for i = 1, count do
      local j = 5 * i
      local record, rule, id, place, step = asked[j - 4], asked[j - 3], asked[j - 2], asked[j - 1], asked[j]
      if step == 0 then
        -- Nothing is taken.
      elseif rule == SLOTS then
        local slots, slot = record.slots, slots_at(record, id, holder)
        local held = 0
        if slots[slot] and slots[slot + 3] > now then held = slots[slot + 2] end
        slots[slot], slots[slot + 1], slots[slot + 2], slots[slot + 3] = id, holder, held + step, now + lease
        record.changed = true
      else
        local limits, name, level = record.limits, rule * RULE + id, after[i]
        -- Another that is new may stand there by now.
        if limits[place] and limits[place] ~= name then place = limit_at(record, name) end
        limits[place], limits[place + 1] = name, level
        limits[place + 2], limits[place + 3] = after[count + i], after[2 * count + i]
        if level > record.last then record.last = level end
        record.changed = true
      end
    end
    for i = 1, keys do
      if records[i].changed then write(KEYS[first + i], records[i], now) end
    end
  end
  local doubles = sub(DOUBLES, 1, count + 1)
  local columns = pack(doubles, unpack(states, 1, count)) .. pack(doubles, unpack(states, count + 1, 2 * count))
  return (fits and ADMITTED or REFUSED) .. columns .. pack(doubles, unpack(states, 2 * count + 1, 3 * count))
end

local function answer(ask, first)
  return byte(ask, 4) == 1 and decide_rates(ask, KEYS[first + 1]) or decide(ask, first)
end

if #ARGV == 2 then return answer(ARGV[2], 0) end
local answers, first = {}, 0
for i = 2, #ARGV do
  -- What befalls one is not the others'. Before Redis 7 an error is a text.
  local done, said = pcall(answer, ARGV[i], first)
  if not done and type(said) ~= 'table' then said = {err = 'ERR ' .. said} end
  answers[i - 1] = said
  first = first + byte(ARGV[i])
end
return answers
