// Canny's edge detector in space: the steps of operations/canny/volume.rs, which end in marks.

constexpr u8 WEAK = 1;
constexpr u8 STRONG = 2;

// The gradient at one voxel, by the sums of `Stencil::at`.
__device__ inline void gradient_at(const float *image, Grid grid, Stencil stencil, Position at,
                                   float gradient[3]) {
    float weight[3] = {stencil.side, stencil.middle, stencil.side};
    int left = clamped(at.x - 1, grid.width), right = clamped(at.x + 1, grid.width);
    gradient[0] = gradient[1] = gradient[2] = 0.0f;
    for (int k = 0; k < 9; ++k) {
        int dy = k % 3, dz = k / 3;
        const float *row = image + index_of(grid, 0, clamped(at.y + dy - 1, grid.height),
                                            clamped(at.z + dz - 1, grid.depth));
        float across = row[left] * weight[0] + row[at.x] * weight[1] + row[right] * weight[2];
        gradient[0] += (row[right] - row[left]) * weight[dy] * weight[dz];
        gradient[1] += across * ((float)dy - 1.0f) * weight[dz];
        gradient[2] += across * weight[dy] * ((float)dz - 1.0f);
    }
    gradient[0] *= stencil.scale_x;
    gradient[1] *= stencil.scale_y;
    gradient[2] *= stencil.scale_z;
}

// The way along an axis in steps of `stride`; none where the direction is not a number.
__device__ inline int step_towards(float direction, int stride) {
    return direction > 0.0f ? stride : direction < 0.0f ? -stride : 0;
}

// A neighbour of no weight may lie beyond the border and does not count.
__device__ inline float mixed(const float *strength, float share, int step) {
    if (share == 0.0f) return strength[0];
    return (1.0f - share) * strength[0] + share * strength[step];
}

// Returns whether the gradient at a voxel is no weaker than up and down along itself.
__device__ inline bool is_top(const float *strength, Grid grid, Position at, const float along[3]) {
    int main = 0;
    for (int k = 1; k < 3; ++k) {
        if (fabsf(along[k]) > fabsf(along[main])) main = k;
    }
    if (along[main] == 0.0f) return false;
    int strides[3] = {1, (int)grid.width, (int)(grid.width * grid.height)};
    int u = (main + 1) % 3, v = (main + 2) % 3;
    float direction[3];
    for (int k = 0; k < 3; ++k) direction[k] = along[k] / fabsf(along[main]);
    float share_u = fabsf(direction[u]), share_v = fabsf(direction[v]);
    const float *here = strength + index_of(grid, at.x, at.y, at.z);
    for (float sign = 1.0f; sign > -2.0f; sign -= 2.0f) {
        const float *face = here + step_towards(direction[main] * sign, strides[main]);
        int step_u = step_towards(direction[u] * sign, strides[u]);
        int step_v = step_towards(direction[v] * sign, strides[v]);
        float beside = mixed(face, share_v, step_v);
        if (share_u != 0.0f) {
            beside = (1.0f - share_u) * beside + share_u * mixed(face + step_u, share_v, step_v);
        }
        if (!(beside <= *here)) return false;
    }
    return true;
}

struct Spacing {
    float x, y, z;
};
static_assert(sizeof(Spacing) == 12, "the host passes three numbers");

__device__ inline bool outermost(int at, u32 length) {
    return length > 1 && (at == 0 || at + 1 == (int)length);
}

// Marks the voxels of surfaces.
extern "C" __global__ void mark_surfaces(const float *smooth, const float *strength, u8 *marks,
                                         Stencil stencil, Spacing spacing, float low, float high,
                                         Grid grid) {
    u32 index = thread_index();
    if (index >= voxels_of(grid)) return;
    marks[index] = 0;
    float here = strength[index];
    if (!(here >= low && here > 0.0f)) return;
    Position at = position_of(grid, index);
    if (outermost(at.x, grid.width) || outermost(at.y, grid.height) || outermost(at.z, grid.depth)) {
        return;
    }
    float along[3];
    gradient_at(smooth, grid, stencil, at, along);
    along[0] = grid.width < 2 ? 0.0f : along[0] / spacing.x;
    along[1] = grid.height < 2 ? 0.0f : along[1] / spacing.y;
    along[2] = grid.depth < 2 ? 0.0f : along[2] / spacing.z;
    if (is_top(strength, grid, at, along)) marks[index] = here >= high ? STRONG : WEAK;
}
