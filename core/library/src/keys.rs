//! The keys of a bucket: from the environment, or from the file that every program of S3 reads.
//!
//! They stand in no setting, record, error or log of ours, and this type cannot be printed.

use std::env;
use std::path::PathBuf;

use crate::error::LibraryError;
use crate::files;
use crate::limits::KEYS_BYTES_MAX;

/// What signs requests.
pub(crate) struct Keys {
    pub(crate) id: String,
    pub(crate) secret: String,
    /// Of keys that count for a while only.
    pub(crate) token: Option<String>,
}

impl Keys {
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, with `AWS_SESSION_TOKEN` where it is set; else
    /// the profile `AWS_PROFILE` (or `default`) of the file `AWS_SHARED_CREDENTIALS_FILE` (or
    /// `~/.aws/credentials`). None where neither has them.
    pub(crate) fn find() -> Result<Option<Self>, LibraryError> {
        let variable = |name: &str| env::var(name).ok().filter(|text| !text.trim().is_empty());
        let id = variable("AWS_ACCESS_KEY_ID");
        if let (Some(id), Some(secret)) = (id, variable("AWS_SECRET_ACCESS_KEY")) {
            return Ok(Some(Self { id, secret, token: variable("AWS_SESSION_TOKEN") }));
        }
        let named = variable("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
        let usual = || Some(PathBuf::from(env::var_os("HOME")?).join(".aws/credentials"));
        let Some(path) = named.or_else(usual).filter(|path| path.is_file()) else {
            return Ok(None);
        };
        let text = files::read_head(&path, KEYS_BYTES_MAX)?;
        let profile = variable("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
        Ok(Self::of_profile(&String::from_utf8_lossy(&text), &profile))
    }

    /// The keys of a profile in the text of such a file.
    fn of_profile(text: &str, profile: &str) -> Option<Self> {
        let (mut id, mut secret, mut token) = (None, None, None);
        let mut within = false;
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                within = name.trim() == profile;
            } else if let (true, Some((name, value))) = (within, line.split_once('=')) {
                let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
                match name.trim() {
                    "aws_access_key_id" => id = value,
                    "aws_secret_access_key" => secret = value,
                    "aws_session_token" => token = value,
                    _ => {}
                }
            }
        }
        Some(Self { id: id?, secret: secret?, token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_the_keys_of_the_profile_that_is_asked_for() {
        let text = "# ours\n[default]\naws_access_key_id = A\naws_secret_access_key=b=c \n\n\
                    [ site ]\naws_access_key_id=D\naws_secret_access_key=E\naws_session_token=F\n\
                    [half]\naws_access_key_id=G\naws_secret_access_key=\n;region=x";
        for (profile, expected) in [
            ("default", Some(("A", "b=c", None))),
            ("site", Some(("D", "E", Some("F")))),
            ("half", None),
            ("other", None),
        ] {
            let keys = Keys::of_profile(text, profile);
            let found = keys.as_ref().map(|keys| (&*keys.id, &*keys.secret, keys.token.as_deref()));
            assert_eq!(found, expected, "{profile}");
        }
    }
}
