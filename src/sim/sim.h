// sim: many nodes in one thread, on a clock and a network that are drawn from a seed, with faults.
