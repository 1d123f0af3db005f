-- Applies a settlement, once however often it is sent.
-- ARGV: the corrections, packed; who writes; the settlement's number, which only grows; how long to remember it, in ticks.

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
  local rule, key, id, give_back, add, charged, marked, window, holder
  rule, key, id, give_back, add, charged, marked, window, holder, at =
    struct.unpack('<BBI4dddddc8', corrections, at)
  local record, name = records[key], rule * RULE + id
  if new[key] and rule == SLOTS then
    local slots = record.slots
    local place = slots_at(slots, id, holder)
    if slots[place] then slots[place + 2] = math.max(0, slots[place + 2] - give_back) end
  elseif new[key] then
    local level, mark, used = state_of(record, name)
    if rule == RATE then
      -- Where the reservation's tail is now: see `settle` in rules/rate.rs.
      local tail = charged - (mark + SHIFT_MODULUS - marked) % SHIFT_MODULUS
      local refund = math.max(0, tail - math.max(now, tail - give_back))
      refund = math.min(refund, math.max(0, level - now))
      level = level - refund
      if add > 0 then level = math.min(math.max(level, now) + add, LATEST) end
      mark = (mark + refund) % SHIFT_MODULUS
    elseif rule == CALENDAR then
      if level > now and mark >= marked then
        if mark == marked then used = math.min(math.max(0, used - give_back) + add, MOST) end
      elseif add > 0 and charged > now then
        level, mark, used = charged, marked, add
      end
    else
      level, mark, used = see_windows(level, mark, used, window, now)
      if charged == level then
        used = math.max(0, used - give_back)
      elseif charged + window == level then
        mark = math.max(0, mark - give_back)
      end
      used = math.min(used + add, MOST)
    end
    set_state(record, name, level, mark, used)
  end
end
for i = 1, #KEYS do
  if new[i] then write(KEYS[i], records[i], now) end
end
return 1
