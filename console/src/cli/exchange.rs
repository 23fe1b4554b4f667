//! `gantry library`: samples to and from other programs, what people say of them, and what a library
//! is like.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use gantry_agent::exchange::{
    self, Choice, ExchangeError, ExchangeReport, Kind, Patients, Rejected,
};
use gantry_library::{Author, Fractions, Library};
use serde_json::json;

use super::create::Create;
use super::library::{self, Place};
use super::sweep::Sweep;
use super::{completions, label, texts, verdicts};
use crate::error::{Failure, Outcome};
use crate::output::Format;

/// `gantry library`.
#[derive(Debug, Args)]
pub struct Samples {
    /// The library's folder on the shared storage.
    #[arg(long, env = "GANTRY_LIBRARY", value_name = "DIR", global = true)]
    library: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make an empty library, with its objects in its folder or in an S3 bucket.
    Create(Create),
    /// Write samples into a new folder, as another program reads them.
    Export(Export),
    /// Take samples of another program from its folder.
    Import(Import),
    /// How much there is of everything.
    Counts,
    /// Samples and patients of each label, and how a training takes them.
    Labels,
    /// Check every hash and reference. Exits with 1 where something is damaged.
    Verify,
    /// Show what killed writers left behind and no record names, and remove it on demand.
    Sweep(Sweep),
    /// Print shapes, spacings and intensities of the samples, as nnU-Net takes them.
    Fingerprint {
        /// What the masks mark; needed where samples have several labels.
        #[arg(long)]
        label: Option<String>,
    },
    /// Show one sample and where it comes from.
    Show {
        /// The sample.
        #[arg(add = completions::samples())]
        sample: String,
    },
    /// Keep what a person has written of a series, its report, or print what there is.
    Text(texts::Text),
    /// Say that the mask of a sample is final.
    Accept(verdicts::Accept),
    /// Say that a sample is not to be used: trainings and exports leave it out.
    Reject(verdicts::Reject),
    /// Take the last verdict on a sample back.
    Undo(verdicts::Undo),
    /// Offer the case to label next: the one that the approved model is least sure of.
    Next(verdicts::Next),
}

/// A form in which samples are kept elsewhere.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// Pairs of .nii.gz files.
    Nifti,
    /// Pairs of .nrrd files.
    Nrrd,
    /// Pairs of .mha files.
    Mha,
    /// nnU-Net's raw data set.
    Nnunet,
    /// The Medical Segmentation Decathlon's datalist, as MONAI reads it.
    Decathlon,
    /// `NumPy` archives.
    Npz,
    /// Tar shards.
    Webdataset,
    /// DICOM segmentations; those that come in are of series that are there.
    DicomSeg,
    /// COCO annotations of slices; those that come in are of PNG pictures.
    Coco,
}

impl From<Form> for Kind {
    fn from(form: Form) -> Self {
        match form {
            Form::Nifti => Self::Nifti,
            Form::Nrrd => Self::Nrrd,
            Form::Mha => Self::Mha,
            Form::Nnunet => Self::NnUnet,
            Form::Decathlon => Self::Decathlon,
            Form::Npz => Self::Npz,
            Form::Webdataset => Self::WebDataset,
            Form::DicomSeg => Self::DicomSeg,
            Form::Coco => Self::Coco,
        }
    }
}

#[derive(Debug, Args)]
struct Export {
    /// The form.
    #[arg(value_enum)]
    form: Form,
    /// The new folder.
    to: PathBuf,
    /// What the masks mark; needed where samples have several labels.
    #[arg(long)]
    label: Option<String>,
    /// The seed by which patients are dealt to the sides.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Patients of a hundred that validate.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=100))]
    validation: u32,
    /// Patients of a hundred that test.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    test: u32,
    /// The most megabytes of a shard.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    shard_mb: u64,
    /// Samples that people have rejected too.
    #[arg(long)]
    with_rejected: bool,
}

#[derive(Debug, Args)]
struct Import {
    /// The form.
    #[arg(value_enum)]
    form: Form,
    /// Its folder; of COCO also the file of annotations.
    from: PathBuf,
    /// What the masks mark, where the folder does not say.
    #[arg(long)]
    label: Option<String>,
    /// Who drew the masks; a program where absent.
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
    /// Each picture of COCO is of another patient, unless its file says whose it is. Only where that is
    /// true: pictures of one patient would validate what was learnt from the others.
    #[arg(long)]
    patient_per_picture: bool,
}

impl Samples {
    fn folder(&self) -> Result<PathBuf, Failure> {
        self.library.clone().ok_or_else(|| {
            Failure::usage("say which library: --library DIR, or GANTRY_LIBRARY in the environment")
        })
    }

    fn open(&self) -> Result<Library, Failure> {
        Place { library: self.folder()? }.open()
    }

    /// Carries it out.
    ///
    /// # Errors
    /// Where the library or a folder cannot be read or written.
    pub fn run(&self, format: Format) -> Outcome {
        match &self.what {
            What::Create(create) => create.run(&self.folder()?, format),
            What::Export(export) => self.export(export, format),
            What::Import(import) => self.import(import, format),
            What::Counts => {
                let value = library::values(self.open()?.counts())?;
                format.print("library", &value, || library::list_of(&value), String::new)?;
                Ok(0)
            }
            What::Labels => label::list(&self.open()?, format).map(|()| 0),
            What::Verify => self.verify(format),
            What::Sweep(sweep) => sweep.run(&self.open()?, format),
            What::Fingerprint { label } => {
                let choice = Choice { label: label.clone(), ..Choice::default() };
                let print =
                    exchange::dataset_fingerprint(&self.open()?, &choice).map_err(failed)?;
                let people = || {
                    let text = serde_json::to_string_pretty(&print);
                    text.unwrap_or_else(|error| error.to_string())
                };
                format.print("fingerprint", &print, people, String::new)?;
                Ok(0)
            }
            What::Show { sample } => verdicts::show(&self.open()?, sample, format),
            What::Text(text) => text.run(&self.open()?, format),
            What::Accept(accept) => accept.run(&self.open()?, format),
            What::Reject(reject) => reject.run(&self.open()?, format),
            What::Undo(undo) => undo.run(&self.open()?, format),
            What::Next(next) => next.run(&self.open()?, format),
        }
    }

    fn export(&self, export: &Export, format: Format) -> Outcome {
        let choice = Choice {
            label: export.label.clone(),
            seed: export.seed,
            fractions: Fractions {
                validation_percent: export.validation,
                test_percent: export.test,
            },
            shard_bytes_max: export.shard_mb * 1_000_000,
            rejected: if export.with_rejected { Rejected::Taken } else { Rejected::LeftOut },
        };
        let library = self.open()?;
        let report =
            exchange::export(&library, export.form.into(), &export.to, &choice).map_err(failed)?;
        done(&report, "written", format)
    }

    fn import(&self, import: &Import, format: Format) -> Outcome {
        let author = import.author.clone().map_or(Author::Auto, Author::Person);
        let (library, label) = (self.open()?, import.label.as_deref());
        let patients =
            if import.patient_per_picture { Patients::EachPicture } else { Patients::AsSaid };
        let (form, from) = (import.form.into(), &import.from);
        let report =
            exchange::import(&library, form, from, label, patients, &author).map_err(failed)?;
        done(&report, "taken", format)
    }

    fn verify(&self, format: Format) -> Outcome {
        let report = self.open()?.verify().map_err(Failure::trouble)?;
        let people = || {
            let mut lines = vec![format!(
                "{} records and {} objects are whole, {} objects are named by no record",
                report.records - report.damage.len() as u64,
                report.objects,
                report.unnamed
            )];
            lines.extend(
                report
                    .damage
                    .iter()
                    .map(|damage| format!("! {}: {}", damage.path.display(), damage.reason)),
            );
            lines.join("\n")
        };
        format.print("verify", &report, people, String::new)?;
        Ok(u8::from(!report.damage.is_empty()))
    }
}

fn failed(error: ExchangeError) -> Failure {
    match error {
        ExchangeError::Refused(sentence) => Failure::usage(sentence),
        other => Failure::trouble(other),
    }
}

/// Says what was done; the exit code is 1 where something was left out.
fn done(report: &ExchangeReport, word: &str, format: Format) -> Outcome {
    let people = || {
        let known = match report.known {
            0 => String::new(),
            known => format!(", {known} of them known already"),
        };
        let mut lines = vec![format!("{} samples {word}{known}", report.samples)];
        let sides = report
            .sides
            .iter()
            .map(|(side, count)| format!("{count} {}", json!(side).as_str().unwrap_or_default()));
        let sides: Vec<String> = sides.collect();
        if !sides.is_empty() {
            lines.push(sides.join(", "));
        }
        lines.extend(report.left_out.iter().map(|(what, reason)| format!("! {what}: {reason}")));
        lines.join("\n")
    };
    format.print("exchange", report, people, String::new)?;
    Ok(u8::from(!report.left_out.is_empty()))
}
