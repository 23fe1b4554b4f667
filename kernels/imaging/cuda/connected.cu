// Which voxels are connected: disjoint sets, united by all threads at once.
//
// `parents` holds for each accepted voxel one of its component with no greater index, and NONE for
// all others. A tree's root is the first voxel of its tree in raster order, since trees are only ever
// hung below smaller roots (Komura 2015; Playne and Hawick 2018): the result depends on no order.

constexpr u32 NONE = 0xffffffff;
// Set in a root's entry: the component is marked, or has its number there.
constexpr u32 MARK = 0x80000000;

// What another thread may be writing is read anew each time.
__device__ inline u32 parent_of(const u32 *parents, u32 of) {
    return *(const volatile u32 *)(parents + of);
}

__device__ inline u32 root_of(const u32 *parents, u32 of) {
    for (u32 parent = parent_of(parents, of); parent != of; parent = parent_of(parents, of)) {
        of = parent;
    }
    return of;
}

__device__ inline void unite(u32 *parents, u32 a, u32 b) {
    for (;;) {
        a = root_of(parents, a);
        b = root_of(parents, b);
        if (a == b) return;
        u32 low = a < b ? a : b, high = a < b ? b : a;
        u32 found = atomicMin(parents + high, low);
        if (found == high) return;
        // Another thread hung `high` below `found` meanwhile; that tree and `low` are one.
        a = low;
        b = found;
    }
}

extern "C" __global__ void accept_range(const float *image, u32 *parents, float lower, float upper,
                                        Grid grid) {
    u32 index = thread_index();
    if (index >= voxels_of(grid)) return;
    float value = image[index];
    parents[index] = value >= lower && value <= upper ? index : NONE;
}

extern "C" __global__ void accept_mask(const u8 *mask, u32 *parents, Grid grid) {
    u32 index = thread_index();
    if (index < voxels_of(grid)) parents[index] = mask[index] != 0 ? index : NONE;
}

// Unites each accepted voxel with its accepted neighbours before it in raster order. Neighbours are at
// most `steps_max` steps away, counted axis by axis; in slices, only those of the same slice.
extern "C" __global__ void unite_neighbours(u32 *parents, u32 steps_max, u32 deep, Grid grid) {
    u32 index = thread_index();
    if (index >= voxels_of(grid) || parent_of(parents, index) == NONE) return;
    Position at = position_of(grid, index);
    for (int dz = deep ? -1 : 0; dz <= 0; ++dz) {
        for (int dy = -1; dy <= (dz < 0 ? 1 : 0); ++dy) {
            for (int dx = -1; dx <= (dz < 0 || dy < 0 ? 1 : -1); ++dx) {
                u32 steps = (u32)((dx != 0) + (dy != 0) + (dz != 0));
                if (steps > steps_max || !within(at.x + dx, grid.width) ||
                    !within(at.y + dy, grid.height) || !within(at.z + dz, grid.depth)) {
                    continue;
                }
                u32 other = index_of(grid, at.x + dx, at.y + dy, at.z + dz);
                if (parent_of(parents, other) != NONE) unite(parents, index, other);
            }
        }
    }
}

// Hangs every voxel directly below its root.
extern "C" __global__ void flatten(u32 *parents, Grid grid) {
    u32 index = thread_index();
    if (index >= voxels_of(grid) || parents[index] == NONE) return;
    parents[index] = root_of(parents, index);
}

__device__ inline void mark_component(u32 *parents, u32 index) {
    u32 parent = parent_of(parents, index);
    if (parent != NONE) atomicOr(parents + (parent & ~MARK), MARK);
}

// Marks the components of some voxels.
extern "C" __global__ void mark_seeds(u32 *parents, const u32 *seeds, u32 count) {
    u32 index = thread_index();
    if (index < count) mark_component(parents, seeds[index]);
}

// Marks the components of the voxels that are marked strong.
extern "C" __global__ void mark_strong(u32 *parents, const u8 *marks, Grid grid) {
    u32 index = thread_index();
    if (index < voxels_of(grid) && marks[index] == STRONG) mark_component(parents, index);
}

// Draws the marked components.
extern "C" __global__ void paint_marked(const u32 *parents, u8 *mask, Grid grid) {
    u32 index = thread_index();
    if (index >= voxels_of(grid)) return;
    u32 parent = parents[index];
    mask[index] = parent != NONE && ((parent & MARK) || (parents[parent] & MARK)) ? 1 : 0;
}
