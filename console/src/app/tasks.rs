//! The tasks of the job on the screen: an answer holds two hundred, so those of a larger array come page
//! after page. What ended badly or was started again is kept, the others are counted.

use gantry_model::{JobId, TaskRow};
use gantry_wire::Request;

use super::{About, App};

/// Tasks that are looked at: a hundred answers. What is beyond is said.
const LOOKED_MAX: u32 = 20_000;
/// Odd ones that are kept; more are counted.
const ODD_MAX: usize = 64;
/// Between two looks where one answer is not enough.
const PAGES_EACH_MS: u64 = 30_000;

/// A look at the tasks of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// How many were looked at.
    pub looked: u32,
    /// Those that failed or were started more than once, the first ones.
    pub odd: Vec<TaskRow>,
    /// How many those are.
    pub odds: u32,
    /// Whether there are tasks beyond.
    pub more: bool,
}

impl Look {
    fn take(&mut self, rows: Vec<TaskRow>, more: bool) {
        self.looked += rows.len() as u32;
        for row in rows {
            if row.state == "failed" || row.starts > 1 {
                self.odds += 1;
                if self.odd.len() < ODD_MAX {
                    self.odd.push(row);
                }
            }
        }
        self.more = more;
    }
}

/// The last whole look and the one that goes on.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    job: Option<JobId>,
    whole: Option<Look>,
    coming: Look,
    /// The first element of the next page.
    next: u32,
    /// Whether the last whole look took several pages.
    large: bool,
}

impl Tasks {
    /// What is known of the tasks of a job: the last whole look, or as far as the first one is.
    #[must_use]
    pub fn of(&self, job: JobId) -> Option<&Look> {
        let seen = self.whole.as_ref().or(Some(&self.coming).filter(|look| look.looked > 0));
        seen.filter(|_| self.job == Some(job))
    }

    /// The page to ask for, and how long after the last one.
    pub(super) fn asked(&self, job: JobId, each_ms: u64) -> (u64, Request) {
        let goes_on = self.job == Some(job) && self.next > 0;
        let from = if goes_on { self.next } else { 0 };
        let each_ms = match (goes_on, self.job == Some(job) && self.large) {
            // The pages of one look follow one another at once.
            (true, _) => 0,
            (false, true) => each_ms.max(PAGES_EACH_MS),
            (false, false) => each_ms,
        };
        (each_ms, Request::Tasks { job, from })
    }

    /// Takes a page; says whether another one follows at once.
    fn take(&mut self, job: JobId, rows: Vec<TaskRow>, more: bool) -> bool {
        if self.job != Some(job) {
            *self = Self { job: Some(job), ..Self::default() };
        }
        let first = rows.first().map_or(u32::MAX, |row| row.task.index);
        if first < self.next {
            // A page that was asked for twice.
            return self.next > 0;
        }
        let last = rows.last().map(|row| row.task.index);
        self.large = more || self.next > 0;
        self.coming.take(rows, more);
        self.next = last.filter(|_| more && self.coming.looked < LOOKED_MAX).map_or(0, |at| at + 1);
        if self.next == 0 {
            self.whole = Some(std::mem::take(&mut self.coming));
        }
        self.next > 0
    }
}

impl App {
    /// Takes a page of tasks.
    pub(super) fn take_tasks(&mut self, job: JobId, rows: Vec<TaskRow>, more: bool) {
        if self.tasks.take(job, rows, more) {
            self.forget_asked(|about| *about == About::Tasks(job));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(job: JobId, from: u32, count: u32, failed: &[u32]) -> Vec<TaskRow> {
        (from..from + count)
            .map(|index| TaskRow {
                task: job.task(index),
                state: if failed.contains(&index) { "failed" } else { "done" }.into(),
                node: None,
                starts: 1,
                exit: None,
            })
            .collect()
    }

    #[test]
    fn pages_follow_one_another_and_what_is_odd_is_kept() {
        let job = JobId(7);
        let mut tasks = Tasks::default();
        assert_eq!(tasks.asked(job, 5_000), (5_000, Request::Tasks { job, from: 0 }));
        assert!(tasks.take(job, page(job, 0, 200, &[3]), true));
        assert_eq!(
            tasks.of(job).map(|look| (look.looked, look.odds, look.more)),
            Some((200, 1, true))
        );
        assert_eq!(tasks.asked(job, 5_000), (0, Request::Tasks { job, from: 200 }));
        // The answer to the same question once more.
        assert!(tasks.take(job, page(job, 0, 200, &[3]), true));
        assert!(!tasks.take(job, page(job, 200, 150, &[210, 211]), false));
        let look = tasks.of(job).unwrap().clone();
        assert_eq!((look.looked, look.odds, look.more), (350, 3, false));
        assert_eq!(look.odd.iter().map(|row| row.task.index).collect::<Vec<_>>(), [3, 210, 211]);
        assert_eq!(tasks.asked(job, 5_000), (30_000, Request::Tasks { job, from: 0 }));
        // The next look takes the place of this one once it is whole.
        assert!(tasks.take(job, page(job, 0, 200, &[]), true));
        assert_eq!(tasks.of(job), Some(&look));
        assert!(!tasks.take(job, page(job, 200, 150, &[]), false));
        assert_eq!(tasks.of(job).map(|look| look.odds), Some(0));
        // Of another job nothing is known.
        assert_eq!(tasks.of(JobId(8)), None);
        assert_eq!(
            tasks.asked(JobId(8), 5_000),
            (5_000, Request::Tasks { job: JobId(8), from: 0 })
        );
    }

    #[test]
    fn one_answer_is_asked_for_as_before_and_a_million_tasks_are_not_all_looked_at() {
        let job = JobId(7);
        let mut tasks = Tasks::default();
        assert!(!tasks.take(job, page(job, 0, 8, &[]), false));
        assert_eq!(tasks.asked(job, 5_000).0, 5_000);
        let mut tasks = Tasks::default();
        let mut from = 0;
        while tasks.take(job, page(job, from, 200, &[]), true) {
            from += 200;
        }
        let look = tasks.of(job).unwrap();
        assert_eq!((look.looked, look.more), (LOOKED_MAX, true));
        // Every task of a job that was started twice.
        let mut odd = page(job, 0, 200, &[]);
        for row in &mut odd {
            row.starts = 2;
        }
        let mut look = Look::default();
        look.take(odd, false);
        assert_eq!((look.odd.len(), look.odds), (ODD_MAX, 200));
    }
}
