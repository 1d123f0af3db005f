
  -- The second turn: puts the records that acquire.lua could not read in the form that it reads.

  -- Puts the rates that are asked for in front, in their order, and takes those that there is no room for out of the columns.
  local function arrange(record, asked)
    local rates, count, limits, known = record.rates, record.count, {}, {}
    local ids, levels, marks, size = {}, {}, {}, 0
    local function add(id, level, mark)
      if size == MOST_RATES then
        local last = #limits
        limits[last + 1], limits[last + 2], limits[last + 3], limits[last + 4] = id, level, mark, 0
      else
        size = size + 1
        ids[size], levels[size], marks[size] = id, level, mark
      end
    end
    -- Then all are idle.
    local is_over = record.last <= now
    for i = 1, #asked do
      known[asked[i]] = true
      local level, mark = state_of(record, asked[i])
      add(asked[i], is_over and 0 or level, is_over and 0 or mark)
    end
    for i = 1, is_over and 0 or count do
      if not known[rates[i]] then add(rates[i], rates[count + i], rates[2 * count + i]) end
    end
    for i = 1, #record.limits, 4 do
      if not known[record.limits[i]] then
        for j = i, i + 3 do limits[#limits + 1] = record.limits[j] end
      end
    end
    for i = 1, size do ids[size + i], ids[2 * size + i] = levels[i], marks[i] end
    record.rates, record.count, record.limits, record.asked = ids, size, limits, #asked
  end

  local function arrange_all(ask, first)
    local at = 3
    for r = 1, byte(ask) do
      local rates, others = byte(ask, at, at + 1)
      local asked = {unpacked('<' .. string.rep('I4', rates), ask, at + 2)}
      -- Where it ends.
      asked[rates + 1] = nil
      local record = read(keys[first + r], now)
      arrange(record, asked)
      write(keys[first + r], record, now)
      at = at + 2 + 20 * rates + OTHER_SIZE * others
    end
  end

  for i = 1, #left, 2 do
    -- What befalls one is not the others'. Before Redis 7 an error is a text.
    local done, said = pcall(arrange_all, asks[left[i]], left[i + 1])
    if not done then answers[left[i] - 1] = type(said) == 'table' and said or {err = 'ERR ' .. said} end
  end
end
return #asks > 2 and answers or answers[1]
