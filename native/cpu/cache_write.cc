// cache_write: y = cache with y[slot[m], place[m]] = x[m]; a negative or out-of-range slot or place writes nothing.
// source: lib/ops/cache_write.ts. In place over the cache it touches only the M rows; later m win where two name one
// place.
#include <cstring>

#include "../runtime/context.h"
#include "../runtime/ops.gen.h"
#include "elements.h"

namespace attune::cpu {

void cache_write(const CacheWrite& a, Context& c) {
  const int64_t slots = a.cache.shape[0], places = a.cache.shape[1], row = a.cache.shape[2] * a.cache.shape[3];
  if (a.y.data != a.cache.data) {
    const int64_t bytes = places * row * width(a.cache.dtype);
    c.parallel(slots, [&](int64_t s, int) {
      std::memcpy(a.y.as<char>() + s * bytes, a.cache.as<char>() + s * bytes, size_t(bytes));
    });
  }
  const int32_t* slot = a.slot.as<int32_t>();
  const int32_t* place = a.place.as<int32_t>();
  for (int64_t m = 0, count = a.x.rows(); m < count; ++m) {
    if (slot[m] < 0 || slot[m] >= slots || place[m] < 0 || place[m] >= places) continue;
    const int64_t to = (slot[m] * places + place[m]) * row, from = m * row;
    if (a.x.dtype == a.y.dtype) {
      const int64_t w = width(a.y.dtype);
      std::memcpy(a.y.as<char>() + to * w, a.x.as<char>() + from * w, size_t(row * w));
    } else {
      with_float(a.x.dtype, [&](auto ex) {
        with_float(a.y.dtype, [&](auto ey) {
          using X = decltype(ex);
          using Y = decltype(ey);
          for (int64_t d = 0; d < row; ++d) a.y.as<Y>()[to + d] = from_f32<Y>(to_f32(a.x.as<X>()[from + d]));
        });
      });
    }
  }
}

}  // namespace attune::cpu
