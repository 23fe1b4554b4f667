//! Readings that no encoder made.

use proptest::prelude::*;

use super::made::any;
use crate::decoder::{Decoder, Verdict};
use crate::delta::{Delta, Keyframe, Reading, Sequence};
use crate::encoder::Encoder;
use crate::flat::{Flat, NUMBERS_MAX, restore};
use crate::pack::{Packed, Packer, unpack};
use crate::sample::Sample;

/// A keyframe with numbers of a stranger's choice.
fn forged(shape: u64, count: u32, numbers: Vec<u8>) -> Reading {
    let Some(Reading::Keyframe(honest)) = Encoder::default().encode(&any(shape, 0)) else {
        panic!("the first reading is a keyframe");
    };
    Reading::Keyframe(Keyframe {
        sequence: Sequence(u64::MAX),
        count,
        numbers: Packed::from_bytes(numbers),
        ..honest
    })
}

/// Holds that a reading is refused and changes nothing that is shown.
fn check_refused(decoder: &mut Decoder, reading: Reading) {
    let before = decoder.newest().cloned();
    let taken = decoder.take(reading);
    assert_eq!((taken.verdict, taken.answer), (Verdict::Refused, None));
    assert_eq!(decoder.newest(), before.as_ref());
}

fn decoder() -> (Encoder, Decoder) {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    let taken = decoder.take(encoder.encode(&any(1, 1)).unwrap());
    taken.answer.into_iter().for_each(|answer| encoder.answer(answer));
    (encoder, decoder)
}

#[test]
fn what_is_malformed_changes_nothing() {
    let (mut encoder, mut decoder) = decoder();
    check_refused(&mut decoder, forged(1, 0, Vec::new()));
    check_refused(&mut decoder, forged(1, u32::MAX, vec![0; 64]));
    check_refused(&mut decoder, forged(1, NUMBERS_MAX as u32, vec![0; NUMBERS_MAX / 8]));
    check_refused(&mut decoder, forged(1, 3, vec![0xff; 2]));
    check_refused(&mut decoder, forged(1, 3, vec![0; 200]));
    let delta = |count, bytes: &[u8]| {
        let numbers = Packed::from_bytes(bytes.to_vec());
        Reading::Delta(Delta { sequence: Sequence(900), keyframe: Sequence(1), count, numbers })
    };
    check_refused(&mut decoder, delta(0, &[]));
    check_refused(&mut decoder, delta(u32::MAX, &[0; 100]));
    check_refused(&mut decoder, delta(100, &[0xff; 3]));
    assert_eq!(decoder.counts().refused, 8);
    // The honest sender goes on as if nothing had been.
    let taken = decoder.take(encoder.encode(&any(1, 2)).unwrap());
    assert_eq!(taken.verdict, Verdict::Newer);
    assert_eq!(decoder.newest(), Some(&any(1, 2)));
}

#[test]
fn a_sample_beyond_the_limits_is_not_sent() {
    let beyond: [fn(&mut Sample); 3] = [
        |sample| sample.cores_permille = vec![0; NUMBERS_MAX],
        |sample| sample.disks = vec![crate::DiskSample::default(); 2000],
        |sample| {
            sample.disks.push(crate::DiskSample {
                name: "x".repeat(30_000),
                ..crate::DiskSample::default()
            });
        },
    ];
    for change in beyond {
        let mut sample = any(1, 1);
        change(&mut sample);
        assert_eq!(Encoder::default().encode(&sample), None);
    }
}

#[test]
fn the_greatest_number_is_an_absent_one() {
    let mut sample = any(1, 1);
    sample.gpus = vec![crate::GpuSample { throttle: Some(u64::MAX), ..Default::default() }];
    let mut decoder = Decoder::default();
    decoder.take(Encoder::default().encode(&sample).unwrap());
    assert_eq!(decoder.newest().unwrap().gpus[0].throttle, None);
}

proptest! {
    #[test]
    fn packed_numbers_come_back(
        numbers in prop::collection::vec((any_number(), any_number()), 0..60),
        shorter in 0..60_usize,
    ) {
        let (numbers, mut base): (Vec<u64>, Vec<u64>) = numbers.into_iter().unzip();
        base.truncate(shorter);
        let packed = Packer::default().pack(&numbers, &base);
        let mut back = vec![1, 2, 3];
        prop_assert_eq!(unpack(&packed, &base, numbers.len(), &mut back), Some(()));
        prop_assert_eq!(&back, &numbers);
        for cut in 0..packed.len() {
            let cut = Packed::from_bytes(packed.bytes()[..cut].to_vec());
            prop_assert_eq!(unpack(&cut, &base, numbers.len(), &mut back), None);
        }
    }

    #[test]
    fn a_flat_sample_comes_back_into_any_other(
        one in (0..50_u64, prop::num::u64::ANY),
        other in (0..50_u64, prop::num::u64::ANY),
    ) {
        let (one, other) = (any(one.0, one.1), any(other.0, other.1));
        let (mut flat, mut fresh, mut lists) = (Flat::default(), Flat::default(), Vec::new());
        flat.set(&other, &mut lists);
        flat.set(&one, &mut lists);
        fresh.set(&one, &mut Vec::new());
        prop_assert_eq!(&flat, &fresh);
        let mut back = other;
        prop_assert_eq!(restore(&flat.layout, &flat.numbers, &mut back), Ok(()));
        prop_assert_eq!(back, one);
    }

    #[test]
    fn any_bytes_are_taken_without_harm(
        readings in prop::collection::vec(
            (0..5_u64, 0..200_u32, prop::collection::vec(any_byte(), 0..120), 0..9_u64, 0..3_u64),
            1..40,
        ),
    ) {
        let mut decoder = decoder().1;
        for (shape, count, bytes, sequence, keyframe) in readings {
            let (sequence, keyframe) = (Sequence(sequence), Sequence(keyframe));
            let reading = match forged(shape, count, bytes) {
                Reading::Keyframe(forged) if keyframe.0 == 0 => {
                    Reading::Keyframe(Keyframe { sequence, ..forged })
                }
                Reading::Keyframe(Keyframe { count, numbers, .. }) => {
                    Reading::Delta(Delta { sequence, keyframe, count, numbers })
                }
                Reading::Delta(_) => unreachable!("only keyframes are forged"),
            };
            decoder.take(reading);
        }
        prop_assert!(decoder.newest().is_some());
    }
}

/// Numbers of every length, and those at the ends of the packed classes.
fn any_number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..4_u64,
        (0..64_u32, 0..3_u64).prop_map(|(bits, less)| (1_u64 << bits).wrapping_sub(less)),
        prop::num::u64::ANY,
    ]
}

/// Bytes of which many are part of short numbers.
fn any_byte() -> impl Strategy<Value = u8> {
    prop_oneof![3 => Just(0_u8), 1 => prop::num::u8::ANY]
}
