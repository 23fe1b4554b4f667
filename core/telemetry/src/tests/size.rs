//! How much a sample of a large node takes, held against what a datagram has room for.

use gantry_model::TaskId;

use super::made::training;
use crate::delta::{Answer, Reading};
use crate::encoder::Encoder;
use crate::sample::Sample;

/// What a datagram of the link has room for, less what the message around a reading takes.
const DATAGRAM_BYTES: usize = 1162 - 16;
/// The layout and the rest of a keyframe, as the wire writes it: a byte or three for each count and
/// each length, and the texts.
const KEYFRAME_REST_BYTES: usize = 120;
/// Three numbers of at most five bytes.
const DELTA_REST_BYTES: usize = 15;

/// Sends samples on a channel that loses nothing, and gives the bytes of each reading.
fn lengths(samples: impl Iterator<Item = Sample>) -> Vec<(usize, &'static str)> {
    let mut encoder = Encoder::default();
    let lengths = samples.map(|sample| match encoder.encode(&sample).unwrap() {
        Reading::Keyframe(keyframe) => {
            encoder.answer(Answer::Acknowledged(keyframe.sequence));
            (keyframe.numbers.len() + KEYFRAME_REST_BYTES, "keyframe")
        }
        Reading::Delta(delta) => (delta.numbers.len() + DELTA_REST_BYTES, "delta"),
    });
    lengths.collect()
}

/// Holds the mean and the longest delta and the longest keyframe against what they may take.
fn check(samples: impl Iterator<Item = Sample>, mean_max: usize, delta_max: usize) {
    let lengths = lengths(samples);
    let of = |kind| lengths.iter().filter(move |(_, is)| *is == kind).map(|(length, _)| *length);
    let mean = of("delta").sum::<usize>() / of("delta").count();
    let (longest, keyframe) = (of("delta").max().unwrap(), of("keyframe").max().unwrap());
    assert_eq!(of("keyframe").count(), 4, "one each 300 samples of 1000");
    assert!(keyframe < DATAGRAM_BYTES, "a keyframe of {keyframe} bytes");
    assert!(mean <= mean_max && longest <= delta_max, "{mean} bytes, at most {longest}");
}

#[test]
fn cores_and_gpus_fit_their_bytes() {
    let idle = |second| {
        let mut sample = training(second);
        sample.running.clear();
        sample.gpus.iter_mut().for_each(|gpu| gpu.processes.clear());
        sample
    };
    check((0..1000).map(idle), 290, 310);
}

#[test]
fn tasks_and_their_processes_fit_beside_them() {
    check((0..1000).map(training), 350, 370);
}

#[test]
fn a_quiet_node_sends_little() {
    let quiet = |second: u64| {
        let mut sample = training(0);
        sample.at.0 += second * 1000;
        sample.cores_permille[second as usize % 64] = 10;
        sample
    };
    let lengths = lengths((0..300).map(quiet));
    assert!(lengths[1..].iter().all(|(length, _)| *length <= 100), "{lengths:?}");
}

#[test]
fn tasks_that_come_and_go_leave_deltas() {
    let busy = |second: u64| {
        let mut sample = training(second);
        sample.running.truncate((second % 7) as usize);
        for task in &mut sample.running {
            task.task = TaskId { index: second as u32 * 31, ..task.task };
        }
        sample.gpus[0].processes.truncate((second % 2) as usize);
        sample
    };
    let lengths = lengths((0..300).map(busy));
    let keyframes = lengths.iter().filter(|(_, kind)| *kind == "keyframe").count();
    assert!(keyframes <= 300 / 8, "{lengths:?}");
}
