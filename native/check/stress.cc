// attune-stress: attention, its backward, and the log-probability head at sizes that cross tiles, against plain float64 sums: packed
// documents, prompt trees, documents of one token, padding, windows, shared key heads. The samples of attune-check are small; here the
// rings of tiles go round. Two runs must give the same bits; each line sums them up, and no number of processors (ATTUNE_SIMT_SMS) may
// change it. Exit 1 where a case fails.
//   attune-stress [--rows N] [--seeds N] [attention|head]      --rows bounds the cases (default 300)
#include "stress.h"

#include "../runtime/top_columns.h"

namespace attune {
namespace {

// ---- Attention

struct Mask {
  std::vector<int32_t> end, pos;
};
enum class Layout { causal, documents, trees, padded };

// Documents (trees: prompts with two or three completions) in pre-order until the rows are full; padding sees and shows nothing.
Mask lay_out(Layout layout, int rows, std::mt19937& random) {
  Mask mask{std::vector<int32_t>(static_cast<size_t>(rows)), std::vector<int32_t>(static_cast<size_t>(rows))};
  const auto fill = [&](int first, int last, int end, int pos) {
    for (int i = first; i < last; ++i) mask.end[static_cast<size_t>(i)] = end, mask.pos[static_cast<size_t>(i)] = pos + i - first;
  };
  if (layout == Layout::causal) {
    fill(0, rows, rows, 0);
    return mask;
  }
  const int used = layout == Layout::padded ? rows - rows / 5 : rows;
  fill(used, rows, 0, 0);
  std::uniform_int_distribution<int> length(1, std::max(2, rows / 3));
  for (int at = 0; at < used;) {
    const int left = used - at;
    if (layout != Layout::trees) {
      const int size = random() % 4 == 0 ? 1 : std::min(left, length(random));
      fill(at, at + size, at + size, 0);
      at += size;
      continue;
    }
    const int prompt = std::min(left, length(random)), first = at;
    at += prompt;
    for (unsigned branches = 2 + random() % 2; branches > 0 && at < used; --branches) {
      const int size = std::min(used - at, 1 + length(random) / 2);
      fill(at, at + size, at + size, prompt);
      at += size;
    }
    fill(first, first + prompt, at, 0);
  }
  return mask;
}

struct AttentionCase {
  int rows, heads, kv_heads, size;
  Layout layout;
  int window;
  DType dtype;

  std::string title() const {
    const char* names[] = {"causal", "documents", "trees", "padded"};
    return std::string(dtype == DType::bf16 ? "bf16" : "f32") + " N " + std::to_string(rows) + " heads " + std::to_string(heads) + "/" +
           std::to_string(kv_heads) + " size " + std::to_string(size) + " " + names[static_cast<int>(layout)] +
           (window ? " window " + std::to_string(window) : "");
  }
};

struct AttentionValues {
  Values q, k, v, dy, y, lse, dq, dk, dv;
};

// y, lse and all gradients by the definition, in float64.
void reference(const AttentionCase& c, const Mask& mask, double scale, AttentionValues& x) {
  const auto n = static_cast<size_t>(c.rows), size = static_cast<size_t>(c.size);
  const size_t row_q = static_cast<size_t>(c.heads) * size, row_k = static_cast<size_t>(c.kv_heads) * size;
  x.y.assign(n * row_q, 0);
  x.dq.assign(n * row_q, 0);
  x.dk.assign(n * row_k, 0);
  x.dv.assign(n * row_k, 0);
  x.lse.assign(static_cast<size_t>(c.heads) * n, INFINITY);
  Values p(n);
  std::vector<size_t> seen;
  const auto dot = [&](const double* a, const double* b) {
    double sum = 0;
    for (size_t d = 0; d < size; ++d) sum += a[d] * b[d];
    return sum;
  };
  for (size_t h = 0; h < static_cast<size_t>(c.heads); ++h) {
    const size_t to_q = h * size, to_k = h / static_cast<size_t>(c.heads / c.kv_heads) * size;
    for (size_t i = 0; i < n; ++i) {
      seen.clear();
      for (size_t j = 0; j <= i; ++j)
        if (static_cast<int>(i) < mask.end[j] && (c.window == 0 || mask.pos[i] - mask.pos[j] < c.window)) seen.push_back(j);
      if (seen.empty()) continue;
      const double *q = &x.q[i * row_q + to_q], *dy = &x.dy[i * row_q + to_q];
      double *y = &x.y[i * row_q + to_q], *dq = &x.dq[i * row_q + to_q];
      double high = -INFINITY, sum = 0;
      for (size_t j : seen) high = std::max(high, p[j] = scale * dot(q, &x.k[j * row_k + to_k]));
      for (size_t j : seen) sum += p[j] = std::exp(p[j] - high);
      x.lse[h * n + i] = high + std::log(sum);
      for (size_t j : seen) {
        p[j] /= sum;
        for (size_t d = 0; d < size; ++d) y[d] += p[j] * x.v[j * row_k + to_k + d];
      }
      const double delta = dot(dy, y);
      for (size_t j : seen) {
        const double ds = scale * p[j] * (dot(dy, &x.v[j * row_k + to_k]) - delta);
        for (size_t d = 0; d < size; ++d) {
          dq[d] += ds * x.k[j * row_k + to_k + d];
          x.dk[j * row_k + to_k + d] += ds * q[d];
          x.dv[j * row_k + to_k + d] += p[j] * dy[d];
        }
      }
    }
  }
}

std::string run_attention(const AttentionCase& c, Runner& runner, uint32_t seed) {
  std::mt19937 random(seed);
  const Mask mask = lay_out(c.layout, c.rows, random);
  const double scale = 1 / std::sqrt(static_cast<double>(c.size));
  AttentionValues x;
  const auto queries = static_cast<size_t>(c.rows) * static_cast<size_t>(c.heads * c.size), keys = queries / static_cast<size_t>(c.heads / c.kv_heads);
  x.q = normal(queries, 1, random);
  x.k = normal(keys, 1, random);
  x.v = normal(keys, 1, random);
  x.dy = normal(queries, 1, random);
  const std::vector<int64_t> shape_q = {c.rows, c.heads, c.size}, shape_k = {c.rows, c.kv_heads, c.size};
  Device q(c.dtype, shape_q), k(c.dtype, shape_k), v(c.dtype, shape_k), dy(c.dtype, shape_q), y(c.dtype, shape_q), dq(c.dtype, shape_q),
      dk(c.dtype, shape_k), dv(c.dtype, shape_k), lse(DType::f32, {c.heads, c.rows}), end(DType::i32, {c.rows}), pos(DType::i32, {c.rows});
  q.write(x.q);
  k.write(x.k);
  v.write(x.v);
  dy.write(x.dy);
  Values ends(mask.end.begin(), mask.end.end()), places(mask.pos.begin(), mask.pos.end());
  end.write(ends);
  pos.write(places);
  reference(c, mask, scale, x);

  const double relative = c.dtype == DType::bf16 ? 0.02 : 1e-4;
  const double of_gradients = c.dtype == DType::bf16 ? 0.06 : 1e-4;  // dy . y, with the rounded y, is taken from what is about as large
  const auto row = static_cast<size_t>(c.size);
  std::vector<uint8_t> first[5];
  for (int time = 0; time < 2; ++time) {
    Attention forward{q.tensor, k.tensor, v.tensor, end.tensor, {}, y.tensor, lse.tensor, scale, static_cast<double>(c.window)};
    AttentionBackward backward{q.tensor,   k.tensor,   v.tensor,  end.tensor, {}, y.tensor, lse.tensor, dy.tensor,
                               dq.tensor, dk.tensor, dv.tensor, scale,      static_cast<double>(c.window)};
    if (c.window) forward.pos = backward.pos = pos.tensor;
    std::string why = runner.run<Attention>(forward, cuda::attention, cuda::attention_scratch);
    if (why.empty()) why = compare("y", y.read(), x.y, row, relative);
    if (why.empty()) why = compare("lse", lse.read(), x.lse, 1, 1e-3);
    if (why.empty()) why = runner.run<AttentionBackward>(backward, cuda::attention_backward, cuda::attention_backward_scratch);
    if (why.empty()) why = compare("dq", dq.read(), x.dq, row, of_gradients);
    if (why.empty()) why = compare("dk", dk.read(), x.dk, row, of_gradients);
    if (why.empty()) why = compare("dv", dv.read(), x.dv, row, of_gradients);
    if (!why.empty()) return why;
    const Device* outputs[] = {&y, &lse, &dq, &dk, &dv};
    for (int i = 0; i < 5; ++i) {
      std::vector<uint8_t> bytes = outputs[i]->bytes();
      if (time > 0 && bytes != first[i]) return "a second run gave other bits";
      if (time == 0) runner.note(bytes);
      first[i] = std::move(bytes);
    }
  }
  // dq alone goes another way where dk and dv make something for it.
  AttentionBackward alone{q.tensor,  k.tensor, v.tensor, end.tensor, c.window ? pos.tensor : Tensor{}, y.tensor, lse.tensor, dy.tensor,
                          dq.tensor, {},       {},       scale,      static_cast<double>(c.window)};
  const std::string why = runner.run<AttentionBackward>(alone, cuda::attention_backward, cuda::attention_backward_scratch);
  runner.note(dq.bytes());
  return why.empty() ? compare("dq alone", dq.read(), x.dq, row, of_gradients) : why;
}

// ---- The head

struct HeadCase {
  int rows, columns, depth;
  std::string title() const {
    return "head M " + std::to_string(rows) + " V " + std::to_string(columns) + " C " + std::to_string(depth);
  }
};

std::string run_head(const HeadCase& c, Runner& runner, uint32_t seed) {
  std::mt19937 random(seed);
  const auto rows = static_cast<size_t>(c.rows), columns = static_cast<size_t>(c.columns), depth = static_cast<size_t>(c.depth);
  Values hidden = normal(rows * depth, 1, random), weight = normal(columns * depth, 2 / std::sqrt(static_cast<double>(depth)), random), targets(rows);
  for (double& t : targets) t = random() % 8 == 0 ? -1 : static_cast<double>(random() % columns);
  const Device h(DType::bf16, {c.rows, c.depth}), w(DType::bf16, {c.columns, c.depth}), t(DType::i32, {c.rows});
  h.write(hidden);
  w.write(weight);
  t.write(targets);
  Values logp(rows, 0), lse(rows, 0), entropy(rows, 0), hit(rows, 0), mean(rows, 0), z(columns), highest, exponentials;
  constexpr auto kTop = static_cast<size_t>(kTopColumns);
  for (size_t i = 0; i < rows; ++i) {
    double high = -INFINITY, sum = 0, weighted = 0, plain = 0;
    for (size_t j = 0; j < columns; ++j) {
      z[j] = 0;
      for (size_t d = 0; d < depth; ++d) z[j] += hidden[i * depth + d] * weight[j * depth + d];
      high = std::max(high, z[j]);
      plain += z[j];
    }
    for (double value : z) sum += std::exp(value - high);
    lse[i] = high + std::log(sum);
    for (size_t j = 0; j < columns; ++j) {
      if (j % kTop == 0) highest.push_back(*std::max_element(z.begin() + static_cast<int64_t>(j), z.begin() + static_cast<int64_t>(std::min(columns, j + kTop))));
      exponentials.push_back(std::exp(z[j] - highest.back()));
    }
    if (targets[i] < 0) continue;
    for (double value : z) weighted += std::exp(value - lse[i]) * value;
    const double target = z[static_cast<size_t>(targets[i])];
    logp[i] = target - lse[i];
    entropy[i] = lse[i] - weighted;
    hit[i] = target >= high;
    mean[i] = plain / static_cast<double>(columns);
  }
  std::vector<uint8_t> first[5];
  for (int time = 0; time < 2; ++time) {
    const std::vector<int64_t> shape = {c.rows};
    const Device a(DType::f32, shape), b(DType::f32, shape), e(DType::f32, shape), f(DType::f32, shape), g(DType::f32, shape);
    const LinearLogprob op{h.tensor, w.tensor, t.tensor, a.tensor, b.tensor, e.tensor, f.tensor, g.tensor, {}, {}, 0};
    std::string why = runner.run<LinearLogprob>(op, cuda::linear_logprob, cuda::linear_logprob_scratch);
    if (why.empty()) why = compare("logp", a.read(), logp, 1, 2e-5);
    if (why.empty()) why = compare("lse", b.read(), lse, 1, 2e-5);
    if (why.empty()) why = compare("entropy", e.read(), entropy, 1, 5e-5);
    if (why.empty()) why = compare("hit", f.read(), hit, 1, 0);
    if (why.empty()) why = compare("mean", g.read(), mean, 1, 1e-4);
    if (!why.empty()) return why;
    const Device* outputs[] = {&a, &b, &e, &f, &g};
    for (int i = 0; i < 5; ++i) {
      std::vector<uint8_t> bytes = outputs[i]->bytes();
      if (time > 0 && bytes != first[i]) return "a second run gave other bits";
      if (time == 0) runner.note(bytes);
      first[i] = std::move(bytes);
    }
    // The same, and what a backward needs: no other bits.
    const int64_t tiles = (c.columns + kTopColumns - 1) / kTopColumns;
    const Device shares(DType::bf16, {c.rows, c.columns}), tops(DType::f32, {c.rows, tiles});
    const LinearLogprob keeping{h.tensor, w.tensor, t.tensor, a.tensor, b.tensor, e.tensor, f.tensor, g.tensor, shares.tensor, tops.tensor, 1};
    why = runner.run<LinearLogprob>(keeping, cuda::linear_logprob, cuda::linear_logprob_scratch);
    for (int i = 0; i < 5 && why.empty(); ++i)
      if (outputs[i]->bytes() != first[i]) why = "keeping gave other bits";
    if (why.empty()) why = compare("tops", tops.read(), highest, 1, 2e-5);
    if (why.empty()) why = compare("shares", shares.read(), exponentials, 1, 0.01);
    if (!why.empty()) return why;
    for (const Device* kept : {&shares, &tops})
      if (time == 0) runner.note(kept->bytes());
  }
  return "";
}

const AttentionCase kAttention[] = {
    {1, 2, 1, 64, Layout::causal, 0, DType::bf16},      {127, 2, 2, 128, Layout::causal, 0, DType::bf16},
    {129, 4, 1, 64, Layout::documents, 0, DType::bf16}, {300, 2, 1, 128, Layout::trees, 0, DType::bf16},
    {300, 4, 2, 64, Layout::trees, 0, DType::bf16},     {257, 2, 2, 40, Layout::documents, 0, DType::bf16},
    {300, 2, 1, 96, Layout::padded, 0, DType::bf16},    {290, 2, 1, 64, Layout::documents, 50, DType::bf16},
    {280, 2, 2, 128, Layout::trees, 70, DType::bf16},   {200, 2, 1, 192, Layout::trees, 0, DType::bf16},
    {150, 2, 1, 256, Layout::documents, 0, DType::bf16}, {150, 4, 2, 64, Layout::trees, 0, DType::f32},
    {130, 2, 1, 72, Layout::padded, 30, DType::f32},    {240, 6, 2, 64, Layout::padded, 0, DType::bf16},
    {240, 4, 2, 128, Layout::padded, 0, DType::bf16},   {500, 2, 1, 64, Layout::trees, 0, DType::bf16},
    {700, 2, 2, 128, Layout::documents, 0, DType::bf16}, {1300, 2, 1, 64, Layout::causal, 0, DType::bf16},
    {1300, 2, 2, 128, Layout::trees, 0, DType::bf16},   {600, 2, 1, 64, Layout::causal, 260, DType::bf16},
    {600, 2, 2, 128, Layout::documents, 150, DType::bf16},
};
const HeadCase kHeads[] = {{1, 300, 64}, {130, 1000, 72}, {200, 515, 264}, {300, 2000, 128}, {257, 4099, 520}};

}  // namespace
}  // namespace attune

int main(int count, char** arguments) {
  using namespace attune;
  int most_rows = 300, seeds = 1;
  std::string only;
  for (int i = 1; i < count; ++i) {
    if (std::strcmp(arguments[i], "--rows") == 0 && i + 1 < count)
      most_rows = std::atoi(arguments[++i]);
    else if (std::strcmp(arguments[i], "--seeds") == 0 && i + 1 < count)
      seeds = std::atoi(arguments[++i]);
    else
      only = arguments[i];
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  Runner runner;
  int failed = 0, passed = 0;
  const auto tell = [&](const std::string& title, const std::string& why) {
    std::printf("%s  %s, bits %08x  %s\n", why.empty() ? "ok  " : "FAIL", title.c_str(), runner.noted(), why.c_str());
    ++(why.empty() ? passed : failed);
  };
  for (int seed = 1; seed <= seeds; ++seed) {
    for (const AttentionCase& c : kAttention)
      if (c.rows <= most_rows && only != "head") tell(c.title(), run_attention(c, runner, static_cast<uint32_t>(seed)));
    for (const HeadCase& c : kHeads)
      if (c.rows <= most_rows && only != "attention") tell(c.title(), run_head(c, runner, static_cast<uint32_t>(seed)));
  }
  std::printf("%d passed, %d failed (compute capability %d.%d)\n", passed, failed, runner.device().major, runner.device().minor);
  return failed > 0 || passed == 0;
}
