-- Charges all or nothing, or only looks.
-- ARGV: the charges, packed; the holder of slots; the lease in ticks; '1' to take, '0' to look.

local now = clock()
local charges, holder, lease, take = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
local records = {}
for i = 1, #KEYS do records[i] = read(KEYS[i], now) end

local asked, fits, at = {}, true, 1
while at <= #charges do
  local kind, key, id, step, room
  kind, key, id, step, room, at = struct.unpack('<BBI4dd', charges, at)
  local rule = kind % 4
  local ask = {record = records[key], slots = rule == SLOTS, id = id, name = rule * RULE + id, step = step}
  local level, mark, used, taken = 0, 0, 0, 0
  if ask.slots then
    local list = ask.record.slots
    for i = 1, #list, 4 do
      if list[i] == id and list[i + 3] > now then level = level + list[i + 2] end
    end
    taken = level
  else
    level, mark, used = state_of(ask.record, ask.name)
  end
  ask.level, ask.mark, ask.used = level, mark, used
  if rule == RATE then
    level = math.max(level, now)
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
  if rule == RATE or rule == SLOTS then
    level = math.min(level + step, LATEST)
  else
    used = math.min(used + step, MOST)
  end
  ask.after = {level, mark, used}
  -- Kinds from 4 on never fit.
  fits = fits and kind < 4 and taken + step <= room
  asked[#asked + 1] = ask
end

local reply = {struct.pack('<Bd', fits and 1 or 0, now)}
for _, ask in ipairs(asked) do
  local record = ask.record
  if fits and take and ask.step > 0 then
    if ask.slots then
      local place = slots_at(record, ask.id, holder)
      local held = 0
      if record.slots[place] and record.slots[place + 3] > now then held = record.slots[place + 2] end
      record.slots[place], record.slots[place + 1] = ask.id, holder
      record.slots[place + 2], record.slots[place + 3] = held + ask.step, now + lease
    else
      set_state(record, ask.name, unpack(ask.after))
    end
    record.changed = true
    ask.level, ask.mark, ask.used = unpack(ask.after)
  end
  reply[#reply + 1] = struct.pack('<ddd', ask.level, ask.mark, ask.used)
end
for i = 1, #KEYS do
  if records[i].changed then write(KEYS[i], records[i], now) end
end
return table.concat(reply)
