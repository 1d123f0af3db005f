-- Decides admissions, each by itself: charges all of it or nothing, or only looks.
-- ARGV: the lease of slots in ticks; then each admission, packed:
--   the number of its records, which are the next of the KEYS; the number of its charges; whether to take; how many of the
--   charges are rates, which come first, and how many slots, which follow: a byte each
--   of all charges the ids of their limits, then what they ask, then the room for it
--   of each its rule and the number of its record, a byte each, and what else the rule needs
--   the holder of slots
-- Answers one as it is, several in a list, each with the error that it met, or packed: whether it fits, the time, and of the
-- limits, before the charge or after it, all levels, then all marks, then all units used, which may be left out: rates and
-- slots have none.

local call, byte, sub = redis.call, string.byte, string.sub
local pack, unpacked = struct.pack, struct.unpack
local now = clock()
local lease = tonumber(ARGV[1])
local TIME, REFUSED, ADMITTED = pack('<d', now), '\0', '\1'
-- Eight charges are the most: two of each.
local DOUBLES = '<dddddddddddddddd'
local ASK_HEAD = 5

-- How many slots of `id` are taken.
local function taken_of(slots, id)
  local taken = 0
  for i = 1, #slots, 4 do
    if slots[i] == id and slots[i + 3] > now then taken = taken + slots[i + 2] end
  end
  return taken
end

local function take_slots(slots, id, holder, step)
  local at, held = slots_at(slots, id, holder), 0
  if slots[at] and slots[at + 3] > now then held = slots[at + 2] end
  slots[at], slots[at + 1], slots[at + 2], slots[at + 3] = id, holder, held + step, now + lease
end

-- Decides on rates that stand together in their record, as most often they do, and on slots, and leaves all else of it as it
-- is. Nothing is returned, or changed, where they do not.
local function decide_packed(ask, key)
  local keys, count, take, rates, slots = byte(ask, 1, 5)
  local ids = sub(ask, ASK_HEAD + 1, ASK_HEAD + 4 * rates)
  local packed = call('GET', key)
  if not packed then packed = pack(HEAD, VERSION, rates, now, 0, 0) .. ids .. string.rep('\0', 16 * rates) end
  if byte(packed) ~= VERSION then return nil end
  local version, stored, seen, last, kept = unpacked(HEAD, packed)
  local place = string.find(packed, ids, HEAD_SIZE + 1, true)
  if seen > now or not place then return nil end
  place = (place - HEAD_SIZE - 1) / 4
  if place % 1 > 0 or place + rates > stored then return nil end
  local levels_at = HEAD_SIZE + 4 * stored + 8 * place + 1
  local marks_at, tail_at = levels_at + 8 * stored, HEAD_SIZE + 20 * stored + 1
  local doubles = sub(DOUBLES, 1, rates + 1)
  local levels = {unpacked(doubles, packed, levels_at)}
  local asks = {unpacked(sub(DOUBLES, 1, 2 * count + 1), ask, ASK_HEAD + 4 * count + 1)}
  local fits, takes_rates, takes_slots = true, false, false
  for i = 1, rates do
    local step, from = asks[i], levels[i]
    if from < now then from = now end
    if from - now + step > asks[count + i] then fits = false end
    if step > 0 then
      takes_rates, from = true, from + step
      if from > LATEST then from = LATEST end
      if from > last then last = from end
      levels[i] = from
    end
  end
  -- Of slots: the levels before and after, and the marks, of which they have none.
  local before, after, none = '', '', ''
  local list, slot_ids, rest_at = {}, {}, nil
  if slots > 0 then
    if tail_at <= #packed then rest_at, list = cmsgpack.unpack_one(packed, tail_at - 1) end
    for i = rates + 1, count do
      local id = unpacked('<I4', ask, ASK_HEAD + 4 * i - 3)
      local step, taken = asks[i], taken_of(list, id)
      slot_ids[i] = id
      if taken + step > asks[count + i] then fits = false end
      if step > 0 then takes_slots = true end
      before, after = before .. pack('<d', taken), after .. pack('<d', math.min(taken + step, LATEST))
    end
    none = string.rep('\0', 8 * slots)
  end
  local marks = sub(packed, marks_at, marks_at + 8 * rates - 1) .. none
  if not (fits and (takes_rates or takes_slots) and take == 1) then
    return (fits and ADMITTED or REFUSED) .. TIME .. sub(packed, levels_at, levels_at + 8 * rates - 1) .. before .. marks
  end
  local others, rest = sub(packed, levels_at + 8 * rates), ''
  if takes_slots then
    others = sub(packed, levels_at + 8 * rates, tail_at - 1)
    for i = rates + 1, count do
      if asks[i] > 0 then take_slots(list, slot_ids[i], sub(ask, -8), asks[i]) end
    end
    list, kept = held_slots(list, now)
    rest = cmsgpack.pack(list) .. (rest_at and sub(packed, rest_at + 1) or cmsgpack.pack({}, {}))
  end
  local new = pack(doubles, unpack(levels, 1, rates))
  local head, ends = pack(HEAD, VERSION, stored, now, last, kept), kept > last and kept or last
  save(key, head .. sub(packed, HEAD_SIZE + 1, levels_at - 1) .. new .. others .. rest, ends, now)
  return ADMITTED .. TIME .. new .. after .. marks
end

-- Decides on all there may be. Its records are the KEYS after the `first`.
local function decide(ask, first)
  local keys, count, take = byte(ask, 1, 3)
  local records = {}
  for i = 1, keys do records[i] = read(KEYS[first + i], now) end
  -- Of each limit before and after the charge: all levels, then all marks, then all units used. Made as large as they can get.
  local before = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
  local after = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
  local targets = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
  local fits, asks = true, {unpacked(columns(count), ask, ASK_HEAD + 1)}
  local at = asks[3 * count + 1]
  for i = 1, count do
    local id, step = asks[i], asks[count + i]
    local rule, number = byte(ask, at, at + 1)
    at = at + 2
    local record, name = records[number], rule * RULE + id
    local level, mark, used, taken = 0, 0, 0, 0
    if rule == SLOTS then
      level = taken_of(record.slots, id)
      taken = level
    else
      level, mark, used = state_of(record, name)
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
    if taken + step > asks[2 * count + i] then fits = false end
    if step == 0 then
      level, mark, used = before[i], before[marks], before[units]
    elseif rule == RATE or rule == SLOTS then
      level = math.min(level + step, LATEST)
    else
      used = math.min(used + step, MOST)
    end
    after[i], after[marks], after[units] = level, mark, used
    targets[2 * i - 1], targets[2 * i] = record, name
  end

  local states = before
  if fits and take == 1 then
    states = after
    local _, slots_from, slots = byte(ask, 3, 5)
    for i = 1, count do
      local record, name, step = targets[2 * i - 1], targets[2 * i], asks[count + i]
      if step > 0 then
        record.changed = true
        if i > slots_from and i <= slots_from + slots then
          take_slots(record.slots, asks[i], sub(ask, -8), step)
        else
          set_state(record, name, after[i], after[count + i], after[2 * count + i])
        end
      end
    end
    for i = 1, keys do
      if records[i].changed then write(KEYS[first + i], records[i], now) end
    end
  end
  local told = pack('<' .. string.rep('d', 3 * count), unpack(states, 1, 3 * count))
  return (fits and ADMITTED or REFUSED) .. TIME .. told
end

local function answer(ask, first)
  local keys, count, _, rates, slots = byte(ask, 1, 5)
  return keys == 1 and rates + slots == count and decide_packed(ask, KEYS[first + 1]) or decide(ask, first)
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
