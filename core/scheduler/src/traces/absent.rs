//! What there is of traces in a program that was built without them: types without values, and a refusal.

use std::path::Path;

use gantry_cluster::{Cluster, Effect};
use gantry_model::At;

use crate::error::SchedulerError;
use crate::outgoing::Counts;

/// Nothing watches.
pub(crate) enum Watch {}

/// Nothing is sent.
pub(crate) enum Exporter {}

impl Watch {
    pub(crate) fn see(&mut self, _at: At, _cluster: &Cluster, _effect: &mut Effect) {
        match *self {}
    }
}

impl Exporter {
    pub(crate) fn counts(&self) -> Counts {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "its twin waits")]
    pub(crate) async fn finished(&self) {
        match *self {}
    }
}

/// Refuses a collector.
pub(crate) fn start(
    _folder: &Path,
    _cluster: &str,
    endpoint: Option<&str>,
) -> Result<Option<(Watch, Exporter)>, SchedulerError> {
    match endpoint {
        None => Ok(None),
        Some(_) => Err(SchedulerError::WithoutTraces),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces;

    type Started<W, E> = Result<Option<(W, E)>, SchedulerError>;

    /// What the rest of the daemon calls.
    fn shape<W, E>(
        _see: fn(&mut W, At, &Cluster, &mut Effect),
        _counts: fn(&E) -> Counts,
        _start: fn(&Path, &str, Option<&str>) -> Started<W, E>,
    ) {
    }

    #[test]
    fn both_builds_have_the_same_shape() {
        shape(Watch::see, Exporter::counts, start);
        shape(traces::Watch::see, traces::Exporter::counts, traces::start);
    }

    #[test]
    fn a_collector_is_refused_with_what_to_do() {
        let start = |endpoint| start(Path::new("/nowhere"), "test", endpoint);
        assert!(start(None).unwrap().is_none());
        let error = start(Some("http://secret:4318/v1/traces")).err().unwrap().to_string();
        assert!(error.contains("--features traces"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
