//! `gantry man`: manual pages, made from the command line's own definition so that they are true.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::nouns;
use crate::error::{Failure, Outcome};
use crate::output::{self, Format};

/// `gantry man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Write gantry.1, gantry-submit.1 and so on here; where it is not given, gantry.1 is printed.
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl Man {
    /// Carries it out.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn run(&self, format: Format) -> Outcome {
        let mut command = nouns::command();
        command.build();
        let Some(folder) = &self.folder else {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            output::raw(&page)?;
            return Ok(0);
        };
        let shown = folder.display();
        let fail = |error: std::io::Error| {
            Failure::trouble(format!("writing manual pages to {shown} failed: {error}"))
        };
        std::fs::create_dir_all(folder).map_err(fail)?;
        clap_mangen::generate_to(command, folder).map_err(fail)?;
        let people =
            || format!("manual pages are in {shown}; read one with man -l {shown}/gantry.1");
        format.print("man", &json!({ "folder": folder }), people, || shown.to_string())?;
        Ok(0)
    }
}
