// The components that numbering.cu has numbered: a root's entry holds its number beside MARK.

// Gives every voxel its component's number.
extern "C" __global__ void number_voxels(u32 *parents, Grid grid) {
    u32 index = thread_index();
    if (index >= voxels_of(grid)) return;
    u32 parent = parents[index];
    // NONE holds MARK too, and roots have theirs already.
    if (!(parent & MARK)) parents[index] = parents[parent];
}

__device__ inline bool at_border(int at, u32 length) {
    return length > 1 && (at == 0 || at + 1 == (int)length);
}

// Counts the voxels of each component, and notes with 1 that it touches a side of the grid, with 2
// that it touches the first or last slice. The first voxel of each run in a row counts for all of it.
extern "C" __global__ void measure(const u32 *numbers, u32 *counts, u32 *touches, Grid grid) {
    u32 index = thread_index();
    if (index >= voxels_of(grid)) return;
    u32 number = numbers[index];
    Position at = position_of(grid, index);
    if (number == NONE || (at.x > 0 && numbers[index - 1] == number)) return;
    u32 length = 1;
    while ((u32)at.x + length < grid.width && numbers[index + length] == number) ++length;
    int last = at.x + (int)length - 1;
    u32 touched = 0;
    if (at_border(at.x, grid.width) || at_border(last, grid.width) || at_border(at.y, grid.height)) {
        touched |= 1;
    }
    if (at_border(at.z, grid.depth)) touched |= 2;
    atomicAdd(counts + (number & ~MARK), length);
    if (touched != 0) atomicOr(touches + (number & ~MARK), touched);
}

// Turns numbers from 0 into labels from 1, and what is in no component into 0.
extern "C" __global__ void numbers_to_labels(u32 *numbers, Grid grid) {
    u32 index = thread_index();
    if (index >= voxels_of(grid)) return;
    u32 number = numbers[index];
    numbers[index] = number == NONE ? 0 : (number & ~MARK) + 1;
}

// Draws the components that are kept.
extern "C" __global__ void paint_kept(const u32 *numbers, const u8 *kept, u8 *mask, Grid grid) {
    u32 index = thread_index();
    if (index >= voxels_of(grid)) return;
    u32 number = numbers[index];
    mask[index] = number == NONE ? 0 : kept[number & ~MARK];
}
