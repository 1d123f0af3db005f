-- A record: all limits of one key, packed.
--   head    the format's version and how many rates there are, a byte each; then, as doubles:
--     seen  the latest time that it was written at
--     last  the furthest that any limit ever was ahead: until then it must be kept
--     kept  until when its slots last
--   rates   the ids of all, then the levels of all, then the marks of all
--   rest    most often nothing; else, by MessagePack:
--     slots   id, holder, count, expiry, ...
--     limits  name, level, mark, used, ...: the others. See `State` and `Kind` in rules/mod.rs
--     marks   writer, sequence number, expiry, ...: which settlements were applied
-- Times are ticks of 1/16 microsecond since 2024, below 2^53, so that doubles hold them exactly.

local VERSION = 3
-- Of it, all stands by MessagePack: version, seen, last, limits and the rates among them, slots, marks.
local OLD_VERSION = 2
local HEAD = '<BBddd'
local HEAD_SIZE = 26
local MOST_RATES = 64
-- A rate stays in a record of so many though it is idle.
local FEW = 16
local EPOCH = 1704067200
local LATEST = 9007199254740991
local GRAIN = 1024
local LATEST_GRAIN = LATEST - LATEST % GRAIN
local MOST = 2199023255551
local SHIFT_MODULUS = 4503599627370496
local TICKS_IN_MS = 16000
local MARGIN_MS = 1000
local TTL = '%d'

-- The rules. A limit's name is its id, and the rule above it.
local RATE, SLOTS, CALENDAR, SLIDING = 0, 1, 2, 3
local RULE = 4294967296
local UNREADABLE = 'ERR palisade: a record that can not be read'
