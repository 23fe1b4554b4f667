//! Join tokens: what a new node shows once to get its certificate.
//!
//! A token is `FINGERPRINT.SECRET` in hexadecimal. The fingerprint is the SHA-256 of the
//! authority's certificate, so that the node knows whom to trust before it says its secret. The
//! scheduler keeps only the hash of a token, with the node's name and an expiry.

use std::fmt::Write;

use rand::Rng;
use sha2::{Digest, Sha256};

use crate::error::LinkError;

/// Bytes of a token's secret: 128 bits cannot be guessed within its 15 minutes.
const SECRET_BYTES: usize = 16;

/// A new token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What the operator hands over.
    pub text: String,
    /// What the scheduler keeps.
    pub hash: String,
}

/// Makes a token for the authority with this fingerprint.
#[must_use]
pub fn mint(authority_fingerprint: &str) -> Token {
    let mut secret = [0_u8; SECRET_BYTES];
    rand::rng().fill_bytes(&mut secret);
    let text = format!("{authority_fingerprint}.{}", hexadecimal(&secret));
    Token { hash: hash(&text), text }
}

/// The hash under which the scheduler knows a token.
#[must_use]
pub fn hash(text: &str) -> String {
    hexadecimal(&Sha256::digest(text.trim().as_bytes()))
}

/// The authority's fingerprint within a token.
pub(crate) fn fingerprint(text: &str) -> Result<String, LinkError> {
    let hex = |part: &str, bytes: usize| {
        part.len() == 2 * bytes && part.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    match text.trim().split_once('.') {
        Some((first, second)) if hex(first, 32) && hex(second, SECRET_BYTES) => {
            Ok(first.to_owned())
        }
        _ => Err(LinkError::Identity(
            "this is not a join token; copy the whole line that gantry scheduler token printed"
                .into(),
        )),
    }
}

/// Bytes as lower-case hexadecimal.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_carries_its_authority() {
        let authority = "ab".repeat(32);
        let token = mint(&authority);
        assert_eq!(fingerprint(&token.text).unwrap(), authority);
        assert_eq!(hash(&format!(" {}\n", token.text)), token.hash);
        assert_ne!(mint(&authority).text, token.text);
        for text in ["", "x", "ab.cd", &token.text[1..], &token.text[..token.text.len() - 1]] {
            assert!(fingerprint(text).is_err(), "{text}");
        }
    }
}
