//! `gantry library create`: an empty library, in its folder, with its objects in an S3 bucket, or all of it
//! there.

use std::path::Path;

use clap::Args;
use gantry_library::{BucketPlace, Library};
use serde_json::json;

use crate::error::{Failure, Outcome};
use crate::output::Format;

/// `gantry library create`.
#[derive(Debug, Args)]
pub(super) struct Create {
    /// Keep the objects in this bucket, as <s3://BUCKET/PREFIX>. The keys come
    /// from `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or from the file that
    /// `AWS_SHARED_CREDENTIALS_FILE` names, here and wherever the library is used.
    #[arg(long, value_name = "URL", requires = "endpoint")]
    objects: Option<String>,
    /// The storage of the bucket, as <https://s3.example.org>.
    #[arg(long, value_name = "URL", requires = "objects")]
    endpoint: Option<String>,
    /// Keep the records there too, so that hosts share no folder: each has one of its own, made by this
    /// command, which opens the library where the bucket holds it already.
    #[arg(long, requires = "objects")]
    records: bool,
    /// The storage's region.
    #[arg(long, default_value = "us-east-1")]
    region: String,
}

impl Create {
    /// Carries it out.
    ///
    /// # Errors
    /// Where there is a library already, the folder cannot be written, or the bucket cannot be used.
    pub(super) fn run(&self, folder: &Path, format: Format) -> Outcome {
        let folder = std::path::absolute(folder)?;
        let place = self.place()?;
        match &place {
            None => Library::create(&folder),
            Some(place) if self.records => Library::open_in_bucket(&folder, place),
            Some(place) => Library::create_in_bucket(&folder, place),
        }
        .map_err(Failure::usage_of)?;
        let shown = folder.display();
        let people = || match &self.objects {
            None => format!("an empty library is in {shown}"),
            Some(bucket) if self.records => {
                format!("{shown} is a folder of the library in {bucket}")
            }
            Some(bucket) => format!("an empty library is in {shown}, its objects in {bucket}"),
        };
        let value = json!({ "folder": folder, "objects": self.objects });
        format.print("created", &value, people, || shown.to_string())?;
        Ok(0)
    }

    fn place(&self) -> Result<Option<BucketPlace>, Failure> {
        let (Some(objects), Some(endpoint)) = (&self.objects, &self.endpoint) else {
            return Ok(None);
        };
        let (bucket, prefix) = bucket(objects)?;
        Ok(Some(BucketPlace {
            endpoint: endpoint.clone(),
            bucket,
            region: self.region.clone(),
            prefix,
        }))
    }
}

/// The bucket and the prefix of `s3://BUCKET/PREFIX`.
fn bucket(text: &str) -> Result<(String, String), Failure> {
    let rest = text.strip_prefix("s3://").unwrap_or_default();
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '/');
    let steps = prefix.trim_end_matches('/');
    let sound = steps.is_empty()
        || steps.chars().all(plain)
            && steps.split('/').all(|step| !matches!(step, "" | "." | ".."));
    if bucket.is_empty() || !sound {
        return Err(Failure::usage(format!(
            "{text:?} is no bucket; write s3://BUCKET or s3://BUCKET/PREFIX"
        )));
    }
    let prefix = if steps.is_empty() { String::new() } else { format!("{steps}/") };
    Ok((bucket.to_owned(), prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_people_type() {
        for (text, expected) in [
            ("s3://scans", Some(("scans", ""))),
            ("s3://scans/", Some(("scans", ""))),
            ("s3://scans/site/a", Some(("scans", "site/a/"))),
            ("s3://scans/site/a/", Some(("scans", "site/a/"))),
            ("scans", None),
            ("s3://", None),
            ("s3://scans/../other", None),
            ("s3://scans//a", None),
        ] {
            let found = bucket(text).ok();
            let found = found.as_ref().map(|(bucket, prefix)| (bucket.as_str(), prefix.as_str()));
            assert_eq!(found, expected, "{text}");
        }
    }
}
