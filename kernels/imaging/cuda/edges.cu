// Canny's edge detector in slices: the sums of operations/canny.rs, in its order, which end in marks.

// Convolution along x (axis 0) or y with a symmetric kernel, given from its centre outwards. Beyond the
// border there are zeros.
extern "C" __global__ void convolve_zeros(const float *input, float *output,
                                          const float *half_kernel, u32 radius, u32 axis,
                                          Grid grid) {
    u32 index = thread_index();
    if (index >= voxels_of(grid)) return;
    Position at = position_of(grid, index);
    int along = axis == 0 ? at.x : at.y;
    u32 length = axis == 0 ? grid.width : grid.height;
    u32 stride = axis == 0 ? 1 : grid.width;
    const float *line = input + (index - (u32)along * stride);
    float sum = input[index] * half_kernel[0];
    for (int k = 1; k <= (int)radius; ++k) {
        float left = within(along - k, length) ? line[(u32)(along - k) * stride] : 0.0f;
        float right = within(along + k, length) ? line[(u32)(along + k) * stride] : 0.0f;
        sum = sum + (left + right) * half_kernel[k];
    }
    output[index] = sum;
}

// Makes up for the share of the kernel that lay beyond the border: `shares` holds one over what lay
// inside for each column, then for each row.
extern "C" __global__ void make_up(float *image, const float *shares, Grid grid) {
    u32 index = thread_index();
    if (index >= voxels_of(grid)) return;
    Position at = position_of(grid, index);
    image[index] *= shares[grid.width + (u32)at.y] * shares[at.x];
}

struct Slope {
    float x, y;
};

// The gradient by the plain Sobel mask; beyond the border the nearest voxel is repeated.
__device__ inline Slope slope_at(const float *smooth, Grid grid, Position at) {
    const float *a = smooth + index_of(grid, 0, clamped(at.y - 1, grid.height), at.z);
    const float *b = smooth + index_of(grid, 0, at.y, at.z);
    const float *c = smooth + index_of(grid, 0, clamped(at.y + 1, grid.height), at.z);
    int left = clamped(at.x - 1, grid.width), right = clamped(at.x + 1, grid.width), x = at.x;
    Slope slope;
    slope.x = (b[right] - b[left]) * 2.0f + ((a[right] - a[left]) + (c[right] - c[left]));
    slope.y = (c[x] - a[x]) * 2.0f + ((c[left] - a[left]) + (c[right] - a[right]));
    return slope;
}

extern "C" __global__ void slope_strength(const float *smooth, float *strength, Grid grid) {
    u32 index = thread_index();
    if (index >= voxels_of(grid)) return;
    Slope slope = slope_at(smooth, grid, position_of(grid, index));
    strength[index] = sqrtf(slope.y * slope.y + slope.x * slope.x);
}

// Returns whether the response is a top along its gradient: between a neighbour straight ahead and one
// on the diagonal, both ways.
__device__ inline bool is_crest(const float *here, Slope slope, int width) {
    if (slope.x == 0.0f && slope.y == 0.0f) return false;
    int diagonal_dx = slope.x * slope.y >= 0.0f ? 1 : -1;
    float x = fabsf(slope.x), y = fabsf(slope.y);
    int straight = y > x ? width : diagonal_dx, diagonal = width + diagonal_dx;
    float weight = y > x ? x / y : y / x;
    float ahead = here[diagonal] * weight + here[straight] * (1.0f - weight);
    float behind = here[-diagonal] * weight + here[-straight] * (1.0f - weight);
    return ahead <= here[0] && behind <= here[0];
}

// Marks the pixels of edges. The outermost have no neighbours to compare with.
extern "C" __global__ void mark_edges(const float *smooth, const float *strength, u8 *marks,
                                      float low, float high, Grid grid) {
    u32 index = thread_index();
    if (index >= voxels_of(grid)) return;
    marks[index] = 0;
    Position at = position_of(grid, index);
    if (at.x == 0 || at.x + 1 >= (int)grid.width || at.y == 0 || at.y + 1 >= (int)grid.height) return;
    float here = strength[index];
    if (!(here >= low)) return;
    if (is_crest(strength + index, slope_at(smooth, grid, at), (int)grid.width)) {
        marks[index] = here >= high ? STRONG : WEAK;
    }
}
