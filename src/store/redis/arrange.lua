
  -- Between two turns: writes a record in the form that these read. The rates that are asked for stand in front, in their order,
  -- and those that there is no room for leave the columns.
  local function arrange(key, asked_ids)
    local record, asked = read(key, now), {}
    for i = 1, #asked_ids, 4 do asked[#asked + 1] = unpacked('<I4', asked_ids, i) end
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
    write(key, record, now)
  end

  for i = 1, #left, 3 do
    -- What befalls one is not the others'. Before Redis 7 an error is a text.
    local done, said = pcall(arrange, left[i], left[i + 1])
    if not done then answers[left[i + 2]] = type(said) == 'table' and said or {err = 'ERR ' .. said} end
  end
end
