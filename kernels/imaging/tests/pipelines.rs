//! The shipped pipelines on phantoms and on real chests, and mistakes in pipelines.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;

use gantry_imaging::compute::{Device, Engine, Ran};
use gantry_imaging::phantom::{PhantomSettings, patient};
use gantry_imaging::pipeline::{CACHE_BYTES_MAX, Cache, Labelled, Pipeline};
use gantry_imaging::{Image, measure, nrrd};

/// Returns a pipeline that is shipped with the program.
fn shipped(name: &str) -> Pipeline {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/files/pipelines");
    let text = std::fs::read_to_string(folder.join(format!("{name}.toml"))).unwrap();
    Pipeline::parse(&text, name).unwrap()
}

fn run(pipeline: &Pipeline, image: &Image) -> Labelled {
    let mut seen = Vec::new();
    let labelled = pipeline.run(image, &mut |report| seen.push(report)).unwrap();
    assert_eq!(seen, labelled.steps);
    assert_eq!(labelled.label, pipeline.label());
    assert!(labelled.mask.geometry.same_grid(&labelled.image.geometry));
    for report in &seen {
        println!(
            "{} {}: {} ms, {} voxels",
            report.name, report.operation, report.milliseconds, report.voxels
        );
    }
    labelled
}

#[test]
fn lungs_of_phantoms_are_found() {
    for name in ["chest-ct", "seeded"] {
        let pipeline = shipped(name);
        for number in 0..8 {
            let truth = patient(number, &PhantomSettings::default());
            let found = run(&pipeline, &truth.image);
            assert_eq!(found.image, truth.image, "these pipelines leave the image as it is");
            let dice = measure::dice(&found.mask, &truth.lungs).unwrap();
            assert!(dice > 0.95, "{name}, patient {number}: Dice {dice:.3}");
        }
    }
}

#[test]
fn bodies_of_phantoms_are_found() {
    let pipeline = shipped("edges");
    for number in 0..8 {
        let truth = patient(number, &PhantomSettings::default());
        let found = run(&pipeline, &truth.image);
        // The lungs lie in the body, and the body is three to six times as large as they are.
        let inside = truth.lungs.voxels.iter().zip(&found.mask.voxels).filter(|&(l, b)| l > b);
        assert_eq!(inside.count(), 0, "patient {number}");
        let ratio = measure::volume_ml(&found.mask, 1) / measure::volume_ml(&truth.lungs, 1);
        assert!((3.0..7.0).contains(&ratio), "patient {number}: {ratio}");
    }
}

#[test]
fn real_chests_give_sensible_labels() {
    let Some(data) = std::env::var_os("GANTRY_DATA") else {
        println!("skipped: GANTRY_DATA is not set, so there are no real images");
        return;
    };
    for (file, pipeline, least_ml, most_ml) in [
        ("lung1", "chest-ct", 2850.0, 3000.0),
        ("lung2", "chest-ct", 3900.0, 4100.0),
        ("lung1", "seeded", 2850.0, 3000.0),
        ("lung2", "seeded", 3900.0, 4100.0),
        ("lung1", "edges", 10_000.0, 10_600.0),
        ("lung2", "edges", 20_400.0, 21_200.0),
    ] {
        let path = Path::new(&data).join(format!("pyradiomics-3.0.1/data/{file}_image.nrrd"));
        let image = nrrd::read_file(&path).unwrap();
        let found = run(&shipped(pipeline), &image);
        let ml = measure::volume_ml(&found.mask, 1);
        println!("{file} {pipeline} {ml}");
        assert!((least_ml..most_ml).contains(&ml), "{file} by {pipeline}: {ml} ml");
    }
}

/// A pipeline of the given steps.
fn pipeline(steps: &str) -> String {
    format!("name = \"test\"\nlabel = \"thing\"\n{steps}")
}

#[test]
fn mistakes_are_found_before_anything_runs_and_say_where() {
    for (steps, line, column, sentence) in [
        ("[[steps]]\noperation = \"treshold\"", 4, 13, "did you mean \"threshold\"?"),
        ("[[steps]]\noperation = \"threshold\"\nbelwo = 3", 5, 1, "did you mean \"below\"?"),
        ("[[steps]]\noperation = \"threshold\"", 3, 1, "needs `at_least`, `below`"),
        (
            "[[steps]]\noperation = \"threshold\"\nbelow = \"3\"",
            5,
            9,
            "must be a number, not string",
        ),
        ("[[steps]]\noperation = \"gaussian\"\nsigma_mm = -1", 5, 12, "from 0 to 1000"),
        (
            "[[steps]]\noperation = \"gaussian\"\nspace = \"slices\"",
            5,
            9,
            "did you mean \"slice\"?",
        ),
        ("[[steps]]\noperation = \"gaussian\"\nwith = \"x\"", 5, 1, "gaussian has no \"with\""),
        ("[[steps]]\noperation = \"gaussian\"", 3, 1, "no step makes a mask"),
        ("[[steps]]\noperation = \"keep_largest\"", 4, 13, "no step before it makes one"),
        ("[[steps]]\nbelow = 3", 3, 1, "a step needs `operation`"),
        ("[[steps]]\noperation = \"otsu\"\nfrom = \"inptu\"", 5, 8, "did you mean \"input\"?"),
        (
            "[[steps]]\noperation = \"otsu\"\n[[steps]]\noperation = \"canny\"\nfrom = \"otsu\"",
            7,
            8,
            "which is a mask; an image is needed",
        ),
        (
            "[[steps]]\noperation = \"otsu\"\n[[steps]]\noperation = \"otsu\"",
            5,
            1,
            "already a \"otsu\"",
        ),
        ("[[steps]]\nname = \"a b\"\noperation = \"otsu\"", 4, 8, "no spaces"),
        ("[[steps]]\noperation = \"connected_threshold\"\nlower = 1\nupper = 2", 3, 1, "`seeds`"),
        (
            "[[steps]]\noperation = \"connected_threshold\"\nlower = 1\nupper = 2\nseeds = [[1, 2]]",
            7,
            9,
            "rows of 3 numbers",
        ),
        ("[[steps]]\noperation = \"seeded_growing\"", 3, 1, "give exactly one"),
        ("[[steps]]\noperation = \"resample\"\nspacing_mm = [0, 1, 1]", 5, 14, "three positive"),
        ("[[steps]]\noperation = \"clip\"\nlow = 3\nhigh = 2", 6, 8, "from 3 to"),
        (
            "[[steps]]\noperation = \"otsu\"\n[[steps]]\noperation = \"combine\"",
            5,
            1,
            "second mask",
        ),
        ("steps = 3", 3, 9, "[[steps]]"),
        ("", 1, 1, "needs steps"),
        ("image = \"fine\"\n[[steps]]\noperation = \"otsu\"", 3, 9, "no step before is called so"),
        ("colour = 3\n[[steps]]\noperation = \"otsu\"", 3, 1, "a pipeline has no \"colour\""),
        ("[[steps]\n", 3, 9, "]"),
        ("[[steps]]\noperation = 1e999", 4, 13, "must be text in quotes"),
    ] {
        let error = Pipeline::parse(&pipeline(steps), "own.toml").unwrap_err();
        let place = format!("own.toml:{line}:{column}: ");
        let text = error.to_string();
        assert!(text.starts_with(&place) && text.contains(sentence), "{steps:?}\n gives {text}");
    }
    let long = pipeline(&"[[steps]]\noperation = \"otsu\"\n".repeat(20_000));
    assert!(Pipeline::parse(&long, "long").unwrap_err().problem.contains("limit"));
}

#[test]
fn the_hash_follows_what_a_pipeline_does() {
    let base = pipeline("[[steps]]\noperation = \"otsu\"\n[[steps]]\noperation = \"fill_holes\"");
    let hash = |text: &str| Pipeline::parse(text, "a").unwrap().hash();
    assert_eq!(hash(&base).len(), 64);
    let same = base.replace("\"otsu\"", "\"otsu\"  # by Otsu\nbins = 128\nname = \"otsu\"");
    assert_eq!(hash(&base), hash(&same));
    assert_eq!(hash(&base), hash(&base.replace("\"test\"", "\"other\"")));
    for (from, to) in [
        ("\"otsu\"", "\"otsu\"\nbins = 64"),
        ("\"thing\"", "\"another\""),
        ("\"fill_holes\"", "\"fill_holes\"\nspace = \"slice\""),
        ("\"fill_holes\"", "\"keep_largest\""),
    ] {
        assert_ne!(hash(&base), hash(&base.replace(from, to)), "{to}");
    }
}

#[test]
fn steps_may_name_results_and_change_the_grid() {
    let text = pipeline(
        "image = \"fine\"\n\
         [[steps]]\nname = \"fine\"\noperation = \"resample\"\nsize = [64, 64, 24]\n\
         [[steps]]\nname = \"scaled\"\noperation = \"window\"\ncentre = -600\nwidth = 1500\n\
         [[steps]]\nname = \"smooth\"\noperation = \"gaussian\"\nfrom = \"fine\"\nsigma_mm = 3\n\
         [[steps]]\nname = \"body\"\noperation = \"threshold\"\nat_least = -500\n\
         [[steps]]\nname = \"whole\"\noperation = \"keep_largest\"\n\
         [[steps]]\nname = \"filled\"\noperation = \"fill_holes\"\nspace = \"slice\"\n\
         [[steps]]\nname = \"holes\"\noperation = \"combine\"\nwith = \"whole\"\nhow = \"difference\"",
    );
    let pipeline = Pipeline::parse(&text, "a").unwrap();
    let truth = patient(3, &PhantomSettings::default());
    let found = run(&pipeline, &truth.image);
    assert_eq!(found.image.geometry.size, [64, 64, 24]);
    assert!(found.image.voxels.iter().any(|&value| value < -500.0), "not the windowed image");
    let truth_ml = measure::volume_ml(&truth.lungs, 1);
    let ratio = measure::volume_ml(&found.mask, 1) / truth_ml;
    assert!((0.7..1.1).contains(&ratio), "{ratio}");
    // A step that fails is named.
    let text = text
        .replace("size = [64, 64, 24]", "size = [1, 1, 1]")
        .replace("threshold\"\nat_least = -500", "otsu\"");
    let pipeline = Pipeline::parse(&text, "a").unwrap();
    let error = pipeline.run(&truth.image, &mut |_| {}).unwrap_err().to_string();
    assert!(error.starts_with("step \"body\" failed: otsu"), "{error}");
}

#[test]
fn a_second_run_goes_on_from_what_the_first_kept() {
    let folder = tempfile::tempdir().unwrap();
    let steps = "[[steps]]\nname = \"fine\"\noperation = \"resample\"\nsize = [40, 40, 20]\n\
                 [[steps]]\noperation = \"gaussian\"\nsigma_mm = 3\n\
                 [[steps]]\nname = \"body\"\noperation = \"threshold\"\nat_least = -500\n\
                 [[steps]]\noperation = \"crop\"\nfrom = \"fine\"\n\
                 [[steps]]\noperation = \"keep_largest\"\n";
    let parse = |steps: &str| Pipeline::parse(&pipeline(steps), "a").unwrap();
    let image = patient(3, &PhantomSettings::default()).image;
    let run = |steps: &str, image: &Image| {
        let mut cache = Cache::open(folder.path(), CACHE_BYTES_MAX).unwrap();
        let found = parse(steps).run_cached(image, &mut cache, &mut |_| {}).unwrap();
        let plain = parse(steps).run(image, &mut |_| {}).unwrap();
        assert!(found.image == plain.image && found.mask == plain.mask, "not as without a cache");
        (found.steps.iter().filter(|step| step.cached).count(), cache.counts)
    };
    let (cached, counts) = run(steps, &image);
    assert_eq!((cached, counts.kept), (0, 5));
    let (cached, counts) = run(steps, &image);
    assert_eq!((cached, counts.found, counts.kept), (5, 5, 0));
    // Another last step: the first four are known. Another image: none is.
    let (cached, _) = run(&steps.replace("keep_largest", "fill_holes"), &image);
    assert_eq!(cached, 4);
    let other = patient(4, &PhantomSettings::default()).image;
    assert_eq!(run(steps, &other).0, 0);
}

proptest::proptest! {
    #[test]
    fn damaged_texts_are_pipelines_or_mistakes_with_a_place_but_never_panics(
        which in 0usize..3,
        cuts in proptest::collection::vec((0usize..2000, 0usize..12, "[\\[\\]\"=.\n0-9a-zé-]{0,4}"), 1..5),
    ) {
        let name = ["chest-ct", "edges", "seeded"][which];
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/files/pipelines");
        let mut text: Vec<char> =
            std::fs::read_to_string(folder.join(format!("{name}.toml"))).unwrap().chars().collect();
        for (at, length, new) in cuts {
            let at = at % (text.len() + 1);
            let to = (at + length).min(text.len());
            text.splice(at..to, new.chars());
        }
        let text: String = text.into_iter().collect();
        match Pipeline::parse(&text, name) {
            Ok(pipeline) => proptest::prop_assert_eq!(pipeline.hash().len(), 64),
            Err(mistake) => {
                let lines = text.matches('\n').count() + 1;
                proptest::prop_assert!((1..=lines).contains(&mistake.line), "{}", mistake);
                proptest::prop_assert!(!mistake.problem.is_empty());
            }
        }
    }
}

#[test]
fn a_pipeline_says_where_it_runs_and_gives_the_same_anywhere() {
    let text = |device: &str| {
        format!(
            "name = \"a\"\nlabel = \"b\"\n{device}\n\
             [[steps]]\noperation = \"gaussian\"\n\
             [[steps]]\noperation = \"resample\"\nspacing_mm = [3.0, 3.0, 3.0]\n\
             [[steps]]\noperation = \"threshold\"\nat_least = 0\n\
             [[steps]]\noperation = \"close\"\n\
             [[steps]]\noperation = \"keep_largest\"\n"
        )
    };
    let parse = |device: &str| Pipeline::parse(&text(device), "a.toml").unwrap();
    let (anywhere, here) = (parse(""), parse("device = \"cpu\""));
    assert_eq!((anywhere.device(), here.device()), (Device::Auto, Device::Cpu));
    assert_eq!(anywhere.hash(), here.hash());
    let truth = patient(0, &PhantomSettings::default());
    let auto = anywhere.run(&truth.image, &mut |_| {}).unwrap();
    let cpu = here.run(&truth.image, &mut |_| {}).unwrap();
    assert_eq!((auto.image, auto.mask), (cpu.image, cpu.mask));
    assert!(cpu.steps.iter().all(|step| step.ran == Ran::default()));
    // Only a threshold has no twin.
    for step in auto.steps {
        let tried = step.ran.on == Engine::Cuda || step.ran.because.is_some();
        assert_eq!(tried, step.name != "threshold", "{step:?}");
    }
    let error = Pipeline::parse(&text("device = \"gpu\""), "a.toml").unwrap_err();
    assert_eq!((error.line, error.column), (3, 10), "{error}");
}
