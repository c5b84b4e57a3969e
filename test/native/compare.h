// How native checks compare: norms and worst elements of differences, as double.
#pragma once
#include <cmath>
#include <vector>

#include "test_context.h"

namespace attune::test {

inline void check(bool ok, const std::string& what) { CHECK(ok, "%s", what.c_str()); }

inline std::vector<double> values(const Buffer& b) {
  std::vector<double> v;
  for (int64_t i = 0; i < b.size(); ++i) v.push_back(b.at(i));
  return v;
}

// max |a - b| / (atol + |b|); infinite where one is NaN and the other is not, or infinities differ.
inline double worst(const std::vector<double>& a, const std::vector<double>& b, double atol) {
  if (a.size() != b.size()) return INFINITY;
  double w = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
    const double e = std::fabs(a[i] - b[i]) / (atol + std::fabs(b[i]));
    if (!(e <= w)) w = std::isfinite(e) ? e : INFINITY;
  }
  return w;
}

// ||a - b|| / ||b||, 0 where a = b.
inline double relative(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return INFINITY;
  double e = 0, n = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    e += (a[i] - b[i]) * (a[i] - b[i]);
    n += b[i] * b[i];
  }
  return e == 0 ? 0 : std::sqrt(e / n);
}

inline double largest(const std::vector<double>& v) {
  double top = 0;
  for (double x : v) top = std::isfinite(x) ? std::max(top, std::fabs(x)) : top;
  return top;
}

// Holds `got` to `want`: `norm` bounds the relative norm of the difference, `each` its worst element against the
// largest value. `size` is how large an element could be where the sums that make it do not cancel.
inline void close(const std::string& what, const Buffer& got, const std::vector<double>& want, double norm, double each,
                  double size = 1e-30) {
  const auto v = values(got);
  const double top = std::max(size, largest(want)), w = worst(v, want, top), r = relative(v, want);
  const double e = r <= norm ? r : w <= norm * size / top ? 0 : r;
  CHECK(e <= norm && w <= each, "%s: relative %.2e, worst element %.2e", what.c_str(), e, w);
}

}  // namespace attune::test
