// Which calls of a recording must wait for which.
#pragma once
#include <cstddef>
#include <vector>

#include "machine.h"

namespace attune {

// For each call the earlier ones that it must wait for: those that share memory with it which one of the two writes, less those that
// another of them waits for anyway. Any order that respects this gives the bits of the list's own.
std::vector<std::vector<size_t>> dependencies_of(const std::vector<Call>& calls);

}  // namespace attune
