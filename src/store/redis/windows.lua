
-- The windows that count now, and the end of this one, as in rules/sliding.rs.
local function see_windows(level, mark, used, window, now)
  local over = level % window
  local start = math.max(now - now % window, level - over + (over > 0 and window or 0) - 2 * window)
  local last = math.min(start + 2 * window, LATEST_GRAIN)
  if level <= now then
    mark, used = 0, 0
  elseif level <= start + window then
    mark, used = used, 0
  end
  return last, mark, used, start + window
end
