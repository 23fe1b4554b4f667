// Binary morphology with a ball, in two passes: how far along x the nearest voxel of a set is, and
// whether that is near enough in any of the rows that the ball reaches. What lies outside the grid is
// in no set: background for dilation (of 1), foreground for erosion (of 0).

struct Margin {
    u32 x, y, z;
};
static_assert(sizeof(Margin) == 12, "the host passes three numbers");

// Finds the distances along x to what is in the mask (`of` 1) or out of it (`of` 0), on a grid that
// reaches `margin` beyond the mask's; those over `radius` are radius + 1.
extern "C" __global__ void distance_along_x(const u8 *mask, u8 *distances, u32 of, u32 radius,
                                            Margin margin, Grid mask_grid, Grid grid) {
    u32 index = thread_index();
    if (index >= voxels_of(grid)) return;
    Position at = position_of(grid, index);
    int x = at.x - (int)margin.x, y = at.y - (int)margin.y, z = at.z - (int)margin.z;
    u32 distance = radius + 1;
    if (within(y, mask_grid.height) && within(z, mask_grid.depth)) {
        const u8 *row = mask + index_of(mask_grid, 0, y, z);
        for (int step = 0; step <= (int)radius; ++step) {
            int left = x - step, right = x + step;
            if ((within(left, mask_grid.width) && (row[left] != 0) == (of != 0)) ||
                (within(right, mask_grid.width) && (row[right] != 0) == (of != 0))) {
                distance = (u32)step;
                break;
            }
        }
    }
    distances[index] = (u8)distance;
}

// Draws the voxels within the ball's radius of the set, or (`inverted`) those that are not; the
// output's grid lies `margin` inside that of the distances.
extern "C" __global__ void within_ball(const u8 *distances, u8 *output, u32 radius, u32 deep,
                                       u32 inverted, Margin margin, Grid grid, Grid output_grid) {
    u32 index = thread_index();
    if (index >= voxels_of(output_grid)) return;
    Position at = position_of(output_grid, index);
    int x = at.x + (int)margin.x, y = at.y + (int)margin.y, z = at.z + (int)margin.z;
    int reach = (int)radius, reach_z = deep ? reach : 0;
    bool found = false;
    for (int dz = -reach_z; dz <= reach_z && !found; ++dz) {
        for (int dy = -reach; dy <= reach && !found; ++dy) {
            int left = reach * reach - dz * dz - dy * dy;
            if (left < 0 || !within(y + dy, grid.height) || !within(z + dz, grid.depth)) continue;
            int distance = distances[index_of(grid, x, y + dy, z + dz)];
            found = distance * distance <= left;
        }
    }
    output[index] = found != (inverted != 0) ? 1 : 0;
}
