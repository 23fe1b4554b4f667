//! Every operation as a step of a pipeline, for tests that run them all.

use gantry_imaging::pipeline::Pipeline;

/// Every operation, as a step of a pipeline.
pub(crate) const STEPS: &[&str] = &[
    "operation = \"gaussian\"\nsigma_mm = 4",
    "operation = \"gaussian\"\nspace = \"slice\"",
    "operation = \"curvature_flow\"\niterations = 2",
    "operation = \"median\"\nradius_voxels = 2",
    "operation = \"median\"\nspace = \"slice\"",
    "operation = \"anisotropic_diffusion\"\niterations = 2",
    "operation = \"bias_correction\"\nlevels = 2\niterations = 3\nwith = \"first\"",
    "operation = \"scharr\"",
    "operation = \"prewitt\"\nspace = \"slice\"",
    "operation = \"laplacian\"\nsigma_mm = 4",
    "operation = \"laplacian_edges\"\nsigma_mm = 4\ncontrast = 1",
    "operation = \"resample\"\nspacing_mm = [5, 4, 3]\ninterpolation = \"spline\"",
    "operation = \"reorient\"\nto = \"SAR\"",
    "operation = \"crop_to_body\"\nmargin_mm = 2",
    "operation = \"augment\"\nseed = 7",
    "operation = \"window\"\npreset = \"lung\"",
    "operation = \"rescale\"\nslope = 2\nintercept = -1024",
    "operation = \"sigmoid\"\ncentre = 40\nwidth = -10",
    "operation = \"multi_otsu\"\nthresholds = 3\nbins = 64",
    "operation = \"canny\"\nsigma_mm = 5\nspace = \"volume\"",
    "operation = \"flood\"\ntolerance = 300\nseeds = [[0, 0, 0]]\nconnectivity = \"full\"",
    "operation = \"isolated_connected\"\nlower = -2000\nupper = 900\nseeds = [[0, 0, 0]]\nothers = [[2, 2, 2]]",
    "operation = \"fast_marching\"\nstop = 3\nseeds = [[0, 0, 0]]",
    "operation = \"watershed\"\nseeds = [[0, 0, 0, 1], [1, 1, 1, 2]]",
    "operation = \"watershed\"\notsu = true\nconnectivity = \"full\"",
    "operation = \"random_walker\"\nseeds = [[0, 0, 0, 1], [2, 2, 2, 2], [0, 1, 0, 9]]",
    "operation = \"random_walker\"\nwith = \"first\"",
    "operation = \"local_extrema\"\nwhich = \"maxima\"\nconnectivity = \"edge\"",
    "operation = \"grid_seeds\"\nevery_mm = 9",
    "operation = \"distance\"",
    "operation = \"distance\"\nside = \"signed\"\nspace = \"slice\"",
    "operation = \"surface\"",
    "operation = \"numbered\"\nconnectivity = \"full\"",
    "operation = \"sobel\"",
    "operation = \"sobel\"\nspace = \"slice\"",
    "operation = \"resample\"\nspacing_mm = [5, 4, 3]",
    "operation = \"resample\"\nsize = [7, 3, 2]",
    "operation = \"crop\"\nmargin_mm = 3",
    "operation = \"window\"\ncentre = 40\nwidth = 400",
    "operation = \"clip\"\nlow = -100\nhigh = 100",
    "operation = \"z_score\"",
    "operation = \"z_score\"\nwith = \"first\"",
    "operation = \"normalise_ct\"\nlow = -900\nhigh = 300\nmean = -100\ndeviation = 200",
    "operation = \"threshold\"\nat_least = -400\nbelow = 200",
    "operation = \"otsu\"",
    "operation = \"otsu\"\nkeep = \"below\"\nbins = 2",
    "operation = \"canny\"\nsigma_mm = 5",
    "operation = \"edge_segmentation\"",
    "operation = \"edge_segmentation\"\noutside = -1000\ngap_mm = 8\nborder = \"drop\"",
    "operation = \"connected_threshold\"\nlower = -2000\nupper = -400\nseeds = [[0, 0, 0]]",
    "operation = \"connected_threshold\"\nlower = -2000\nupper = 0\nwith = \"first\"",
    "operation = \"neighbourhood_connected\"\nlower = -2000\nupper = -400\nseeds = [[0, 0, 0]]",
    "operation = \"confidence_connected\"\nseeds = [[0, 0, 0]]",
    "operation = \"confidence_connected\"\nlimits = \"whole\"\nwith = \"first\"",
    "operation = \"seeded_growing\"\nseeds = [[0, 0, 0, 1], [1, 1, 1, 2]]",
    "operation = \"seeded_growing\"\nwith = \"first\"",
    "operation = \"seeded_growing\"\notsu = true",
    "operation = \"seeded_growing\"\nranges = [[-2000, -700], [0, 200]]\nconnectivity = \"full\"",
    "operation = \"components\"\nconnectivity = \"edge\"\nmin_ml = 0.1\nmax_ml = 100\nlargest = 3",
    "operation = \"components\"\nborder = \"drop_sides\"\nspace = \"slice\"",
    "operation = \"keep_largest\"\nconnectivity = \"full\"",
    "operation = \"dilate\"\nradius_voxels = 2",
    "operation = \"erode\"\nradius_mm = 4",
    "operation = \"open\"\nspace = \"slice\"",
    "operation = \"close\"\nradius_voxels = 3",
    "operation = \"fill_holes\"",
    "operation = \"fill_holes\"\nspace = \"slice\"",
    "operation = \"select\"\nlabel = 1",
    "operation = \"combine\"\nwith = \"first\"\nhow = \"union\"",
];

/// Returns a pipeline of a threshold and one more step.
pub(crate) fn pipeline(step: &str) -> Pipeline {
    let text = format!(
        "name = \"odd\"\nlabel = \"thing\"\n\
         [[steps]]\nname = \"first\"\noperation = \"threshold\"\nat_least = -500\n\
         [[steps]]\nname = \"second\"\n{step}\n"
    );
    Pipeline::parse(&text, "odd").unwrap()
}
