// Finding a device and what it is.
#pragma once
#include <string>

#include "launch.h"

namespace attune::cuda {

// What device `index` is; nothing is made on it. Empty, or why it can't be used and what to do.
std::string look(int index, Properties* out);

// Looks, and makes the device this thread's.
std::string open(int index, Properties* out);

}  // namespace attune::cuda
