// The gradient by the operators of Sobel, Scharr and Prewitt: the sums of operations/gradient.rs, in
// its order. Beyond the border the nearest voxel is repeated. Where an image is not deep, there is no
// derivative along z.

struct Stencil {
    // The weights of the outer and the middle voxel.
    float side, middle;
    // Half of 1 / spacing along each axis.
    float scale_x, scale_y, scale_z;
};
static_assert(sizeof(Stencil) == 20, "the host passes five numbers");

// The nine rows around a voxel in raster order, at one place in x. In slices, all are of the own one.
struct Column {
    float rows[9];
};

__device__ inline Column column_at(const float *image, Grid grid, bool deep, Position at) {
    Column column;
    for (int k = 0; k < 9; ++k) {
        int z = deep ? clamped(at.z + k / 3 - 1, grid.depth) : at.z;
        int y = clamped(at.y + k % 3 - 1, grid.height);
        column.rows[k] = image[index_of(grid, at.x, y, z)];
    }
    return column;
}

// A column combined: smoothed along y and z, and its differences along both.
struct Combined {
    float smooth, along_y, along_z;
};

__device__ inline Combined combine(Column column, Stencil stencil, bool deep) {
    const float *r = column.rows;
    float side = stencil.side, middle = stencil.middle;
    Combined c;
    if (deep) {
        float near = (r[0] + r[2]) * side + r[1] * middle;
        float here = (r[3] + r[5]) * side + r[4] * middle;
        float far = (r[6] + r[8]) * side + r[7] * middle;
        c.smooth = (near + far) * side + here * middle;
        c.along_y = ((r[2] - r[0]) + (r[8] - r[6])) * side + (r[5] - r[3]) * middle;
        c.along_z = far - near;
    } else {
        c.smooth = (r[3] + r[5]) * side + r[4] * middle;
        c.along_y = r[5] - r[3];
        c.along_z = 0.0f;
    }
    return c;
}

extern "C" __global__ void gradient_magnitude(const float *image, float *output, Stencil stencil,
                                              u32 deep, Grid grid) {
    u32 index = thread_index();
    if (index >= voxels_of(grid)) return;
    Position at = position_of(grid, index);
    Combined c[3];
    for (int k = 0; k < 3; ++k) {
        Position beside = {clamped(at.x + k - 1, grid.width), at.y, at.z};
        c[k] = combine(column_at(image, grid, deep, beside), stencil, deep);
    }
    float side = stencil.side, middle = stencil.middle;
    float gx = (c[2].smooth - c[0].smooth) * stencil.scale_x;
    float gy = ((c[0].along_y + c[2].along_y) * side + c[1].along_y * middle) * stencil.scale_y;
    if (deep) {
        float gz = ((c[0].along_z + c[2].along_z) * side + c[1].along_z * middle) * stencil.scale_z;
        output[index] = sqrtf(gx * gx + gy * gy + gz * gz);
    } else {
        output[index] = sqrtf(gx * gx + gy * gy);
    }
}
