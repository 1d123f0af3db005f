-- Redis has what scripts leave behind collected at each fiftieth that it runs, all at once, for as long as several decisions take. A
-- little with each leaves little to do then.
collectgarbage('step', 0)

