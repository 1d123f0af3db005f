-- Applies a settlement, once however often it is sent.
-- ARGV: the corrections, packed; who writes; the settlement's number, which only grows; how long to remember it, in ticks.

local now = clock()
local corrections, writer, number, memory = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local function is_new(record)
  for i = 1, #record.marks, 3 do
    if record.marks[i] == writer then
      if record.marks[i + 1] >= number then return false end
      record.marks[i + 1], record.marks[i + 2] = number, now + memory
      return true
    end
  end
  local last = #record.marks
  record.marks[last + 1], record.marks[last + 2], record.marks[last + 3] = writer, number, now + memory
  return true
end

local records, new = {}, {}
for i = 1, #KEYS do
  records[i] = read(KEYS[i], now)
  new[i] = is_new(records[i])
end

local at = 1
while at <= #corrections do
  local kind, key, id, give_back, add, tail, shift, holder
  kind, key, id, give_back, add, tail, shift, holder, at = struct.unpack('<BBI4ddddc8', corrections, at)
  local record = records[key]
  if new[key] and kind == 1 then
    local place = slots_at(record, id, holder)
    if record.slots[place] then
      record.slots[place + 2] = math.max(0, record.slots[place + 2] - give_back)
    end
  elseif new[key] then
    local place = rate_at(record, id)
    local level, moved = record.rates[place + 1] or 0, record.rates[place + 2] or 0
    -- Where the reservation's tail is now: see `settle` in gcra.rs.
    tail = tail - (moved + SHIFT_MODULUS - shift) % SHIFT_MODULUS
    local refund = math.max(0, tail - math.max(now, tail - give_back))
    refund = math.min(refund, math.max(0, level - now))
    level = level - refund
    if add > 0 then level = math.min(math.max(level, now) + add, LATEST) end
    record.rates[place], record.rates[place + 1] = id, level
    record.rates[place + 2] = (moved + refund) % SHIFT_MODULUS
    record.last = math.max(record.last, level)
  end
end
for i = 1, #KEYS do
  if new[i] then write(KEYS[i], records[i], now) end
end
return 1
