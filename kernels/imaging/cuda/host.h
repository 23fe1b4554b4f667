// What the device sources need to be built by a compiler of the processor and run there, for tests.
//
// Blocks run in a shuffled order on a few threads at once, so that what depends on their order or
// lacks an atomic operation shows. The threads of a block run one after another, up to the next
// __syncthreads and then on from it; threads that do not meet at it are an error.

#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include <setjmp.h>
#include <ucontext.h>

#define __global__
#define __device__
// A block stays on the thread it began on.
#define __shared__ static thread_local

struct Index {
    unsigned int x;
};
static thread_local Index threadIdx, blockIdx;
static Index blockDim;

inline unsigned int atomicAdd(unsigned int *to, unsigned int value) {
    return __atomic_fetch_add(to, value, __ATOMIC_RELAXED);
}
inline unsigned int atomicOr(unsigned int *to, unsigned int value) {
    return __atomic_fetch_or(to, value, __ATOMIC_RELAXED);
}
inline unsigned int atomicMin(unsigned int *to, unsigned int value) {
    unsigned int found = __atomic_load_n(to, __ATOMIC_RELAXED);
    while (value < found &&
           !__atomic_compare_exchange_n(to, &found, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return found;
}

namespace host {

using Work = std::function<void()>;

// The threads of one block as coroutines. A thread begins on its own stack by setcontext; from then on
// jumps go back and forth, as they need no call of the system and contexts do.
struct Block {
    static constexpr size_t STACK_BYTES = 32 << 10;
    struct Place {
        jmp_buf jump;
    };
    Place outside;
    std::vector<Place> threads;
    std::vector<ucontext_t> beginnings;
    std::vector<bool> begun, ended;
    std::unique_ptr<char[]> stacks;
    const Work *work = nullptr;
    size_t current = 0;
};
static thread_local Block *running = nullptr;

inline void wait_for_block() {
    Block *block = running;
    if (_setjmp(block->threads[block->current].jump) == 0) _longjmp(block->outside.jump, 1);
}

inline void begin_thread() {
    Block *block = running;
    (*block->work)();
    block->ended[block->current] = true;
    _longjmp(block->outside.jump, 1);
}

// Goes on with a thread until it waits or ends.
__attribute__((noinline)) inline void go_on(Block &block, size_t thread) {
    block.current = thread;
    if (_setjmp(block.outside.jump) != 0) return;
    if (block.begun[thread]) _longjmp(block.threads[thread].jump, 1);
    block.begun[thread] = true;
    setcontext(&block.beginnings[thread]);
}

// Runs a block whose threads wait for each other. Returns whether all of them always met.
inline bool run_meeting(Block &block, const Work &work) {
    size_t count = blockDim.x;
    block.threads.resize(count);
    block.beginnings.resize(count);
    if (!block.stacks) block.stacks.reset(new char[count * Block::STACK_BYTES]);
    block.begun.assign(count, false);
    block.ended.assign(count, false);
    block.work = &work;
    running = &block;
    for (size_t thread = 0; thread < count; ++thread) {
        ucontext_t &context = block.beginnings[thread];
        getcontext(&context);
        context.uc_stack.ss_sp = &block.stacks[thread * Block::STACK_BYTES];
        context.uc_stack.ss_size = Block::STACK_BYTES;
        context.uc_link = nullptr;
        makecontext(&context, begin_thread, 0);
    }
    for (size_t over = 0; over < count;) {
        over = 0;
        for (size_t thread = 0; thread < count; ++thread) {
            threadIdx.x = (unsigned int)thread;
            go_on(block, thread);
            over += block.ended[thread];
        }
        if (over != 0 && over != count) return false;
    }
    return true;
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
    kernel(*static_cast<A *>(arguments[I])...);
}

struct Kernel {
    const char *name;
    // Whether its threads wait for each other.
    bool meeting;
    std::function<void(void **)> run;
};

template <class... A>
Kernel kernel(const char *name, bool meeting, void (*function)(A...)) {
    return {name, meeting, [function](void **arguments) {
                call(function, arguments, std::index_sequence_for<A...>{});
            }};
}

// Runs a kernel. Returns whether its threads always met.
inline bool launch(const Kernel &kernel, unsigned int blocks, unsigned int threads, void **arguments) {
    blockDim.x = threads;
    std::atomic<unsigned int> next{0};
    std::atomic<bool> met{true};
    auto work_off = [&] {
        Block block;
        Work work = [&] { kernel.run(arguments); };
        for (unsigned int k; (k = next.fetch_add(1)) < blocks;) {
            // Odd blocks first, from the last: no order that a kernel could lean on.
            unsigned int odd = blocks / 2;
            blockIdx.x = k < odd ? 2 * (odd - k) - 1 : 2 * (k - odd);
            if (kernel.meeting) {
                if (!run_meeting(block, work)) met = false;
                continue;
            }
            for (unsigned int thread = 0; thread < threads; ++thread) {
                threadIdx.x = thread;
                work();
            }
        }
    };
    std::vector<std::thread> workers;
    for (unsigned int k = 1; k < 4 && k < blocks; ++k) workers.emplace_back(work_off);
    work_off();
    for (std::thread &worker : workers) worker.join();
    return met;
}

}  // namespace host

inline void __syncthreads() { host::wait_for_block(); }
