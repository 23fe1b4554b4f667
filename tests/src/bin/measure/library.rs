//! The library of samples: how many a second tasks write at once, how many are read and checked, how
//! fast shards are written, and how soon a click on a slice is answered with a grown region.
//!
//! The limit of writing is what the disk gives: as many bytes in as many files, each synced, by as
//! many threads; the limit of reading and of shards is reading and writing the same bytes plainly.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail, ensure};
use gantry_agent::exchange::{Choice, Kind, export};
use gantry_imaging::neighbourhood::Connectivity;
use gantry_imaging::region::{ConnectedThreshold, connected_threshold};
use gantry_imaging::{Geometry, Image, Mask, nifti};
use gantry_library::{
    Author, InstanceKey, Library, Provenance, SampleDraft, SampleId, SeriesId, Source,
};

use crate::Size;
use crate::report::{Goal, Row};
use crate::statistics::{over_rounds, seconds};

/// Samples of one round.
const SAMPLES: u32 = 400;
/// Tasks that write at once.
const TASKS: u32 = 4;
/// Voxels of a sample along each axis: half a megabyte, packed.
const SIDES: [usize; 3] = [64, 64, 48];
/// A click must be answered while the hand is still there.
const CLICK_MS: f64 = 100.0;
const CLICKED: [usize; 3] = [512, 512, 300];

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let count = size.count.unwrap_or(SAMPLES);
    let volumes = (0..count).map(volume).collect::<Result<Vec<_>>>()?;
    let bytes: u64 = volumes.iter().map(|(image, mask)| (image.len() + mask.len()) as u64).sum();
    let (mut written, mut read, mut shards) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..size.rounds() {
        let folder = tempfile::tempdir()?;
        let library = Library::open_or_create(&folder.path().join("library"))?;
        let series = series(&library, 1)?;
        written.push(seconds(|| at_once(|task| write(&library, &series, &volumes, task)))?);
        let ids: Vec<SampleId> = library.samples()?.into_iter().map(|sample| sample.id).collect();
        ensure!(ids.len() == count as usize, "{} of {count} samples are there", ids.len());
        let next = AtomicU32::new(0);
        read.push(seconds(|| at_once(|_| read_all(&library, &ids, &next)))?);
        let to = folder.path().join("shards");
        let choice = Choice::default();
        shards.push(seconds(|| Ok(export(&library, Kind::WebDataset, &to, &choice)?))?);
        ensure!(library.verify()?.damage.is_empty(), "the library is damaged");
    }
    let of = |took: &[f64]| crate::statistics::median(took);
    let disk = over_rounds(size.rounds(), || disk(&volumes))?;
    let plain = over_rounds(size.rounds(), || plain(&volumes))?;
    let rate = |took: f64| f64::from(count) / took;
    let mega = |took: f64| bytes as f64 / 1e6 / took;
    let rows = vec![
        Row::new(
            format!("{count} samples written by {TASKS} tasks at once"),
            "samples/s",
            rate(of(&written)),
        )
        .limit(rate(disk)),
        Row::new("the same", "MB/s", mega(of(&written))).limit(mega(disk)),
        Row::new(
            format!("read and checked by {TASKS} tasks at once"),
            "samples/s",
            rate(of(&read)),
        ),
        Row::new("the same", "MB/s", mega(of(&read))),
        Row::new("shards written, with each sample decoded and checked", "MB/s", mega(of(&shards)))
            .limit(mega(plain)),
        Row::new("a region grown from a click, 512 × 512 × 300", "ms", click(size)?)
            .goal(Goal::AtMost(CLICK_MS)),
    ];
    Ok(rows)
}

/// A sample's image and mask as `NIfTI`; noise, so that it packs as badly as images do.
fn volume(number: u32) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut state = number.wrapping_mul(2_654_435_761) | 1;
    let geometry = Geometry::new(SIDES, [0.7, 0.7, 1.0]);
    let voxels = (0..geometry.voxels()).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from((state >> 20) as u16) - 1024.0
    });
    let image = Image::new(geometry, voxels.collect())?;
    let mask: Mask = image.map(|value| u8::from(*value > 0.0));
    let (mut first, mut second) = (Vec::new(), Vec::new());
    nifti::write_image(&image, &mut first)?;
    nifti::write_mask(&mask, &mut second)?;
    Ok((first, second))
}

/// A series of one instance, of a patient of its own.
pub(crate) fn series(library: &Library, number: u32) -> Result<SeriesId> {
    let series_uid = format!("1.{number}");
    let id = library.series_id(&series_uid);
    let key = InstanceKey {
        patient_id: format!("measured-{number}"),
        study_uid: format!("2.{number}"),
        sop_instance_uid: format!("{series_uid}.1"),
        series_uid,
        sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
        modality: "CT".into(),
        transfer_syntax_uid: "1.2.840.10008.1.2.1".into(),
        rows: 1,
        columns: 1,
        frames: 1,
    };
    library.store_instance(&key, &Source::Import, b"an instance")?;
    Ok(id)
}

fn at_once(work: impl Fn(u32) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let work = &work;
        let all: Vec<_> = (0..TASKS).map(|task| scope.spawn(move || work(task))).collect();
        for thread in all {
            thread.join().unwrap_or_else(|_| bail!("a task panicked"))?;
        }
        Ok(())
    })
}

fn write(
    library: &Library,
    series: &SeriesId,
    volumes: &[(Vec<u8>, Vec<u8>)],
    task: u32,
) -> Result<()> {
    for (image, mask) in volumes.iter().skip(task as usize).step_by(TASKS as usize) {
        library.add_sample(SampleDraft {
            series: series.clone(),
            label: "noise".into(),
            image: image.clone(),
            mask: mask.clone(),
            size: SIDES,
            spacing_mm: [0.7, 0.7, 1.0],
            mask_voxels: 1,
            volume_ml: 1.0,
            provenance: Provenance {
                sources: Vec::new(),
                pipeline: "measured".into(),
                pipeline_hash: "ab".into(),
                program: env!("CARGO_PKG_VERSION").into(),
                author: Author::Auto,
            },
        })?;
    }
    Ok(())
}

fn read_all(library: &Library, ids: &[SampleId], next: &AtomicU32) -> Result<()> {
    while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
        let sample = library.sample(id)?;
        library.read_object(&sample.image)?;
        library.read_object(&sample.mask)?;
    }
    Ok(())
}

/// Seconds in which the disk takes the same files, each synced.
fn disk(volumes: &[(Vec<u8>, Vec<u8>)]) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    seconds(|| {
        at_once(|task| {
            let own = volumes.iter().enumerate().skip(task as usize).step_by(TASKS as usize);
            for (number, (image, mask)) in own {
                for (name, bytes) in [("image", image), ("mask", mask)] {
                    let mut file = File::create(folder.path().join(format!("{number}-{name}")))?;
                    file.write_all(bytes)?;
                    file.sync_data()?;
                }
            }
            Ok(())
        })
    })
}

/// Seconds in which the same bytes are written one after the other and synced once.
fn plain(volumes: &[(Vec<u8>, Vec<u8>)]) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let path: &Path = &folder.path().join("all");
    let took = seconds(|| {
        let mut file = File::create(path)?;
        for (image, mask) in volumes {
            file.write_all(image)?;
            file.write_all(mask)?;
        }
        Ok(file.sync_all()?)
    });
    fs::remove_file(path)?;
    took
}

/// Milliseconds from a seed to the region that is grown from it: an organ of five million voxels.
fn click(size: &Size) -> Result<f64> {
    let geometry = Geometry::new(CLICKED, [0.7, 0.7, 1.0]);
    let centre = CLICKED.map(|side| side as f64 / 2.0);
    let voxels = (0..geometry.voxels()).map(|index| {
        let place = geometry.position(index);
        let far: f64 =
            (0..3).map(|k| ((place[k] as f64 - centre[k]) / (centre[k] * 0.5)).powi(2)).sum();
        let noise = (index as u32).wrapping_mul(2_654_435_761) >> 27;
        if far < 1.0 { 60.0 + noise as f32 } else { -100.0 + noise as f32 }
    });
    let image = Image::new(geometry, voxels.collect())?;
    let parameters =
        ConnectedThreshold { lower: 40.0, upper: 120.0, connectivity: Connectivity::Face };
    let took = over_rounds(size.rounds(), || {
        seconds(|| {
            let mask = connected_threshold(&image, &[CLICKED.map(|side| side / 2)], &parameters)?;
            ensure!(mask.count() > 1_000_000, "only {} voxels were grown", mask.count());
            Ok(())
        })
    })?;
    Ok(took * 1e3)
}
