//! `NumPy` archives and tar shards, in which a training reads samples one after the other.

use std::fs::File;
use std::io::{BufWriter, Cursor, Write};
use std::path::Path;

use gantry_imaging::shards::{ShardWriter, member_bytes, npy_header};
use gantry_imaging::{Image, Mask};
use gantry_library::{Library, Split};
use serde_json::json;
use zip::write::FileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::{Chosen, ExchangeError, ExchangeReport, Outcome, out, volumes};

/// A volume and its mask as `np.load` reads them: arrays with z first, as `NumPy` has images.
pub(super) fn npz(image: &Image, mask: &Mask) -> Result<Vec<u8>, zip::result::ZipError> {
    let [x, y, z] = image.geometry.size;
    let floats = |values: &[f64]| -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    };
    let voxels: Vec<u8> = image.voxels.iter().flat_map(|value| value.to_le_bytes()).collect();
    let grid = &image.geometry;
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    // As `np.savez` does: what compresses well is compressed again by whoever keeps many.
    let options =
        FileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
    for (name, kind, shape, bytes) in [
        ("image", "<f4", &[z, y, x][..], voxels),
        ("mask", "|u1", &[z, y, x], mask.voxels.clone()),
        ("spacing_mm", "<f8", &[3], floats(&grid.spacing_mm)),
        ("origin_mm", "<f8", &[3], floats(&grid.origin_mm)),
        ("direction", "<f8", &[3, 3], floats(&grid.direction.concat())),
    ] {
        archive.start_file(format!("{name}.npy"), options)?;
        archive.write_all(&npy_header(kind, shape))?;
        archive.write_all(&bytes)?;
    }
    Ok(archive.finish()?.into_inner())
}

/// A side's shards: `train-000000.tar` and so on.
struct Shards<'a> {
    to: &'a Path,
    side: &'static str,
    bytes_max: u64,
    count: u32,
    /// The one that is being written.
    open: Option<ShardWriter<BufWriter<File>>>,
}

impl Shards<'_> {
    /// Puts the files of one sample beside one another, so that none is in two shards.
    fn put(&mut self, files: &[(String, Vec<u8>)]) -> Outcome<u64> {
        let size: u64 = files.iter().map(|file| member_bytes(file.1.len() as u64)).sum();
        let full = |open: &ShardWriter<_>| open.bytes() > 0 && open.bytes() + size > self.bytes_max;
        if self.open.as_ref().is_some_and(full) {
            self.end()?;
        }
        let path = self.to.join(format!("{}-{:06}.tar", self.side, self.count));
        let failed = |error: std::io::Error| ExchangeError::file("writing", &path, error);
        if self.open.is_none() {
            let file = File::create(&path).map_err(failed)?;
            self.open = Some(ShardWriter::new(BufWriter::with_capacity(1 << 20, file)));
        }
        let Some(open) = &mut self.open else { return Ok(0) };
        for (name, bytes) in files {
            open.append(name, &[bytes]).map_err(failed)?;
        }
        Ok(size)
    }

    fn end(&mut self) -> Outcome<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let failed = |error: std::io::Error| ExchangeError::file("writing", self.to, error);
        let mut file = open.finish().map_err(failed)?;
        file.flush().map_err(failed)?;
        file.get_ref().sync_all().map_err(failed)?;
        self.count += 1;
        Ok(())
    }
}

/// Tar shards of each side: `ID.image.nii.gz`, `ID.mask.nii.gz` and `ID.json` for each sample.
pub(super) fn export(
    library: &Library,
    chosen: &Chosen,
    to: &Path,
    bytes_max: u64,
) -> Outcome<ExchangeReport> {
    let mut report = ExchangeReport::default();
    for (split, side) in
        [(Split::Train, "train"), (Split::Validation, "validation"), (Split::Test, "test")]
    {
        let mut shards = Shards { to, side, bytes_max, count: 0, open: None };
        for sample in chosen.samples.iter().filter(|sample| chosen.side(sample) == split) {
            let (image, mask) = volumes(library, sample)?;
            let id = &sample.id;
            let about = json!({
                "label": sample.label,
                "modality": sample.modality,
                "patient": sample.patient,
                "grid": out::grid(&image, &mask),
            });
            let files = [
                (format!("{id}.image.nii.gz"), library.read_object(&sample.image)?),
                (format!("{id}.mask.nii.gz"), library.read_object(&sample.mask)?),
                (format!("{id}.json"), out::pretty(&about)?),
            ];
            report.bytes += shards.put(&files)?;
            report.samples += 1;
            *report.sides.entry(split).or_default() += 1;
        }
        shards.end()?;
    }
    Ok(report)
}
