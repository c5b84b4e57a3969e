// What this process may use of its machine.
#pragma once
#include <cstdint>

namespace attune {

// Whole CPUs: the affinity mask and the cgroup's quota (v2 and v1, this group and those above it), at least 1.
int cpu_share();

// The calling thread computes in the background: whatever else runs on this CPU goes first. Linux alone; elsewhere it does nothing. How far it
// steps back is ATTUNE_NICE, 19 where that is not set.
void yield_to_others();

// Lets a thread run that waits for this CPU; to be called between pieces of work. However nice this one is, Linux (EEVDF) does not pick another that
// has just had its turn and was preempted before this one has run on to a tick (4 ms) or yields.
void offer_cpu();

// The most resident memory the process has had, in bytes.
int64_t peak_rss();

}  // namespace attune
