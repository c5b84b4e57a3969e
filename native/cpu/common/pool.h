// The threads that run a kernel's tasks. One caller at a time; a task must not call run().
#pragma once
#include <memory>

#include "../../runtime/context.h"

namespace attune::cpu {

// A pool of `threads` threads, the caller of run() being one of them (so 1 starts none). Fewer where the system gives fewer.
std::unique_ptr<Pool> make_pool(int threads);

}  // namespace attune::cpu
