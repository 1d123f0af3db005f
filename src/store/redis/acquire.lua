
-- Decides admissions, each by itself: charges all of it or nothing, or only looks.
-- ARGV: each admission, packed:
--   the number of its records, which are the next of the KEYS, and whether to take: a byte each
--   of each record:
--     how many rates are charged, and how many other limits: a byte each
--     of the rates the ids, then of each what it asks and the room for it
--     of each of the others its rule, its id, what it asks, the room for it, and three numbers that the rule may need: the
--       lease of slots in ticks, or what is told below
--   the holder of slots, if there are any
-- Answers one as it is, several in a list, each with the error that it met, or packed: whether it fits, the time, and of each
-- record, before the charge or after it, the levels of the rates, then their marks, then of each other limit level, mark, used.
--
-- Each function that a script declares is made anew whenever it runs, which takes longer than a decision. None is declared here:
-- those of record.lua come after, and put a record that is not as this needs it in order, for another turn.

local byte, sub, format, pack, unpacked = string.byte, string.sub, string.format, struct.pack, struct.unpack
local attempt = redis.pcall
local ADMITTED = pack('<Bd', 1, now)
-- Eight charges are the most: two of each, and where they end.
local DOUBLES = '<dddddddddddddddd'
local OTHER, STATE = '<BI4ddddd', '<ddd'
local OTHER_SIZE = 45
local keys, asks, answers = KEYS, ARGV, {}

-- In each turn at least one record is put in order.
for turn = 1, #keys + 1 do
  local left, first = nil, 0
  for n = 1, #asks do
    local ask, said = asks[n], answers[n]
    local records, take = byte(ask, 1, 2)
    local at, fits, is_left, before, after, changed = 3, true, false, '', ADMITTED, nil
    take = take == 1
    for r = 1, said and 0 or records do
      local key = keys[first + r]
      local rates, others = byte(ask, at, at + 1)
      local ids = sub(ask, at + 2, at + 1 + 4 * rates)
      local packed = attempt('GET', key)
      if not packed then packed = pack(HEAD, VERSION, rates, now, 0, 0) .. ids .. string.rep('\0', 16 * rates) end
      -- An error is a table.
      if packed.err then
        said = packed
        break
      end
      local stored, ids_at = byte(packed, 2), string.find(packed, ids, HEAD_SIZE + 1, true)
      local place = ids_at and (ids_at - HEAD_SIZE - 1) / 4
      local tail_at = HEAD_SIZE + 20 * (stored or 0) + 1
      local is_ready = place and place % 1 == 0 and place + rates <= stored
      is_ready = is_ready and byte(packed) == VERSION and tail_at <= #packed + 1
      local version, seen, last, kept, read_on, slots, limits, writers
      if is_ready then
        version, stored, seen, last, kept = unpacked(HEAD, packed)
        is_ready = seen <= now
      end
      if is_ready and others > 0 then
        slots, limits, writers = {}, {}, {}
        if tail_at <= #packed then
          is_ready, read_on, slots, limits, writers = pcall(cmsgpack.unpack_limit, packed, 3, tail_at - 1)
        end
        is_ready = is_ready and (turn > 1 or #limits <= 4 * FEW)
      end
      if not is_ready then
        if turn > #keys then
          said = {err = UNREADABLE}
        else
          left, is_left = left or {}, true
          local last = #left
          left[last + 1], left[last + 2], left[last + 3] = key, ids, n
        end
        break
      end

      local takes = false
      local levels_at, doubles = HEAD_SIZE + 4 * stored + 8 * place + 1, sub(DOUBLES, 1, rates + 1)
      local levels = {unpacked(doubles, packed, levels_at)}
      local asked = {unpacked(sub(DOUBLES, 1, 2 * rates + 1), ask, at + 2 + 4 * rates)}
      for i = 1, rates do
        local step, level = asked[2 * i - 1], levels[i]
        if level < now then level = now end
        if level - now + step > asked[2 * i] then fits = false end
        if step > 0 then
          takes, level = true, level + step
          if level > LATEST then level = LATEST end
          if level > last then last = level end
          levels[i] = level
        end
      end
      at = at + 2 + 20 * rates

      local others_before, others_after, slots_taken = '', '', false
      for _ = 1, others do
        local rule, id, step, room, x, y, z = unpacked(OTHER, ask, at)
        at = at + OTHER_SIZE
        local level, mark, used, place = 0, 0, 0, 1
        if rule == SLOTS then
          local holder, held = sub(ask, -8), 0
          while slots[place] and (slots[place] ~= id or slots[place + 1] ~= holder) do place = place + 4 end
          for i = 1, #slots, 4 do
            if slots[i] == id and slots[i + 3] > now then
              level = level + slots[i + 2]
              if i == place then held = slots[i + 2] end
            end
          end
          others_before = others_before .. pack(STATE, level, 0, 0)
          if level + step > room then fits = false end
          if step > 0 then
            slots_taken, level = true, math.min(level + step, LATEST)
            slots[place], slots[place + 1], slots[place + 2], slots[place + 3] = id, holder, held + step, now + x
          end
        else
          local name, taken = rule * RULE + id, 0
          while limits[place] and limits[place] ~= name do place = place + 4 end
          if limits[place] then level, mark, used = limits[place + 1], limits[place + 2], limits[place + 3] end
          local state = pack(STATE, level, mark, used)
          others_before = others_before .. state
          if rule == CALENDAR then
            -- The period that counts now, as in rules/calendar.rs: its number is `x`.
            local ends = now + y
            ends = math.min(ends - ends % GRAIN + GRAIN, LATEST_GRAIN)
            if level <= now or mark < x then
              level, mark, used = ends, x, 0
            elseif mark == x and ends > level then
              level = ends
            end
            taken = used
          else
            -- As in rules/sliding.rs: a window `x` of `z` parts, each `y` long.
            local window_end
            level, mark, used, window_end = see_windows(level, mark, used, x, now)
            local rest = math.min(math.ceil(math.min(window_end - now, x) / y), z)
            local low = mark % z
            taken = used + (mark - low) / z * rest + math.ceil(low * rest / z)
          end
          if taken + step > room then fits = false end
          if step > 0 then
            takes, used = true, math.min(used + step, MOST)
            if level > last then last = level end
            limits[place], limits[place + 1], limits[place + 2], limits[place + 3] = name, level, mark, used
            state = pack(STATE, level, mark, used)
          end
          others_after = others_after .. state
        end
        if rule == SLOTS then others_after = others_after .. pack(STATE, level, 0, 0) end
      end

      local rest_at, marks_at = levels_at + 8 * rates, levels_at + 8 * stored
      local marks = sub(packed, marks_at, marks_at + 8 * rates - 1)
      if records > 1 or not (fits and take) then
        before = before .. sub(packed, levels_at, rest_at - 1) .. marks .. others_before
      end
      if fits and take then
        local new, rest = pack(doubles, unpack(levels, 1, rates)), nil
        after = after .. new .. marks .. others_after
        if takes or slots_taken then
          if slots_taken then
            -- Those that somebody holds, and until when.
            local count = 0
            kept = 0
            for i = 1, #slots, 4 do
              local id, holder, held, ends = slots[i], slots[i + 1], slots[i + 2], slots[i + 3]
              slots[i], slots[i + 1], slots[i + 2], slots[i + 3] = nil, nil, nil, nil
              if held > 0 and ends > now then
                slots[count + 1], slots[count + 2], slots[count + 3], slots[count + 4] = id, holder, held, ends
                count, kept = count + 4, math.max(kept, ends)
              end
            end
          end
          if others > 0 then
            rest = sub(packed, rest_at, tail_at - 1) .. cmsgpack.pack(slots, limits, writers)
          else
            -- Most often the same: nothing more is made then.
            rest = stored == rates and tail_at > #packed and marks or sub(packed, rest_at)
          end
          local whole = pack(HEAD, VERSION, stored, now, last, kept)
            .. (place == 0 and stored == rates and ids or sub(packed, HEAD_SIZE + 1, levels_at - 1)) .. new .. rest
          local ttl = format(TTL, (math.max(last, kept) - now) / TICKS_IN_MS + MARGIN_MS)
          if records == 1 then
            local done = attempt('SET', key, whole, 'PX', ttl)
            if done.err then said = done end
          else
            changed = changed or {}
            local count = #changed
            changed[count + 1], changed[count + 2], changed[count + 3] = key, whole, ttl
          end
        end
      end
    end
    if not said and not is_left then
      if fits and take then
        said = after
        for i = 1, changed and #changed or 0, 3 do
          local done = attempt('SET', changed[i], changed[i + 1], 'PX', changed[i + 2])
          if done.err then said = done end
        end
      else
        said = (fits and '\1' or '\0') .. sub(ADMITTED, 2) .. before
      end
    end
    answers[n] = said or false
    first = first + records
  end
  if not left then return #asks > 1 and answers or answers[1] end
