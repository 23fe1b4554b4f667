//! What a console watches: a picture, and from then on what is otherwise than in the picture before.
//!
//! Most of a picture stays as it is from one to the next: of a hundred nodes a fifth has said something
//! new. Whoever misses one gets the newest whole.

use gantry_model::{At, JobRow, Note, OwnerRow, Summary};
use serde::{Deserialize, Serialize};

use super::{Metric, NodeStatus, Output};
use crate::error::WireError;

/// One picture of what a console watches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// The scheduler's clock when it was made.
    pub at: At,
    /// The cluster's name.
    pub cluster: String,
    /// The numbers of the first line.
    pub summary: Summary,
    /// Nodes, where the scope shows them.
    pub nodes: Vec<NodeStatus>,
    /// Processor use of the whole cluster in thousandths, oldest first, one value per second; an
    /// absent value is a gap.
    pub busy_permille: Vec<Option<u16>>,
    /// Use of all GPUs in thousandths, in the same parts of the last hour; empty where no node has one.
    pub gpu_busy_permille: Vec<Option<u16>>,
    /// Power that all GPUs draw together, in W, in the same parts.
    pub gpu_power_w: Vec<Option<u32>>,
    /// Who holds what and who waits, those who hold most first, where the scope shows it.
    pub owners: Vec<OwnerRow>,
    /// Jobs, where the scope shows them.
    pub jobs: Vec<JobRow>,
    /// Metrics of the job that is shown.
    pub metrics: Vec<Metric>,
    /// The end of the output of the job that is shown.
    pub output: Option<Output>,
    /// The newest lines of the event log, oldest first.
    pub notes: Vec<Note>,
}

/// What a watch sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// A picture, which replaces whatever there was. It comes first.
    Whole(Box<Update>),
    /// What is otherwise than in the picture that the step before has led to.
    Changes(Box<Changes>),
}

/// What of a picture is otherwise than in the one before; the cluster's name is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    at: At,
    summary: Summary,
    nodes: Rows<NodeStatus>,
    busy_permille: Rows<Option<u16>>,
    gpu_busy_permille: Rows<Option<u16>>,
    gpu_power_w: Rows<Option<u32>>,
    owners: Rows<OwnerRow>,
    jobs: Rows<JobRow>,
    metrics: Rows<Metric>,
    /// As a list of one, or of none.
    output: Rows<Output>,
    notes: Rows<Note>,
}

/// What of a list is otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rows<T> {
    /// The whole list: its length is another.
    All(Vec<T>),
    /// The rows at these places.
    These(Vec<(u32, T)>),
}

impl<T: Clone + PartialEq> Rows<T> {
    /// What is otherwise.
    #[must_use]
    pub fn between(before: &[T], now: &[T]) -> Self {
        if before.len() != now.len() {
            return Self::All(now.to_vec());
        }
        let pairs = (0..).zip(before.iter().zip(now));
        let others = pairs.filter(|(_, (before, now))| before != now);
        Self::These(others.map(|(place, (_, now))| (place, now.clone())).collect())
    }

    /// Makes the list of before that of now.
    fn apply(self, rows: &mut Vec<T>) -> Result<(), WireError> {
        match self {
            Self::All(all) => *rows = all,
            Self::These(these) => {
                for (place, now) in these {
                    *rows.get_mut(place as usize).ok_or(WireError::NoSuchRow)? = now;
                }
            }
        }
        Ok(())
    }
}

impl Update {
    /// What a later picture of the same cluster shows otherwise.
    #[must_use]
    pub fn changes(&self, now: &Self) -> Changes {
        Changes {
            at: now.at,
            summary: now.summary,
            nodes: Rows::between(&self.nodes, &now.nodes),
            busy_permille: Rows::between(&self.busy_permille, &now.busy_permille),
            gpu_busy_permille: Rows::between(&self.gpu_busy_permille, &now.gpu_busy_permille),
            gpu_power_w: Rows::between(&self.gpu_power_w, &now.gpu_power_w),
            owners: Rows::between(&self.owners, &now.owners),
            jobs: Rows::between(&self.jobs, &now.jobs),
            metrics: Rows::between(&self.metrics, &now.metrics),
            output: Rows::between(self.output.as_slice(), now.output.as_slice()),
            notes: Rows::between(&self.notes, &now.notes),
        }
    }

    /// Becomes the picture that a step leads to.
    ///
    /// # Errors
    /// Where it changes a row that is not there: a part of the picture is new then, and a whole one must
    /// be asked for.
    pub fn take(&mut self, step: Step) -> Result<(), WireError> {
        let changes = match step {
            Step::Whole(whole) => {
                *self = *whole;
                return Ok(());
            }
            Step::Changes(changes) => *changes,
        };
        self.at = changes.at;
        self.summary = changes.summary;
        changes.nodes.apply(&mut self.nodes)?;
        changes.busy_permille.apply(&mut self.busy_permille)?;
        changes.gpu_busy_permille.apply(&mut self.gpu_busy_permille)?;
        changes.gpu_power_w.apply(&mut self.gpu_power_w)?;
        changes.owners.apply(&mut self.owners)?;
        changes.jobs.apply(&mut self.jobs)?;
        changes.metrics.apply(&mut self.metrics)?;
        let mut output = Vec::from_iter(self.output.take());
        changes.output.apply(&mut output)?;
        self.output = output.pop();
        changes.notes.apply(&mut self.notes)
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::{Level, Subject};

    use super::*;

    fn picture(busy: &[u16], notes: &[&str]) -> Update {
        let note = |sentence: &&str| Note {
            at: At(1),
            level: Level::Info,
            subject: Subject::Cluster,
            sentence: (*sentence).into(),
        };
        Update {
            at: At(busy.len() as u64),
            cluster: "c".into(),
            busy_permille: busy.iter().copied().map(Some).collect(),
            notes: notes.iter().map(note).collect(),
            ..Update::default()
        }
    }

    #[test]
    fn changes_lead_from_each_picture_to_the_next() {
        let output = |bytes: &[u8]| Some(Output { bytes: bytes.to_vec(), ..Output::default() });
        let pictures = [
            picture(&[1, 2, 3], &["a"]),
            picture(&[1, 7, 3], &["a"]),
            Update { output: output(b"x"), ..picture(&[1, 7, 3], &["a", "b"]) },
            Update { output: output(b"xy"), ..picture(&[], &["b", "c"]) },
            picture(&[4], &["b", "c"]),
        ];
        let mut shown = Update::default();
        shown.take(Step::Whole(Box::new(pictures[0].clone()))).unwrap();
        for [before, now] in pictures.array_windows() {
            assert_eq!(shown, *before);
            shown.take(Step::Changes(Box::new(before.changes(now)))).unwrap();
            assert_eq!(shown, *now);
        }
        let same = pictures[1].changes(&pictures[1]);
        assert_eq!((same.busy_permille, same.output), (Rows::These(vec![]), Rows::These(vec![])));
        let one = pictures[0].changes(&pictures[1]);
        assert_eq!(one.busy_permille, Rows::These(vec![(1, Some(7))]));
    }

    #[test]
    fn a_change_of_a_row_that_is_not_there_is_an_error() {
        let changes = picture(&[1, 2], &[]).changes(&picture(&[1, 3], &[]));
        let step = Step::Changes(Box::new(changes));
        assert_eq!(picture(&[1], &[]).take(step), Err(WireError::NoSuchRow));
    }
}
