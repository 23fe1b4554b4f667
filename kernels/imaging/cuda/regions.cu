// What regions grow through, and what they hold: the tests and sums of operations/region.rs.

// Notes the voxels within the limits.
extern "C" __global__ void pass_range(const float *image, u8 *passes, float lower, float upper,
                                      Grid grid) {
    u32 index = thread_index();
    if (index >= voxels_of(grid)) return;
    float value = image[index];
    passes[index] = value >= lower && value <= upper ? 1 : 0;
}

// Keeps the voxels around which all within the radius along an axis (0 is x, 1 is y, 2 is z) pass. What
// lies beyond the border does not count.
extern "C" __global__ void pass_all_along(const u8 *passes, u8 *output, u32 radius, u32 axis,
                                          Grid grid) {
    u32 index = thread_index();
    if (index >= voxels_of(grid)) return;
    Position at = position_of(grid, index);
    int along = axis == 0 ? at.x : axis == 1 ? at.y : at.z;
    int length = (int)(axis == 0 ? grid.width : axis == 1 ? grid.height : grid.depth);
    u32 stride = axis == 0 ? 1 : axis == 1 ? grid.width : grid.width * grid.height;
    const u8 *line = passes + (index - (u32)along * stride);
    int first = along > (int)radius ? along - (int)radius : 0;
    int last = along + (int)radius < length ? along + (int)radius : length - 1;
    u8 all = 1;
    for (int k = first; k <= last; ++k) all &= line[(u32)k * stride];
    output[index] = all;
}

// Lets some voxels pass, whatever lies around them.
extern "C" __global__ void pass_seeds(u8 *passes, const u32 *seeds, u32 count) {
    u32 index = thread_index();
    if (index < count) passes[seeds[index]] = 1;
}

// Counts the voxels of a mask in each row, and sums their values and the squares of these: a thread a
// row, from its first voxel to its last. `sums` holds both sums of each row.
extern "C" __global__ void moments_of_rows(const float *image, const u8 *mask, u32 *counts,
                                           double *sums, Grid grid) {
    u32 row = thread_index();
    if (row >= grid.height * grid.depth) return;
    u32 count = 0;
    double sum = 0.0, squares = 0.0;
    for (u32 index = row * grid.width; index < (row + 1) * grid.width; ++index) {
        if (mask[index] == 0) continue;
        double value = (double)image[index];
        ++count;
        sum += value;
        squares += value * value;
    }
    counts[row] = count;
    sums[2 * row] = sum;
    sums[2 * row + 1] = squares;
}
