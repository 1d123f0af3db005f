-- Of so many, all ids, then two columns of doubles.
local function columns(count) return '<' .. string.rep('I4', count) .. string.rep('d', 2 * count) end

-- Where the limit of `name` stands in the list, or where it would be added.
local function limit_at(limits, name)
  for i = 1, #limits, 4 do
    if limits[i] == name then return i end
  end
  return #limits + 1
end

local function state_of(record, name)
  local rates, count = record.rates, record.count
  for i = 1, count do
    if rates[i] == name then return rates[count + i], rates[2 * count + i], 0 end
  end
  local limits = record.limits
  local at = limit_at(limits, name)
  return limits[at + 1] or 0, limits[at + 2] or 0, limits[at + 3] or 0
end

local function set_state(record, name, level, mark, used)
  if level > record.last then record.last = level end
  local rates, count, limits = record.rates, record.count, record.limits
  for i = 1, count do
    if rates[i] == name then
      rates[count + i], rates[2 * count + i] = level, mark
      return
    end
  end
  local at = limit_at(limits, name)
  if name < RULE and count < MOST_RATES and not limits[at] then
    table.insert(rates, 3 * count + 1, mark)
    table.insert(rates, 2 * count + 1, level)
    table.insert(rates, count + 1, name)
    record.count = count + 1
  else
    limits[at], limits[at + 1], limits[at + 2], limits[at + 3] = name, level, mark, used
  end
end

-- What a clock that went back must not change: how far ahead each limit is.
local function move_back(record, by)
  local rates, count, limits = record.rates, record.count, record.limits
  for i = count + 1, 2 * count do
    rates[i] = math.max(0, rates[i] - by)
    rates[count + i] = (rates[count + i] + by) % SHIFT_MODULUS
  end
  for i = 1, #limits, 4 do
    limits[i + 1] = math.max(0, limits[i + 1] - by)
    if limits[i] < RULE then limits[i + 2] = (limits[i + 2] + by) % SHIFT_MODULUS end
  end
  for i = 4, #record.slots, 4 do record.slots[i] = record.slots[i] - by end
  for i = 3, #record.marks, 3 do record.marks[i] = record.marks[i] - by end
  record.last = math.max(0, record.last - by)
end

-- As `rates` it has the `count` that stand in columns, as they stand there; others may be among its `limits`.
local function read(key, now)
  local packed = redis.call('GET', key)
  local record = {last = 0, count = 0, rates = {}, limits = {}, slots = {}, marks = {}}
  if not packed then return record end
  local version, seen = string.byte(packed), nil
  if version == VERSION then
    local kept
    version, record.count, seen, record.last, kept = struct.unpack(HEAD, packed)
    record.rates = {struct.unpack(columns(record.count), packed, HEAD_SIZE + 1)}
    local rest_at = HEAD_SIZE + 20 * record.count + 1
    if rest_at <= #packed then
      record.slots, record.limits, record.marks = cmsgpack.unpack(string.sub(packed, rest_at))
    end
  elseif version == OLD_VERSION then
    local limits
    version, seen, record.last, limits, record.slots, record.marks = cmsgpack.unpack(packed)
    for i = 1, #limits, 4 do set_state(record, limits[i], limits[i + 1], limits[i + 2], limits[i + 3]) end
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

-- The slots that somebody holds, and until when.
local function held_slots(slots, now)
  local gone, kept = nil, 0
  for i = 1, #slots, 4 do
    if slots[i + 2] > 0 and slots[i + 3] > now then
      if slots[i + 3] > kept then kept = slots[i + 3] end
    else
      gone = gone or {}
      gone[i] = true
    end
  end
  return without(slots, 4, gone), kept
end

-- The first so many of the rates, those `asked` for, and those of the others that are not idle; and how many.
local function busy_rates(rates, count, asked, now)
  local ids, levels, shifts, busy = {}, {}, {}, 0
  for i = 1, count do
    local level, shift = rates[count + i], rates[2 * count + i]
    if i <= asked or level > now or shift ~= 0 then
      busy = busy + 1
      ids[busy], levels[busy], shifts[busy] = rates[i], level, shift
    end
  end
  for i = 1, busy do ids[busy + i], ids[2 * busy + i] = levels[i], shifts[i] end
  return ids, busy
end

-- Writes what is not idle, to be gone when it is. Idle rates stay where they are, as long as they are few: that they stand
-- together as they are asked for is what acquire.lua needs.
local function write(key, record, now)
  local slots, kept = held_slots(record.slots, now)
  local ends = math.max(record.last, kept)
  if ends <= now then
    redis.call('DEL', key)
    return
  end
  local rates, count, limits, marks = record.rates, record.count, record.limits, record.marks
  local asked, gone = record.asked or 0, nil
  if record.last <= now then
    count, limits = asked, {}
  else
    if count > FEW then rates, count = busy_rates(rates, count, asked, now) end
    for i = 1, #limits, 4 do
      if limits[i + 1] <= now and (limits[i] >= RULE or limits[i + 2] == 0) then
        gone = gone or {}
        gone[i] = true
      end
    end
    limits = without(limits, 4, gone)
  end
  gone = nil
  for i = 1, #marks, 3 do
    if marks[i + 2] <= now then
      gone = gone or {}
      gone[i] = true
    end
  end
  marks = without(marks, 3, gone)
  local packed = struct.pack(HEAD, VERSION, count, now, record.last, kept)
  if count > 0 then packed = packed .. struct.pack(columns(count), unpack(rates, 1, 3 * count)) end
  if #slots + #limits + #marks > 0 then packed = packed .. cmsgpack.pack(slots, limits, marks) end
  redis.call('SET', key, packed, 'PX', string.format(TTL, (ends - now) / TICKS_IN_MS + MARGIN_MS))
end
