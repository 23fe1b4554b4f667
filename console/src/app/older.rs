//! Jobs older than those in the picture: pages that are asked for as one goes down the list, so that
//! the newest of a million are there at once and the others within reach.

use gantry_model::{JobId, JobRow};
use gantry_wire::Request;

use super::{About, App, View};

/// Older jobs that are kept: 5 MB. What is beyond is found by gantry history.
const OLDER_MAX: usize = 10_000;

/// The pages that came.
#[derive(Clone, Debug, Default)]
pub struct Older {
    rows: Vec<JobRow>,
    wanted: bool,
    /// Whether there is nothing older.
    end: bool,
}

impl Older {
    /// The jobs, newest first.
    #[must_use]
    pub fn rows(&self) -> &[JobRow] {
        &self.rows
    }

    /// Forgets them: what lives among them may have changed.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

impl App {
    /// The last row is chosen: what is older is wanted.
    pub(super) fn want_older_jobs(&mut self) {
        if self.view != View::Jobs || self.older.end {
            return;
        }
        if self.older.rows.len() >= OLDER_MAX {
            self.say(format!("{OLDER_MAX} older jobs are listed; gantry history finds the others"));
        } else {
            self.older.wanted = true;
        }
    }

    /// What is to be asked: the page behind the oldest job that is known.
    pub(super) fn older_jobs_asked(&self) -> Option<Request> {
        if !self.older.wanted {
            return None;
        }
        let pictured = self.update.as_ref()?.jobs.iter().map(|row| row.job).min();
        let before = self.older.rows.last().map(|row| row.job).or(pictured)?;
        Some(Request::Jobs { before: Some(before), ended: true })
    }

    /// Takes a page.
    pub(super) fn take_older_jobs(&mut self, rows: Vec<JobRow>, more: bool) {
        self.older.wanted = false;
        let last: Option<JobId> = self.older.rows.last().map(|row| row.job);
        let newer = |row: &JobRow| last.is_some_and(|last| row.job >= last);
        let room = OLDER_MAX.saturating_sub(self.older.rows.len());
        self.older.rows.extend(rows.into_iter().filter(|row| !newer(row)).take(room));
        self.older.end = !more;
        self.forget_asked(|about| *about == About::OlderJobs);
    }
}
