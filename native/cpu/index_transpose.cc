// index_transpose: for idx (M) into R rows, which positions of idx hold r: order[start[r] .. start[r] + length[r]), ascending.
// A stable counting sort on one thread: R + M small steps. Negative entries are listed nowhere; the rest of order is -1.
#include "kernels.h"

namespace attune::cpu {

void index_transpose(const IndexTranspose& a, Context&) {
  const int64_t m = a.idx.size(), r = a.start.size();
  const int32_t* idx = a.idx.as<int32_t>();
  int32_t *start = a.start.as<int32_t>(), *length = a.length.as<int32_t>(), *order = a.order.as<int32_t>();
  for (int64_t i = 0; i < r; ++i) length[i] = 0;
  for (int64_t j = 0; j < m; ++j)
    if (idx[j] >= 0 && idx[j] < r) ++length[idx[j]];
  int32_t next = 0;
  for (int64_t i = 0; i < r; ++i) {
    start[i] = next;
    next += length[i];
    length[i] = 0;
  }
  for (int64_t j = next; j < m; ++j) order[j] = -1;
  for (int64_t j = 0; j < m; ++j)
    if (idx[j] >= 0 && idx[j] < r) order[start[idx[j]] + length[idx[j]]++] = static_cast<int32_t>(j);
}

}  // namespace attune::cpu
