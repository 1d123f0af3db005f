
-- Applies settlements, each by itself, and once however often it is sent.
-- ARGV: who writes; how long to remember it, in ticks; then each settlement, packed: the number of its records, which are the
-- next of the KEYS, a byte; its own number, which only grows; the corrections.
-- Answers 1 when it is applied; to several in a list, with 0 for what has to be sent alone, to hear its error.
--
-- As in acquire.lua, no function is declared before it is needed.

local byte, sub, pack, unpacked, attempt = string.byte, string.sub, struct.pack, struct.unpack, redis.pcall
local keys, asks, answers = KEYS, ARGV, {}
local writer, memory = asks[1], tonumber(asks[2])
local CORRECTION = '<BBI4dddddc8'
local CORRECTIONS_AT, CORRECTION_SIZE = 10, 54

-- In each turn at least one record is put in order.
for turn = 1, #keys + 1 do
  local left, first = nil, 0
  for n = 3, #asks do
    local job, said = asks[n], answers[n - 2]
    local records, number = unpacked('<Bd', job)
    local is_left, changed = false, {}
    for r = 1, said and 0 or records do
      local key = keys[first + r]
      local packed = attempt('GET', key)
      if not packed then packed = pack(HEAD, VERSION, 0, now, 0, 0) end
      -- An error is a table.
      if packed.err then
        said = packed
        break
      end
      local is_ready, version, count, seen, last, kept = #packed >= HEAD_SIZE and byte(packed) == VERSION, nil, nil, nil, nil, nil
      local slots, limits, writers, read_on = {}, {}, {}, nil
      if is_ready then
        version, count, seen, last, kept = unpacked(HEAD, packed)
        local tail_at = HEAD_SIZE + 20 * count + 1
        is_ready = seen <= now and tail_at <= #packed + 1
        if is_ready and tail_at <= #packed then
          is_ready, read_on, slots, limits, writers = pcall(cmsgpack.unpack_limit, packed, 3, tail_at - 1)
          is_ready = is_ready and (turn > 1 or #limits <= 4 * FEW)
        end
      end
      if not is_ready then
        if turn > #keys then
          said = {err = UNREADABLE}
        else
          left, is_left = left or {}, true
          local last = #left
          left[last + 1], left[last + 2], left[last + 3] = key, '', n - 2
        end
        break
      end

      -- The numbers of the writers' latest settlements, without those that need not be remembered any more.
      local is_new, size = true, 0
      for i = 1, #writers, 3 do
        local who, latest, ends = writers[i], writers[i + 1], writers[i + 2]
        writers[i], writers[i + 1], writers[i + 2] = nil, nil, nil
        if who == writer then
          is_new = latest < number
        elseif ends > now then
          writers[size + 1], writers[size + 2], writers[size + 3] = who, latest, ends
          size = size + 3
        end
      end
      writers[size + 1], writers[size + 2], writers[size + 3] = writer, number, now + memory

      if is_new then
        local columns = '<' .. string.rep('I4', count) .. string.rep('d', 2 * count)
        local rates = {unpacked(columns, packed, HEAD_SIZE + 1)}
        for at = CORRECTIONS_AT, #job, CORRECTION_SIZE do
          local rule, record, id, give_back, add, charged, marked, window, holder = unpacked(CORRECTION, job, at)
          if record == r and rule == SLOTS then
            for i = 1, #slots, 4 do
              if slots[i] == id and slots[i + 1] == holder then
                slots[i + 2] = math.max(0, slots[i + 2] - give_back)
                break
              end
            end
          elseif record == r then
            local name, place, column = rule * RULE + id, 1, nil
            local level, mark, used = 0, 0, 0
            for i = 1, rule == RATE and count or 0 do
              if rates[i] == id then
                column, level, mark = i, rates[count + i], rates[2 * count + i]
                break
              end
            end
            if not column then
              while limits[place] and limits[place] ~= name do place = place + 4 end
              if limits[place] then level, mark, used = limits[place + 1], limits[place + 2], limits[place + 3] end
            end
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
            if level > last then last = level end
            if column then
              rates[count + column], rates[2 * count + column] = level, mark
            else
              limits[place], limits[place + 1], limits[place + 2], limits[place + 3] = name, level, mark, used
            end
          end
        end

        -- The slots that somebody holds, and until when.
        size, kept = 0, 0
        for i = 1, #slots, 4 do
          local id, holder, held, ends = slots[i], slots[i + 1], slots[i + 2], slots[i + 3]
          slots[i], slots[i + 1], slots[i + 2], slots[i + 3] = nil, nil, nil, nil
          if held > 0 and ends > now then
            slots[size + 1], slots[size + 2], slots[size + 3], slots[size + 4] = id, holder, held, ends
            size, kept = size + 4, math.max(kept, ends)
          end
        end
        local place = #changed
        changed[place + 1] = key
        changed[place + 2] = pack(HEAD, VERSION, count, now, last, kept)
          .. pack(columns, unpack(rates, 1, 3 * count)) .. cmsgpack.pack(slots, limits, writers)
        changed[place + 3] = math.max(last, kept)
      end
    end

    if not said and not is_left then
      for i = 1, #changed, 3 do
        local done
        if changed[i + 2] > now then
          done = attempt('SET', changed[i], changed[i + 1], 'PX',
            string.format(TTL, (changed[i + 2] - now) / TICKS_IN_MS + MARGIN_MS))
        else
          done = attempt('DEL', changed[i])
        end
        if type(done) == 'table' and done.err then said = done end
      end
      said = said or 1
    end
    -- Of a writer's settlements none is applied before an earlier one: it would seem to be applied already.
    if is_left then break end
    answers[n - 2] = said
    first = first + records
  end
  if not left then
    if #answers == 1 then return answers[1] end
    -- An error would be the others' too.
    for i = 1, #answers do answers[i] = answers[i] == 1 and 1 or 0 end
    return answers
  end
