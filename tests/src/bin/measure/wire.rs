//! What a sample of a large node takes on its way: bytes of a datagram, and the time to make it and
//! to read it.
//!
//! Both ends are the product's own: the agent's encoder and the message around its reading, and the
//! scheduler's decoder. Bytes are those of the whole datagram; as beside them the same sample as a
//! plain message would take is given too.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use gantry_model::At;
use gantry_telemetry::{Decoder, Encoder, Reading, Sample};
use gantry_wire::{AgentMessage, codec, frame};

use crate::Size;
use crate::report::{Goal, Row};
use crate::samples::{self, CORES, GPUS};
use crate::statistics::{median, quantile};

/// Samples of a round: three keyframes and what lies between.
const SAMPLES: u32 = 900;
const DELTA_BYTES: f64 = 330.0;
const NANOSECONDS: f64 = 1000.0;

/// What one round gave.
#[derive(Default)]
struct Round {
    keyframes: Vec<f64>,
    deltas: Vec<f64>,
    encode_ns: Vec<f64>,
    decode_ns: Vec<f64>,
}

pub(crate) fn run(size: &Size) -> Result<Vec<Row>> {
    let count = u64::from(size.count.unwrap_or(SAMPLES).max(2));
    let samples: Vec<Sample> =
        (0..count).map(|second| samples::sample(1, second, At(second * 1000))).collect();
    let rounds: Vec<Round> = (0..size.rounds()).map(|_| round(&samples)).collect::<Result<_>>()?;
    let middle = |of: fn(&Round) -> &Vec<f64>, permille: usize| {
        let values: Vec<f64> = rounds.iter().map(|round| quantile(of(round), permille)).collect();
        median(&values)
    };
    let plain = codec::encode(&samples[0])?.len() + frame::HEADER_BYTES;
    let of = format!("{CORES} cores, {GPUS} GPUs");
    Ok(vec![
        Row::new(format!("a plain sample, {of}"), "B", plain as f64),
        Row::new(format!("a keyframe, {of}, p50"), "B", middle(|round| &round.keyframes, 500)),
        Row::new(format!("a delta, {of}, p50"), "B", middle(|round| &round.deltas, 500))
            .goal(Goal::AtMost(DELTA_BYTES)),
        Row::new(format!("a delta, {of}, the longest"), "B", middle(|round| &round.deltas, 1000)),
        Row::new("sample → datagram, p50", "ns", middle(|round| &round.encode_ns, 500))
            .goal(Goal::AtMost(NANOSECONDS)),
        Row::new("datagram → sample, p50", "ns", middle(|round| &round.decode_ns, 500))
            .goal(Goal::AtMost(NANOSECONDS)),
    ])
}

/// Sends samples over a channel that loses nothing.
fn round(samples: &[Sample]) -> Result<Round> {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    let mut round = Round::default();
    for sample in samples {
        let start = Instant::now();
        let reading = encoder.encode(black_box(sample)).context("a sample is beyond the limits")?;
        let is_delta = matches!(reading, Reading::Delta(_));
        let bytes = frame::write(&AgentMessage::Reading(Box::new(reading)))?;
        let encoded = start.elapsed();
        let start = Instant::now();
        let AgentMessage::Reading(reading) = frame::read(black_box(&bytes))? else {
            anyhow::bail!("a reading became something else");
        };
        let taken = decoder.take(*reading);
        let decoded = start.elapsed();
        ensure!(decoder.newest() == Some(sample), "a sample was changed on its way");
        if let Some(answer) = taken.answer {
            encoder.answer(answer);
        }
        let of = if is_delta { &mut round.deltas } else { &mut round.keyframes };
        of.push(bytes.len() as f64);
        // A keyframe comes once in five minutes.
        if is_delta {
            round.encode_ns.push(encoded.as_nanos() as f64);
            round.decode_ns.push(decoded.as_nanos() as f64);
        }
    }
    ensure!(!round.deltas.is_empty(), "no delta was sent; measure more samples");
    Ok(round)
}
