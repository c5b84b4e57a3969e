// Finding a device and what it is.
#pragma once
#include <string>

#include "launch.h"

namespace attune::cuda {

// Makes device `index` this thread's and fills `out`. Empty, or why it can't be used and what to do.
std::string open(int index, Properties* out);

}  // namespace attune::cuda
