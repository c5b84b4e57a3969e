// What the passes of attention share: places in scratch, the mask summed up by panels of keys, and packed panels of K
// and V; after rows.inl. A panel is as many neighbouring keys as the micro-kernel's tile has columns.

namespace attune::cpu::ISA {
namespace {

// j <= i < end[j], and pos[i] - pos[j] < window: by key, and by panel what is enough to skip it or to leave the mask
// out. Everything is a small whole number, exact in fp32.
struct Mask {
  int64_t n, columns, panels;
  bool windowed;
  float window;
  float *index, *end, *pos;  // by key, to the end of the last panel; keys beyond the last have end 0
  float *lowest_end, *highest_end, *lowest_pos, *highest_pos;  // by panel

  template <class A>
  Mask(const A& a, int64_t columns, Places& at)
      : n(a.end.size()), columns(columns), panels((n + columns - 1) / columns) {
    windowed = a.window > 0;
    window = static_cast<float>(a.window);
    index = at.take<float>(panels * columns);
    end = at.take<float>(panels * columns);
    pos = at.take<float>(windowed ? panels * columns : 0);
    lowest_end = at.take<float>(panels);
    highest_end = at.take<float>(panels);
    lowest_pos = at.take<float>(windowed ? panels : 0);
    highest_pos = at.take<float>(windowed ? panels : 0);
  }

  template <class A>
  void fill(const A& a) {
    for (int64_t j = 0; j < panels * columns; ++j) {
      index[j] = static_cast<float>(j);
      end[j] = j < n ? static_cast<float>(a.end.template as<int32_t>()[j]) : 0.0f;
      if (windowed) pos[j] = j < n ? static_cast<float>(a.pos.template as<int32_t>()[j]) : 0.0f;
    }
    for (int64_t p = 0; p < panels; ++p) {
      bounds(end + p * columns, columns, &lowest_end[p], &highest_end[p]);
      if (windowed) bounds(pos + p * columns, std::min(columns, n - p * columns), &lowest_pos[p], &highest_pos[p]);
    }
  }

  static void bounds(const float* x, int64_t count, float* low, float* high) {
    *low = *std::min_element(x, x + count);
    *high = *std::max_element(x, x + count);
  }

  bool never_seen(int64_t j) const { return end[j] <= index[j]; }

  // Calls f(first, end) for every run of rows that no key before it reaches: documents, trees, runs of rows that see
  // nothing.
  template <class F>
  void segments(F f) const {
    for (int64_t i = 0, j; i < n; i = j) {
      j = i + 1;
      if (never_seen(i)) {
        while (j < n && never_seen(j)) ++j;
      } else {
        for (float reach = end[i]; j < n && index[j] < reach; ++j) reach = std::max(reach, end[j]);
      }
      f(i, j);
    }
  }

  ATTUNE_INLINE M visible(int64_t i, int64_t j) const {  // for keys j ... j + V::W - 1
    M m = both(less(load(index + j), set(static_cast<float>(i + 1))), less(set(static_cast<float>(i)), load(end + j)));
    if (windowed) m = both(m, less(set(pos[i]) - load(pos + j), set(window)));
    return m;
  }
};

// The panels that rows [first, last) see, among panels [from, to), in ascending order.
struct Visible {
  static constexpr int kMost = 128;
  int count = 0;
  int32_t panel[kMost];
  bool full[kMost];  // every row sees every key

  // Stops when `most` are found; returns the panel to go on from.
  int64_t find(const Mask& m, int64_t first, int64_t last, int64_t from, int64_t to, int most) {
    count = 0;
    float low = 0, high = 0;
    if (m.windowed) Mask::bounds(m.pos + first, last - first, &low, &high);
    const float begin = static_cast<float>(first), end = static_cast<float>(last);
    for (; from < to && count < most; ++from) {
      if (m.highest_end[from] <= begin || (m.windowed && low - m.highest_pos[from] >= m.window)) continue;
      panel[count] = static_cast<int32_t>(from);
      full[count++] = (from + 1) * m.columns - 1 <= first && m.lowest_end[from] >= end &&
                      !(m.windowed && high - m.lowest_pos[from] >= m.window);
    }
    return from;
  }
  // How many of them begin at or before this row.
  int up_to(int64_t row, int64_t columns) const {
    int c = count;
    while (c > 0 && panel[c - 1] * columns > row) --c;
    return c;
  }
  // Calls f(slot, slots, panel) for runs of neighbouring panels among the first `most`.
  template <class F>
  ATTUNE_INLINE void runs(int most, F f) const {
    for (int s = 0, e; s < most; s = e) {
      for (e = s + 1; e < most && panel[e] == panel[e - 1] + 1;) ++e;
      f(s, e - s, static_cast<int64_t>(panel[s]));
    }
  }
};

// Packed forms of the rows of one head of k or v, panel by panel.
//   by_dims  B panels of x^T: [panel][units of D][columns], for products over D (scores, dy v^T)
//   by_keys  B panels of x: [D / columns][units of all keys][columns], for products over keys (p v, ds k)
// Of all panels, `panels` from number `from` on are there at a time.
struct Packed {
  const GemmCore* core;
  int64_t D, panels, dim_panels, from = 0;

  int64_t dims_bytes() const { return panels * core->panel_bytes(D); }
  int64_t keys_bytes() const { return dim_panels * panels * core->panel_bytes(core->columns); }
  const char* by_dims(const char* base, int64_t panel) const { return base + (panel - from) * core->panel_bytes(D); }
  const char* by_keys(const char* base, int64_t panel, int64_t dim_panel) const {
    return base + (dim_panel * panels + panel - from) * core->panel_bytes(core->columns);
  }

  void pack_dims(const Tensor& x, int64_t head, int64_t panel, char* base) const {
    const int64_t stride = x.shape[1] * D, first = panel * core->columns,
                  rows = std::min<int64_t>(core->columns, x.shape[0] - first);
    core->pack_b_t(x.as<char>() + (first * stride + head * D) * width(x.dtype), stride, D, static_cast<int>(rows),
                   base + (panel - from) * core->panel_bytes(D));
  }

  // Rows that nobody ever sees are packed as 0: whatever they hold, 0 times it must add nothing.
  void pack_keys(const Tensor& x, int64_t head, int64_t panel, const Mask& mask, char* base) const {
    const int64_t columns = core->columns, stride = x.shape[1] * D, first = panel * columns,
                  rows = std::min(columns, x.shape[0] - first);
    const int64_t value = core->widened ? 4 : width(x.dtype),
                  step = columns * core->pair;  // bytes of a value, values of a unit row
    for (int64_t p = 0; p < dim_panels; ++p) {
      char* to = base + (p * panels + panel - from) * core->panel_bytes(columns);
      const char* source = x.as<char>() + (first * stride + head * D + p * columns) * width(x.dtype);
      core->pack_b(source, stride, rows, static_cast<int>(std::min(columns, D - p * columns)), to);
      std::memset(to + core->units(rows) * columns * 4, 0,
                  static_cast<size_t>((core->units(columns) - core->units(rows)) * columns * 4));
      for (int64_t r = 0; r < rows; ++r)
        if (mask.never_seen(first + r))
          for (int64_t j = 0; j < columns; ++j)
            std::memset(to + (r / core->pair * step + j * core->pair + r % core->pair) * value, 0,
                        static_cast<size_t>(value));
    }
  }
};

// Packed heads are held as many at a time as fit a budget, at least one.
struct HeadGroups {
  static constexpr int64_t kBudget = int64_t{32} << 20;
  int64_t at_once, bytes;  // bytes: enough for any smaller number of keys too, when more heads fit at a time

  HeadGroups(int64_t heads, int64_t bytes_per_head)
      : at_once(std::max<int64_t>(1, std::min(heads, kBudget / std::max<int64_t>(1, bytes_per_head)))),
        bytes(std::min(heads * bytes_per_head, std::max(kBudget, bytes_per_head))) {}
};

}  // namespace
}  // namespace attune::cpu::ISA
