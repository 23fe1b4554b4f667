// The grid of a volume, and where a thread stands in it. Voxels lie x fastest, then y, then z. A grid
// has fewer than 2^31 voxels, so that an index and the sum of an index and a block fit 32 bits.

typedef unsigned char u8;
typedef unsigned int u32;

struct Grid {
    u32 width, height, depth;
};
static_assert(sizeof(Grid) == 12, "the host passes three numbers");

struct Position {
    int x, y, z;
};

__device__ inline u32 thread_index() { return blockIdx.x * blockDim.x + threadIdx.x; }

__device__ inline u32 voxels_of(Grid grid) { return grid.width * grid.height * grid.depth; }

__device__ inline Position position_of(Grid grid, u32 index) {
    u32 row = index / grid.width;
    return Position{(int)(index % grid.width), (int)(row % grid.height), (int)(row / grid.height)};
}

__device__ inline u32 index_of(Grid grid, int x, int y, int z) {
    return ((u32)z * grid.height + (u32)y) * grid.width + (u32)x;
}

// The nearest place in 0..length.
__device__ inline int clamped(int at, u32 length) {
    return at < 0 ? 0 : at >= (int)length ? (int)length - 1 : at;
}

__device__ inline bool within(int at, u32 length) { return at >= 0 && at < (int)length; }
