-- Charges all or nothing, or only looks.
-- ARGV: the charges, packed; the holder of slots; the lease in ticks; '1' to take, '0' to look.

local now = clock()
local charges, holder, lease, take = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
local records = {}
for i = 1, #KEYS do records[i] = read(KEYS[i], now) end

-- Of each charge: what it asks, and its limit before and after it, as level, mark, used.
-- Made as large as they can get: eight charges are the most.
local before = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
local after = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
local asked = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
local fits, count, at, size = true, 0, 1, #charges
while at <= size do
  local kind, key, id, step, room
  kind, key, id, step, room, at = struct.unpack('<BBI4dd', charges, at)
  local rule, record = kind % 4, records[key]
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
  local i = 3 * count
  count = count + 1
  before[i + 1], before[i + 2], before[i + 3] = level, mark, used
  if rule == RATE then
    if level < now then level = now end
    taken = level - now
  elseif rule == CALENDAR then
    local number, kept_for
    number, kept_for, at = struct.unpack('<dd', charges, at)
    level, mark, used = see_period(level, mark, used, number, kept_for, now)
    taken = used
  elseif rule == SLIDING then
    local window, part, parts, window_end
    window, part, parts, at = struct.unpack('<ddd', charges, at)
    level, mark, used, window_end = see_windows(level, mark, used, window, now)
    local rest = math.min(math.ceil(math.min(window_end - now, window) / part), parts)
    local low = mark % parts
    taken = used + (mark - low) / parts * rest + math.ceil(low * rest / parts)
  end
  -- Kinds from 4 on never fit.
  if kind > 3 or taken + step > room then fits = false end
  if step == 0 then
    after[i + 1], after[i + 2], after[i + 3] = before[i + 1], before[i + 2], before[i + 3]
  elseif rule == RATE or rule == SLOTS then
    after[i + 1], after[i + 2], after[i + 3] = math.min(level + step, LATEST), mark, used
  else
    after[i + 1], after[i + 2], after[i + 3] = level, mark, math.min(used + step, MOST)
  end
  local j = 5 * count
  asked[j - 4], asked[j - 3], asked[j - 2], asked[j - 1], asked[j] = record, rule, id, place, step
end

local states = before
if fits and take then
  states = after
  local i = 0
  for j = 1, 5 * count, 5 do
    local record, rule, id, place, step = asked[j], asked[j + 1], asked[j + 2], asked[j + 3], asked[j + 4]
    if step == 0 then
      -- Nothing is taken.
    elseif rule == SLOTS then
      local slots, slot = record.slots, slots_at(record, id, holder)
      local held = 0
      if slots[slot] and slots[slot + 3] > now then held = slots[slot + 2] end
      slots[slot], slots[slot + 1], slots[slot + 2], slots[slot + 3] = id, holder, held + step, now + lease
      record.changed = true
    else
      local limits, level = record.limits, after[i + 1]
      -- Another that is new may stand there by now.
      local name = rule * RULE + id
      if limits[place] and limits[place] ~= name then place = limit_at(record, name) end
      limits[place], limits[place + 1], limits[place + 2], limits[place + 3] = name, level, after[i + 2], after[i + 3]
      if level > record.last then record.last = level end
      record.changed = true
    end
    i = i + 3
  end
  for i = 1, #KEYS do
    if records[i].changed then write(KEYS[i], records[i], now) end
  end
end
return struct.pack('<B' .. string.rep('d', 3 * count + 1), fits and 1 or 0, now, unpack(states, 1, 3 * count))
