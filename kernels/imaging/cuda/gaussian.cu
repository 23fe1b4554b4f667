// Convolution along one axis with a symmetric kernel, given from its centre outwards: the sums of the
// Gaussian on the processor, in its order. Axis 0 is x, 1 is y, 2 is z. Beyond the border the nearest
// voxel is repeated.

extern "C" __global__ void convolve_nearest(const float *input, float *output,
                                            const float *half_kernel, u32 radius, u32 axis,
                                            Grid grid) {
    u32 index = thread_index();
    if (index >= voxels_of(grid)) return;
    Position at = position_of(grid, index);
    int along = axis == 0 ? at.x : axis == 1 ? at.y : at.z;
    u32 length = axis == 0 ? grid.width : axis == 1 ? grid.height : grid.depth;
    u32 stride = axis == 0 ? 1 : axis == 1 ? grid.width : grid.width * grid.height;
    const float *line = input + (index - (u32)along * stride);
    float sum = input[index] * half_kernel[0];
    for (int k = 1; k <= (int)radius; ++k) {
        float left = line[(u32)clamped(along - k, length) * stride];
        float right = line[(u32)clamped(along + k, length) * stride];
        sum = sum + (left + right) * half_kernel[k];
    }
    output[index] = sum;
}
