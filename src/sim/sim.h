// sim: many nodes in one thread, on a clock and a network that stand still between events, with faults from one seed.
//
//   scenario.h    one simulation from a seed: Simulate(seed)
//   plan.h        what a seed draws: decisions, nodes and who asks whom, load, faults
//   invariants.h  what must never happen, watched from outside
//   mutation.h    bugs to plant, to see that the invariants find them
//   world.h       the clock, the queue of events, the links
//   node.h        a node; flow.h, queue.h, parents.h, executor.h are its parts
//
// Intuition: a fleet that runs for a week meets a parent that dies just as a probe is under way once, and nobody can
// repeat it. Here minutes of a fleet take milliseconds, every seed is another mishap, and a seed that fails fails again
// in the debugger, to the last event.
//
// What is real: the cascade, the breaker, balance and retry budget, the concurrency limit, the batcher, what a run is
// known to take, the tiers and who may see what. They are the objects that production links, told a time that is made
// up.
//
// What is modelled: threads, queues of work, links and the code between the objects (src/node/server, flow, parents,
// runner, executor), each mirrored by a file here with the same order of calls. So a bug in an object is found as it
// is; a bug in the code between is found where the mirror is true. Whoever changes the one changes the other.
// Left out: the cache, plain models, hot reload, the wire, foreign servers.
//
// Why not the real code on fake threads: it holds sockets and models; what would be gained is the code between, what
// would be lost is a thousandfold speed, and with it nearly all the seeds.
//
// Cost: 2 to 6 ms a seed, some four minutes of a fleet. Thread-compatible; simulations share nothing.
// Source: the idea of testing a fleet by one seed is that of FoundationDB: J. Zhou et al., "FoundationDB: A
// Distributed Unbundled Transactional Key Value Store", 2021, section 4.
#pragma once

#include "sim/invariants.h"
#include "sim/mutation.h"
#include "sim/plan.h"
#include "sim/scenario.h"
#include "sim/world.h"
