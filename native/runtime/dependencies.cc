// See dependencies.h. Quadratic in the calls, once a program: about a thousand.
#include "dependencies.h"

namespace attune {

namespace {

bool conflict(const Call& a, const Call& b) {
  for (const Span& x : a.spans)
    for (const Span& y : b.spans)
      if ((x.written || y.written) && x.begin < y.end && y.begin < x.end) return true;
  return false;
}

}  // namespace

std::vector<std::vector<size_t>> dependencies_of(const std::vector<Call>& calls) {
  std::vector<std::vector<size_t>> found(calls.size());
  std::vector<std::vector<bool>> before(calls.size());  // all that a call waits for, by way of others too
  for (size_t i = 0; i < calls.size(); ++i) {
    before[i].assign(i, false);
    for (size_t j = i; j-- > 0;) {
      if (before[i][j] || !conflict(calls[j], calls[i])) continue;
      found[i].push_back(j);
      before[i][j] = true;
      for (size_t k = 0; k < j; ++k)
        if (before[j][k]) before[i][k] = true;
    }
  }
  return found;
}

}  // namespace attune
