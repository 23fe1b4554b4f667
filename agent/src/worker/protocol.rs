//! What an agent and its worker say to each other, over the worker's standard input and output.

use gantry_model::{Builtin, Exit, MemoryMib, TaskId, TryId, Usage};
use serde::{Deserialize, Serialize};

/// What a worker is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// Carry out an operation after those that came before; its lines go to the end of this file.
    Run {
        /// The execution.
        try_id: TryId,
        /// The task.
        task: TaskId,
        /// The operation.
        builtin: Builtin,
        /// The output file.
        output: String,
    },
    /// End an operation soon, keeping what can be kept.
    Stop {
        /// The execution.
        try_id: TryId,
    },
    /// The time limit of an operation is near.
    Warn {
        /// The execution.
        try_id: TryId,
    },
    /// Give back what has not begun.
    Return,
    /// Carry out this operation and nothing else, as a process of its own: the first message or none.
    Alone {
        /// The task.
        task: TaskId,
        /// The operation.
        builtin: Builtin,
        /// The signal that tells that its time limit is near.
        warning: Option<u8>,
    },
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromWorker {
    /// The operation that is carried out will take at most so much memory.
    Needs(MemoryMib),
    /// These have not begun, and will not.
    Returned(Vec<TryId>),
    /// The operation that was the first of those it has, has ended.
    Done {
        /// How.
        exit: Exit,
        /// What it used.
        usage: Usage,
        /// The last line of its output, which is not in the file: most of the operations that
        /// end soon have no other, and no file then.
        last: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::{read, write};
    use gantry_model::JobId;

    #[test]
    fn messages_come_back_and_damage_is_an_error() {
        let series = (0..300).map(|number| format!("s{number:015}")).collect();
        let builtin = Builtin::Predict { library: "l".into(), model: "run:a".into(), series };
        let task = JobId(7).task(0);
        let mut bytes = Vec::new();
        let try_id = TryId(3);
        let run = ToWorker::Run { try_id, task, builtin: builtin.clone(), output: "o".into() };
        write(&mut bytes, &run).unwrap();
        write(&mut bytes, &ToWorker::Stop { try_id }).unwrap();
        let mut from = bytes.as_slice();
        let Ok(Some(ToWorker::Run { task: read_task, builtin: read_builtin, .. })) =
            read(&mut from)
        else {
            panic!()
        };
        assert_eq!((read_task, read_builtin), (task, builtin));
        assert!(matches!(read(&mut from), Ok(Some(ToWorker::Stop { .. }))));
        assert!(matches!(read::<ToWorker>(&mut from), Ok(None)));
        for damaged in [&bytes[..bytes.len() / 2], &[0xff; 8], &[1, 0, 0, 0, 99]] {
            assert!(read::<ToWorker>(&mut &*damaged).is_err(), "{}", damaged.len());
        }
    }
}
