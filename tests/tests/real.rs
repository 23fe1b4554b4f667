//! Real chests through the whole chain: lung1 trains, lung2 is predicted and compared.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use anyhow::{Result, ensure};
use gantry_tests::{Gantry, real_images};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gantry-under-test");

#[test]
fn lung1_trains_and_lung2_is_predicted() -> Result<()> {
    let Some(data) = real_images("the chain on real chests") else { return Ok(()) };
    let folder = TempDir::new()?;
    let (data, folder) = (data.display().to_string(), folder.path().display().to_string());
    let demo = Gantry::new(PROGRAM).json(&[
        "demo",
        "--no-screen",
        "--data",
        &data,
        "--folder",
        &folder,
        "--epochs",
        "20",
    ])?;
    let dice = demo["held_out"]["dice"].as_f64().unwrap();
    println!("trained on lung1, predicted on lung2: Dice {dice:.3}, {}", demo["seconds"]);
    // One patient of 48 slices teaches little of another scanner's; far above chance is asked.
    ensure!(dice > 0.6, "{demo}");
    ensure!(demo["samples"] == 2, "{demo}");
    ensure!(demo["series"].as_u64().unwrap() > 50, "the other real files are kept too: {demo}");
    ensure!(demo["quarantined"].as_array().unwrap().len() > 20, "{demo}");
    Ok(())
}
