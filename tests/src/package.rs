//! The package as it is laid out on a machine, around the binary under test.
//!
//! What belongs where is read from `[package.metadata.deb]` of `console/Cargo.toml`, the list that
//! cargo-deb makes the package of, and manual pages and completions are made by the same script as in a
//! release (`config/package/pages`). Only the program is another: building it as it is released would
//! take longer than all tests together.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Where a release lays what it makes before cargo-deb takes it.
const MADE: &str = "../target/package/";
/// Where cargo-deb puts the units that it finds beside the maintainer scripts.
const UNITS: &str = "usr/lib/systemd/system/";
/// The program, which is not copied: it is large.
const PROGRAM: &str = "usr/bin/gantry";

/// The files of the package: where each goes, where it comes from and its mode.
#[derive(Debug)]
pub struct Package {
    files: BTreeMap<String, (PathBuf, u32)>,
    /// What its settings in `console/Cargo.toml` say.
    pub metadata: Value,
}

impl Package {
    /// Reads the list; what a release makes first is made in `made`.
    ///
    /// # Errors
    /// Where the list is wrong: a file that there is not, a pattern that fits nothing.
    pub fn read(metadata: Value, program: &Path, made: &Path) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no root")?;
        let pages = root.join("config/package/pages");
        let status = Command::new(&pages).args([program, made]).stdin(Stdio::null()).status()?;
        ensure!(status.success(), "{} failed", pages.display());
        let mut files = BTreeMap::new();
        for asset in metadata["assets"].as_array().context("no assets")? {
            let part = |at: usize| asset[at].as_str().context("an asset is three texts");
            let (from, to, mode) = (part(0)?, part(1)?, u32::from_str_radix(part(2)?, 8)?);
            let sources = match from.strip_prefix(MADE) {
                Some("gantry") => vec![program.to_owned()],
                Some(made_file) => fitting(&made.join(made_file))?,
                None => fitting(&root.join("console").join(from))?,
            };
            ensure!(!sources.is_empty(), "the package lists {from}, which there is not");
            for source in sources {
                let name = if to == "usr/bin/" { "gantry".into() } else { name_of(&source) };
                let place = if to.ends_with('/') { format!("{to}{name}") } else { to.to_owned() };
                let twice = files.insert(place.clone(), (source, mode));
                ensure!(twice.is_none(), "the package has two files {place}");
            }
        }
        let scripts = metadata["maintainer-scripts"].as_str().context("no scripts")?;
        for source in fitting(&root.join("console").join(scripts).join("*.service"))? {
            files.insert(format!("{UNITS}{}", name_of(&source)), (source, 0o644));
        }
        Ok(Self { files, metadata })
    }

    /// Where each file goes, with its mode.
    pub fn list(&self) -> impl Iterator<Item = (&str, u32)> {
        self.files.iter().map(|(place, (_, mode))| (place.as_str(), *mode))
    }

    /// Lays all files but the program below a folder.
    ///
    /// # Errors
    /// Where one cannot be written.
    pub fn lay(&self, root: &Path) -> Result<()> {
        for (place, (source, mode)) in self.files.iter().filter(|(place, _)| *place != PROGRAM) {
            let path = root.join(place);
            std::fs::create_dir_all(path.parent().context("no folder")?)?;
            std::fs::copy(source, &path).with_context(|| format!("copying {place}"))?;
            std::fs::set_permissions(&path, PermissionsExt::from_mode(*mode))?;
        }
        Ok(())
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The files that fit a pattern with at most one star, in its last part.
fn fitting(pattern: &Path) -> Result<Vec<PathBuf>> {
    let name = name_of(pattern);
    let Some((begin, end)) = name.split_once('*') else {
        return Ok(pattern.exists().then(|| pattern.to_owned()).into_iter().collect());
    };
    let folder = pattern.parent().context("no folder")?;
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut found: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .filter(|path| {
            let name = name_of(path);
            path.is_file() && name.starts_with(begin) && name.ends_with(end)
        })
        .collect();
    found.sort();
    Ok(found)
}
