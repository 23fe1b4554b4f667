// Resampling: the positions and sums of operations/resample.rs, in doubles.

struct Placement {
    // From millimetres off the source's origin to its voxels, row by row.
    double to_voxels[9];
    double source_origin[3];
    // The grid that is resampled to; its directions axis by axis.
    double origin[3], spacing[3], direction[9];
};
static_assert(sizeof(Placement) == 27 * 8, "the host passes 27 numbers");

// Finds the place of a voxel of `grid` in the source. Returns whether it lies inside.
__device__ inline bool place_of(const Placement &placement, Grid source, Grid grid, u32 index,
                                double place[3]) {
    Position at = position_of(grid, index);
    double voxel[3] = {(double)at.x, (double)at.y, (double)at.z};
    double point[3] = {placement.origin[0], placement.origin[1], placement.origin[2]};
    for (int axis = 0; axis < 3; ++axis) {
        double along = voxel[axis] * placement.spacing[axis];
        for (int k = 0; k < 3; ++k) point[k] += along * placement.direction[3 * axis + k];
    }
    for (int k = 0; k < 3; ++k) point[k] -= placement.source_origin[k];
    double length[3] = {(double)source.width, (double)source.height, (double)source.depth};
    bool inside = true;
    for (int k = 0; k < 3; ++k) {
        const double *row = placement.to_voxels + 3 * k;
        double at_source = row[0] * point[0] + row[1] * point[1] + row[2] * point[2];
        double nearest = round(at_source);
        place[k] = fabs(at_source - nearest) < 1e-6 ? nearest : at_source;
        inside = inside && place[k] >= -0.5 - 1e-6 && place[k] <= length[k] - 0.5 + 1e-6;
    }
    return inside;
}

__device__ inline double held(double at, u32 length) {
    double last = (double)(length - 1);
    return at < 0.0 ? 0.0 : at > last ? last : at;
}

// Where a line between two voxels lies, and how far along it a place is.
struct Between {
    int low, high;
    double share;
};

__device__ inline Between between(double at, u32 length) {
    double inner = held(at, length);
    int low = (int)inner;
    return Between{low, clamped(low + 1, length), inner - (double)low};
}

__device__ inline double along_x(const float *image, Grid grid, Between x, int y, int z) {
    double a = image[index_of(grid, x.low, y, z)];
    // A neighbour of no weight must not count, for it may not be a number.
    if (x.share == 0.0) return a;
    return a + x.share * ((double)image[index_of(grid, x.high, y, z)] - a);
}

__device__ inline double along_y(const float *image, Grid grid, Between x, Between y, int z) {
    double a = along_x(image, grid, x, y.low, z);
    return y.share == 0.0 ? a : a + y.share * (along_x(image, grid, x, y.high, z) - a);
}

extern "C" __global__ void resample_linear(const float *image, float *output, Placement placement,
                                           float outside, Grid source, Grid grid) {
    u32 index = thread_index();
    if (index >= voxels_of(grid)) return;
    double place[3];
    if (!place_of(placement, source, grid, index, place)) {
        output[index] = outside;
        return;
    }
    Between x = between(place[0], source.width), y = between(place[1], source.height);
    Between z = between(place[2], source.depth);
    double a = along_y(image, source, x, y, z.low);
    if (z.share != 0.0) a = a + z.share * (along_y(image, source, x, y, z.high) - a);
    output[index] = (float)a;
}

extern "C" __global__ void resample_nearest(const u8 *mask, u8 *output, Placement placement,
                                            Grid source, Grid grid) {
    u32 index = thread_index();
    if (index >= voxels_of(grid)) return;
    double place[3];
    output[index] = 0;
    if (!place_of(placement, source, grid, index, place)) return;
    int x = (int)held(floor(place[0] + 0.5), source.width);
    int y = (int)held(floor(place[1] + 0.5), source.height);
    int z = (int)held(floor(place[2] + 0.5), source.depth);
    output[index] = mask[index_of(source, x, y, z)];
}
