#include "core/team.hpp"

#ifdef _OPENMP
#include <omp.h>
#endif
#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <vector>

namespace glai {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;

// How long a helper looks out for the next call before it sleeps: between the calls of a training loop
// less passes. Waking it takes a system call, and 20 to 50 us until it runs.
constexpr microseconds kLookout{1000};
// Of these, how long without offering its core to others.
constexpr microseconds kEager{20};
// How long the caller looks out for tasks that helpers have begun before it gives up its core for them.
constexpr microseconds kLastTasks{50};
// Longer between two looks at the clock: somebody else had the core.
constexpr microseconds kAway{100};
// A helper that takes this many times as long for its last task as the caller's took has lost its core
// in the middle of it, or OpenMP's has not come.
constexpr int kLost = 2;
// After having waited for one, a thread goes without that kind of helper for this many times as long:
// such waits take a tenth of the time at most. Without OpenMP's for longer, up to kLongest, where it had
// them for a short while only.
constexpr int kWithout = 10;
constexpr std::chrono::seconds kLongest{1};

void pause() {
#ifdef __x86_64__
  __builtin_ia32_pause();
#endif
}

// Less than a microsecond, or, once it has lasted, longer where other threads want the core.
void look_away(Clock::duration waited) {
  for (int i = 0; i < 4; ++i) pause();
  if (waited > kEager) sched_yield();
}

// A call's tasks, for the helpers of one thread.
//
// `claim` holds the number of the call and, in its lower half, how many of its tasks nobody has begun.
// Who lowers it by one, with the call's number unchanged, owns a task, and the call cannot end before
// that is done: what it has read of the call before was therefore the call's own.
struct Board {
  alignas(64) std::atomic<std::uint64_t> claim{0};
  std::atomic<std::int64_t> n_tasks{0};
  std::atomic<Task> task{nullptr};
  std::atomic<void*> context{nullptr};
  std::atomic<int> helpers{0};                           // that may take part
  alignas(64) std::atomic<std::uint32_t> unfinished{0};  // the caller may sleep on it
  alignas(64) std::atomic<bool> closed{false};           // the thread that they help has ended
};

constexpr std::uint64_t kCall = std::uint64_t{1} << 32;

std::uint32_t call_of(std::uint64_t claim) { return static_cast<std::uint32_t>(claim >> 32); }
std::uint32_t not_begun(std::uint64_t claim) { return static_cast<std::uint32_t>(claim); }

// Where a helper sleeps.
struct alignas(64) Bed {
  std::atomic<std::uint32_t> asleep{0};
};

thread_local bool in_task = false;

// Does tasks of the call until none is left to begin; returns how many it did.
std::uint32_t do_tasks(Board& board, std::uint32_t call) {
  std::uint32_t done = 0;
  std::uint64_t claim = board.claim.load(std::memory_order_acquire);
  in_task = true;
  while (call_of(claim) == call && not_begun(claim) > 0) {
    const std::int64_t n_tasks = board.n_tasks.load(std::memory_order_relaxed);
    const Task task = board.task.load(std::memory_order_relaxed);
    void* context = board.context.load(std::memory_order_relaxed);
    if (!board.claim.compare_exchange_weak(claim, claim - 1, std::memory_order_acq_rel)) continue;
    task(context, n_tasks - not_begun(claim));
    ++done;
    claim = board.claim.load(std::memory_order_acquire);
  }
  in_task = false;
  return done;
}

void finish(Board& board, std::uint32_t done) {
  if (done == 0) return;
  if (board.unfinished.fetch_sub(done, std::memory_order_acq_rel) == done) board.unfinished.notify_one();
}

struct Helper {
  std::shared_ptr<Board> board;
  std::shared_ptr<Bed> bed;
  int number;

  // Returns the claim of a call that this helper has not seen, or one of before where there is none.
  std::uint64_t look_out(std::uint32_t seen) const {
    const auto begin = Clock::now();
    auto now = begin;
    for (;;) {
      const std::uint64_t claim = board->claim.load(std::memory_order_acquire);
      if (call_of(claim) != seen || board->closed.load(std::memory_order_relaxed)) return claim;
      const auto before = now;
      look_away(now - begin);
      now = Clock::now();
      if (now - begin > kLookout || now - before > kAway) return claim;
    }
  }

  void run() const {
    std::uint32_t seen = 0;
    for (;;) {
      std::uint64_t claim = look_out(seen);
      if (call_of(claim) == seen) {
        bed->asleep.store(1, std::memory_order_seq_cst);
        // Whoever publishes a call from here on sees that it must wake this thread.
        claim = board->claim.load(std::memory_order_seq_cst);
        if (call_of(claim) == seen && !board->closed.load(std::memory_order_seq_cst))
          bed->asleep.wait(1);
        bed->asleep.store(0, std::memory_order_relaxed);
        claim = board->claim.load(std::memory_order_acquire);
      }
      if (board->closed.load(std::memory_order_relaxed)) return;
      if (call_of(claim) == seen) continue;
      seen = call_of(claim);
      if (number < board->helpers.load(std::memory_order_relaxed))
        finish(*board, do_tasks(*board, seen));
    }
  }
};

void* run_helper(void* argument) {
  const std::unique_ptr<Helper> helper(static_cast<Helper*>(argument));
  helper->run();
  return nullptr;
}

// Starts a thread that takes no signals, which are its process's main thread's; false where there can be
// no more threads.
bool start(std::unique_ptr<Helper> helper) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const bool started = pthread_create(&thread, nullptr, run_helper, helper.get()) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (!started) return false;
  pthread_detach(thread);
  static_cast<void>(helper.release());
  return true;
}

// How often this process is a fork of another: of that one's threads only the one that forked is here.
std::atomic<int> forks{0};
[[maybe_unused]] const int watched =
    pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); });

struct Waited {
  Clock::duration for_helpers, for_a_task;
  bool in_vain() const { return for_helpers > kAway + kLost * for_a_task; }
};

void run_alone(std::int64_t n_tasks, Task task, void* context) {
  const bool outer = in_task;
  in_task = true;  // what a task calls runs on this thread alone, whoever runs the task
  for (std::int64_t i = 0; i < n_tasks; ++i) task(context, i);
  in_task = outer;
}

// The helpers that are OpenMP's, until one of them was waited for in vain.
class Shared {
 public:
  // False where it is not the time for them.
  bool run(std::int64_t n_tasks, int helpers, Task task, void* context, Clock::time_point begin) {
#ifdef _OPENMP
    // libgomp never comes back from a region in a fork of a process that had one.
    if (begin < again_ || forks.load(std::memory_order_relaxed) > 0) return false;
    std::atomic<std::int64_t> next{0};
    std::int64_t done = 0;
    Clock::time_point idle = begin;
#pragma omp parallel num_threads(helpers + 1)
    {
      in_task = true;
      std::int64_t mine = 0;
      for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n_tasks; ++mine) {
        task(context, i);
      }
      in_task = false;
      if (omp_get_thread_num() == 0) {
        done = mine;
        idle = Clock::now();
      }
    }
    const auto end = Clock::now();
    const Waited waited{end - idle, (idle - begin) / std::max<std::int64_t>(done, 1)};
    if (waited.in_vain()) {
      const bool soon = begin - again_ < without_;
      const auto longer = soon ? 2 * without_ : Clock::duration::zero();
      without_ = std::min<Clock::duration>(std::max(kWithout * waited.for_helpers, longer), kLongest);
      again_ = end + without_;
    }
    return true;
#else
    return false;
#endif
  }

 private:
  Clock::time_point again_{};
  Clock::duration without_{};
};

// The helpers that are our own.
class Team {
 public:
  ~Team() { dismiss(); }

  void run(std::int64_t n_tasks, int helpers, Task task, void* context, Clock::time_point begin) {
    if (begin < again_) return run_alone(n_tasks, task, context);
    hire(helpers);
    Board& board = *board_;
    board.n_tasks.store(n_tasks, std::memory_order_relaxed);
    board.task.store(task, std::memory_order_relaxed);
    board.context.store(context, std::memory_order_relaxed);
    board.helpers.store(helpers, std::memory_order_relaxed);
    board.unfinished.store(static_cast<std::uint32_t>(n_tasks), std::memory_order_relaxed);
    ++call_;
    board.claim.store(call_ * kCall + static_cast<std::uint64_t>(n_tasks), std::memory_order_seq_cst);
    const std::size_t wanted = std::min(beds_.size(), static_cast<std::size_t>(helpers));
    for (std::size_t i = 0; i < wanted; ++i) wake(*beds_[i]);
    const std::uint32_t done = do_tasks(board, call_);
    finish(board, done);
    if (board.unfinished.load(std::memory_order_acquire) > 0) wait_for_helpers(begin, done);
  }

 private:
  void hire(int helpers) {
    if (const int now = forks.load(std::memory_order_relaxed); now != forks_) {
      board_.reset();  // theirs, who are not here; it stays in memory
      beds_.clear();
      forks_ = now;
    }
    if (!board_) board_ = std::make_shared<Board>();
    while (beds_.size() < static_cast<std::size_t>(helpers)) {
      auto bed = std::make_shared<Bed>();
      auto helper = std::make_unique<Helper>(Helper{board_, bed, static_cast<int>(beds_.size())});
      if (!start(std::move(helper))) return;
      beds_.push_back(std::move(bed));
    }
  }

  void dismiss() {
    if (!board_ || forks.load(std::memory_order_relaxed) != forks_) return;
    board_->closed.store(true, std::memory_order_seq_cst);
    for (const auto& bed : beds_) wake(*bed);
  }

  static void wake(Bed& bed) {
    if (bed.asleep.load(std::memory_order_seq_cst) == 0) return;
    bed.asleep.store(0, std::memory_order_seq_cst);
    bed.asleep.notify_one();
  }

  // `begin`: of the call; `done`: tasks that this thread did.
  void wait_for_helpers(Clock::time_point begin, std::uint32_t done) {
    const auto from = Clock::now();
    auto now = from;
    for (;;) {
      const std::uint32_t left = board_->unfinished.load(std::memory_order_acquire);
      if (left == 0) break;
      if (now - from > kLastTasks) {
        board_->unfinished.wait(left, std::memory_order_acquire);
      } else {
        look_away(now - from);
      }
      now = Clock::now();
    }
    const Waited waited{now - from, (from - begin) / std::max<std::uint32_t>(done, 1)};
    if (waited.in_vain()) again_ = now + kWithout * waited.for_helpers;
  }

  std::shared_ptr<Board> board_;
  std::vector<std::shared_ptr<Bed>> beds_;
  std::uint32_t call_ = 0;
  int forks_ = forks.load(std::memory_order_relaxed);
  Clock::time_point again_{};
};

}  // namespace

void run_tasks(std::int64_t n_tasks, int helpers, Task task, void* context) {
  if (in_task || helpers <= 0 || n_tasks <= 1 || n_tasks >= static_cast<std::int64_t>(kCall)) {
    return run_alone(n_tasks, task, context);
  }
  thread_local Shared shared;
  thread_local Team team;
  const auto begin = Clock::now();
  const int most = static_cast<int>(std::min<std::int64_t>(helpers, n_tasks - 1));
  if (shared.run(n_tasks, most, task, context, begin)) return;
  team.run(n_tasks, most, task, context, begin);
}

}  // namespace glai
