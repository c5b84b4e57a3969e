// The ceilings that kernels are measured against.
#pragma once
#include "../runtime/device.h"
#include "common/launch.h"

namespace attune::cuda {

// About a quarter of a second of work in 4 GiB of device memory; zeros where there is no room.
Peak measure_peak(Stream& stream);

}  // namespace attune::cuda
