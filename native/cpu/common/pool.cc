// Tasks are claimed by fetch-add from one 64-bit word (generation, total, next). The caller waits until all tasks are done, never
// until all threads have answered: a thread that the system has not scheduled costs nothing.
#include "pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <vector>

#include "../../runtime/host.h"

namespace attune::cpu {
namespace {

constexpr int kBits = 20;                                // of total and of next
constexpr uint64_t kMask = (uint64_t{1} << kBits) - 1;
constexpr int64_t kMost = int64_t{1} << (kBits - 1);     // tasks of one round: leaves room for claims past the end
constexpr int kSpins = 4000, kYields = 64;

uint64_t next_of(uint64_t w) { return w & kMask; }
uint64_t total_of(uint64_t w) { return (w >> kBits) & kMask; }
bool open(uint64_t w) { return next_of(w) < total_of(w); }

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class Threads final : public Pool {
 public:
  explicit Threads(int threads) {
    seats_.resize(std::max(threads, 1) - 1);
    for (size_t i = 0; i < seats_.size(); ++i) {
      seats_[i] = {this, static_cast<int>(i) + 1, {}};
      if (pthread_create(&seats_[i].handle, nullptr, &Threads::main, &seats_[i]) != 0) break;
      ++started_;
    }
  }

  ~Threads() override {
    stop_.store(true);
    {
      std::lock_guard<std::mutex> hold(mutex_);
    }
    wake_.notify_all();
    for (int i = 0; i < started_; ++i) pthread_join(seats_[i].handle, nullptr);
  }

  int threads() const override { return started_ + 1; }

  void run(int64_t count, void (*task)(void*, int64_t, int), void* arg) override {
    if (started_ == 0 || count <= 1) {
      for (int64_t i = 0; i < count; ++i) {
        task(arg, i, 0);
        offer_cpu();
      }
      return;
    }
    for (int64_t base = 0; base < count; base += kMost) round(base, std::min(kMost, count - base), task, arg);
  }

 private:
  struct Seat {
    Threads* pool;
    int index;
    pthread_t handle;
  };

  void round(int64_t base, int64_t count, void (*task)(void*, int64_t, int), void* arg) {
    task_ = task;
    arg_ = arg;
    base_ = base;
    done_.store(0, std::memory_order_relaxed);
    generation_ += 1;
    word_.store(generation_ << (2 * kBits) | static_cast<uint64_t>(count) << kBits);
    if (sleepers_.load() > 0) {
      { std::lock_guard<std::mutex> hold(mutex_); }
      wake_.notify_all();
    }
    work(0);
    for (int i = 0; done_.load(std::memory_order_acquire) < count; ++i) {
      if (i < kSpins)
        pause();
      else if (i < kSpins + kYields)
        sched_yield();
      else {
        std::unique_lock<std::mutex> hold(mutex_);
        caller_sleeps_.store(true);
        finished_.wait(hold, [&] { return done_.load() >= count; });
        caller_sleeps_.store(false);
      }
    }
  }

  // Claims tasks until none is left. The fields of a round stay put while one of its tasks is claimed and not yet done.
  void work(int thread) {
    while (open(word_.load(std::memory_order_relaxed))) {
      const uint64_t w = word_.fetch_add(1, std::memory_order_acq_rel);
      if (!open(w)) return;
      const int64_t count = static_cast<int64_t>(total_of(w));
      task_(arg_, base_ + static_cast<int64_t>(next_of(w)), thread);
      if (done_.fetch_add(1) + 1 == count && caller_sleeps_.load()) {
        { std::lock_guard<std::mutex> hold(mutex_); }
        finished_.notify_one();
      }
      offer_cpu();
    }
  }

  static void* main(void* seat) {
    auto* s = static_cast<Seat*>(seat);
    s->pool->loop(s->index);
    return nullptr;
  }

  void loop(int thread) {
    yield_to_others();
    for (int idle = 0; !stop_.load(std::memory_order_relaxed);) {
      if (open(word_.load(std::memory_order_relaxed))) {
        work(thread);
        idle = 0;
      } else if (idle < kSpins + kYields) {
        idle < kSpins ? pause() : static_cast<void>(sched_yield());
        ++idle;
      } else {
        std::unique_lock<std::mutex> hold(mutex_);
        sleepers_.fetch_add(1);
        wake_.wait(hold, [&] { return stop_.load() || open(word_.load()); });
        sleepers_.fetch_sub(1);
        idle = 0;
      }
    }
  }

  alignas(64) std::atomic<uint64_t> word_{0};
  alignas(64) std::atomic<int64_t> done_{0};
  std::atomic<bool> caller_sleeps_{false};
  alignas(64) std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};
  void (*task_)(void*, int64_t, int) = nullptr;
  void* arg_ = nullptr;
  int64_t base_ = 0;
  uint64_t generation_ = 0;
  std::mutex mutex_;
  std::condition_variable wake_, finished_;
  std::vector<Seat> seats_;
  int started_ = 0;
};

}  // namespace

std::unique_ptr<Pool> make_pool(int threads) { return std::make_unique<Threads>(threads); }

}  // namespace attune::cpu
