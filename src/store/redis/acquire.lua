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
  local ask = {record = records[key], slots = kind % 2 == 1, id = id, step = step, level = 0, shift = 0}
  local floor = 0
  if ask.slots then
    local list = ask.record.slots
    for i = 1, #list, 4 do
      if list[i] == id and list[i + 3] > now then ask.level = ask.level + list[i + 2] end
    end
  else
    floor = now
    local place = rate_at(ask.record, id)
    ask.level = ask.record.rates[place + 1] or 0
    ask.shift = ask.record.rates[place + 2] or 0
  end
  ask.after = math.min(math.max(ask.level, floor) + step, LATEST)
  -- Kinds from 2 on never fit.
  fits = fits and kind < 2 and math.max(ask.level, floor) + step <= floor + room
  asked[#asked + 1] = ask
end

local reply = {struct.pack('<Bd', fits and 1 or 0, now)}
for _, ask in ipairs(asked) do
  local record = ask.record
  if fits and take then
    if ask.slots and ask.step > 0 then
      local place = slots_at(record, ask.id, holder)
      local held = 0
      if record.slots[place] and record.slots[place + 3] > now then held = record.slots[place + 2] end
      record.slots[place], record.slots[place + 1] = ask.id, holder
      record.slots[place + 2], record.slots[place + 3] = held + ask.step, now + lease
    elseif not ask.slots and ask.step > 0 then
      local place = rate_at(record, ask.id)
      record.rates[place], record.rates[place + 1], record.rates[place + 2] = ask.id, ask.after, ask.shift
      record.last = math.max(record.last, ask.after)
    end
    record.changed = record.changed or ask.step > 0
    ask.level = ask.after
  end
  reply[#reply + 1] = struct.pack('<dd', ask.level, ask.shift)
end
for i = 1, #KEYS do
  if records[i].changed then write(KEYS[i], records[i], now) end
end
return table.concat(reply)
