//! An encoder and a decoder with a channel between them that loses, doubles and reorders.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::made::{any, training};
use crate::decoder::{Counts, Decoder, Verdict};
use crate::delta::{Answer, Reading, Sequence};
use crate::encoder::Encoder;
use crate::sample::Sample;

/// Layouts that a run changes between.
const SHAPES: u64 = 3;

/// Something that happens. A place counts from the oldest of what is under way.
#[derive(Clone, Copy, Debug)]
enum Step {
    Sample {
        shape: u64,
        seed: u64,
    },
    Deliver(usize),
    Double(usize),
    Lose(usize),
    DeliverAnswer(usize),
    DoubleAnswer(usize),
    LoseAnswer(usize),
    /// The scheduler has started again behind the same connection.
    Forget,
    /// The connection is new.
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    let place = 0..4_usize;
    prop_oneof![
        8 => (0..SHAPES, any_seed()).prop_map(|(shape, seed)| Step::Sample { shape, seed }),
        6 => place.clone().prop_map(Step::Deliver),
        1 => place.clone().prop_map(Step::Double),
        2 => place.clone().prop_map(Step::Lose),
        4 => place.clone().prop_map(Step::DeliverAnswer),
        1 => place.clone().prop_map(Step::DoubleAnswer),
        1 => place.prop_map(Step::LoseAnswer),
        1 => prop_oneof![Just(Step::Forget), Just(Step::Reconnect)],
    ]
}

fn any_seed() -> impl Strategy<Value = u64> {
    prop::num::u64::ANY
}

/// Both ends, and what is between them.
#[derive(Default)]
struct Channel {
    encoder: Encoder,
    decoder: Decoder,
    /// Every sample of this connection, by the place of its reading.
    sent: BTreeMap<Sequence, Sample>,
    newest: Sequence,
    readings: Vec<Reading>,
    answers: Vec<Answer>,
}

impl Channel {
    fn send(&mut self, sample: Sample) {
        let reading = self.encoder.encode(&sample).unwrap();
        self.sent.insert(reading.sequence(), sample);
        self.readings.push(reading);
    }

    /// Gives a reading to the decoder and holds what it says against what was sent.
    fn deliver(&mut self, reading: Reading) -> Verdict {
        let sequence = reading.sequence();
        let taken = self.decoder.take(reading);
        match taken.verdict {
            Verdict::Newer => {
                assert!(sequence > self.newest, "{sequence:?} after {:?}", self.newest);
                self.newest = sequence;
            }
            Verdict::Refused => panic!("an honest reading was refused"),
            Verdict::Late | Verdict::Doubled => assert!(sequence <= self.newest),
            Verdict::Unknown => assert!(matches!(taken.answer, Some(Answer::Missing(_)))),
        }
        assert_eq!(self.decoder.newest(), self.sent.get(&self.newest));
        self.answers.extend(taken.answer);
        taken.verdict
    }

    fn step(&mut self, step: Step) {
        let reading = |place: usize, channel: &Self| {
            let count = channel.readings.len();
            (count > 0).then(|| place % count)
        };
        let answer = |place: usize, channel: &Self| {
            let count = channel.answers.len();
            (count > 0).then(|| place % count)
        };
        match step {
            Step::Sample { shape, seed } => self.send(any(shape, seed)),
            Step::Deliver(place) => {
                if let Some(place) = reading(place, self) {
                    let reading = self.readings.remove(place);
                    self.deliver(reading);
                }
            }
            Step::Double(place) => {
                if let Some(place) = reading(place, self) {
                    self.deliver(self.readings[place].clone());
                }
            }
            Step::Lose(place) => {
                reading(place, self).map(|place| self.readings.remove(place));
            }
            Step::DeliverAnswer(place) => {
                if let Some(place) = answer(place, self) {
                    self.encoder.answer(self.answers.remove(place));
                }
            }
            Step::DoubleAnswer(place) => {
                if let Some(place) = answer(place, self) {
                    self.encoder.answer(self.answers[place]);
                }
            }
            Step::LoseAnswer(place) => {
                answer(place, self).map(|place| self.answers.remove(place));
            }
            Step::Forget => {
                self.decoder = Decoder::default();
                self.newest = Sequence(0);
            }
            Step::Reconnect => {
                self.encoder.reconnect();
                self.decoder = Decoder::default();
                self.newest = Sequence(0);
                self.readings.clear();
                self.answers.clear();
            }
        }
    }

    /// Delivers everything that is under way.
    fn calm(&mut self) {
        for reading in std::mem::take(&mut self.readings) {
            self.deliver(reading);
        }
        for answer in std::mem::take(&mut self.answers) {
            self.encoder.answer(answer);
        }
    }
}

/// Whether the decoder has what was sent last.
fn is_current(channel: &Channel) -> bool {
    channel.sent.keys().next_back() == Some(&channel.newest)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn only_what_was_sent_and_the_newest_in_the_end(steps in prop::collection::vec(step(), 1..120)) {
        let mut channel = Channel::default();
        for step in steps {
            channel.step(step);
        }
        // One sample may still be a delta that the decoder cannot read; it asks for a keyframe.
        for seed in 0..2 {
            channel.calm();
            channel.send(any(0, seed));
        }
        channel.calm();
        prop_assert!(is_current(&channel));
        // From here on deltas serve, but for a keyframe that was due.
        let is_delta = [0; 2].map(|_| {
            channel.send(any(0, 1));
            let is_delta = matches!(channel.readings.last(), Some(Reading::Delta(_)));
            channel.calm();
            is_delta
        });
        prop_assert!(is_delta.contains(&true), "{:?}", is_delta);
    }

    #[test]
    fn nothing_lost_means_every_sample_is_shown(
        samples in prop::collection::vec((0..SHAPES, any_seed(), 0..5_usize), 1..60),
    ) {
        // Answers come late by up to four samples, or never.
        let mut channel = Channel::default();
        for (shape, seed, late) in samples {
            channel.send(any(shape, seed));
            let reading = channel.readings.remove(0);
            prop_assert_eq!(channel.deliver(reading), Verdict::Newer);
            while channel.answers.len() > late {
                channel.encoder.answer(channel.answers.remove(0));
            }
        }
    }
}

/// Sends samples of one layout; `answer` says what of the decoder's answers arrives.
fn run(count: u64, mut answer: impl FnMut(u64, Answer) -> Option<Answer>) -> (Counts, Vec<u64>) {
    let mut channel = Channel::default();
    let mut keyframes = Vec::new();
    for place in 1..=count {
        channel.send(training(place));
        if matches!(channel.readings[0], Reading::Keyframe(_)) {
            keyframes.push(place);
        }
        channel.deliver(channel.readings[0].clone());
        channel.readings.clear();
        for told in std::mem::take(&mut channel.answers) {
            if let Some(told) = answer(place, told) {
                channel.encoder.answer(told);
            }
        }
    }
    (channel.decoder.counts(), keyframes)
}

#[test]
fn keyframes_go_until_one_is_acknowledged() {
    let (counts, keyframes) = run(20, |place, told| (place >= 5).then_some(told));
    assert_eq!(keyframes, [1, 2, 3, 4, 5]);
    assert_eq!(counts, Counts { newer: 20, ..Counts::default() });
}

#[test]
fn a_missing_keyframe_is_sent_again() {
    let (counts, keyframes) = run(20, |place, told| {
        let Answer::Acknowledged(sequence) = told else { return None };
        Some(if place == 1 { told } else { Answer::Missing(sequence) })
    });
    assert_eq!(keyframes, [1]);
    assert_eq!(counts.newer, 20);
    let mut channel = Channel::default();
    for seed in 0..2 {
        channel.send(any(1, seed));
        channel.calm();
    }
    channel.step(Step::Forget);
    channel.send(any(1, 2));
    channel.calm();
    assert_eq!(channel.decoder.counts(), Counts { unknown: 1, ..Counts::default() });
    channel.send(any(1, 3));
    channel.calm();
    assert!(is_current(&channel));
}

#[test]
fn late_and_doubled_readings_are_told_apart() {
    use Verdict::{Doubled, Late, Newer};
    let mut channel = Channel::default();
    for seed in 0..70 {
        channel.send(any(1, seed));
    }
    let readings = std::mem::take(&mut channel.readings);
    let verdicts = [5, 3, 3, 5, 69, 4, 3].map(|place| channel.deliver(readings[place].clone()));
    // The last one came 66 places ago, which is no longer known.
    assert_eq!(verdicts, [Newer, Late, Doubled, Doubled, Newer, Late, Late]);
    assert_eq!(
        channel.decoder.counts(),
        Counts { newer: 2, late: 3, doubled: 2, ..Counts::default() }
    );
}
