// Numbers for roots, in raster order: counted block by block, the counts summed by one block, and the
// numbers given block by block. All threads of a block wait for each other in these kernels, those
// beyond the end of the grid too.

constexpr u32 BLOCK_MAX = 1024;

// The sum of the values of this thread and those before it in its block.
__device__ inline u32 sum_to_here(u32 value, u32 *sums) {
    u32 thread = threadIdx.x;
    sums[thread] = value;
    __syncthreads();
    for (u32 distance = 1; distance < blockDim.x; distance *= 2) {
        u32 before = thread >= distance ? sums[thread - distance] : 0;
        __syncthreads();
        sums[thread] += before;
        __syncthreads();
    }
    return sums[thread];
}

extern "C" __global__ void count_roots(const u32 *parents, u32 *counts, Grid grid) {
    __shared__ u32 sums[BLOCK_MAX];
    u32 index = thread_index();
    u32 sum = sum_to_here(index < voxels_of(grid) && parents[index] == index, sums);
    if (threadIdx.x == blockDim.x - 1) counts[blockIdx.x] = sum;
}

// Turns counts into the sums of those before each, and puts the sum of all behind them. One block.
extern "C" __global__ void sum_counts(u32 *counts, u32 length) {
    __shared__ u32 sums[BLOCK_MAX];
    u32 total = 0;
    for (u32 first = 0; first < length; first += blockDim.x) {
        u32 index = first + threadIdx.x;
        u32 count = index < length ? counts[index] : 0;
        u32 sum = sum_to_here(count, sums);
        if (index < length) counts[index] = total + sum - count;
        total += sums[blockDim.x - 1];
        __syncthreads();
    }
    if (threadIdx.x == 0) counts[length] = total;
}

extern "C" __global__ void number_roots(u32 *parents, const u32 *counts, Grid grid) {
    __shared__ u32 sums[BLOCK_MAX];
    u32 index = thread_index();
    bool root = index < voxels_of(grid) && parents[index] == index;
    u32 sum = sum_to_here(root, sums);
    if (root) parents[index] = MARK | (counts[blockIdx.x] + sum - 1);
}
