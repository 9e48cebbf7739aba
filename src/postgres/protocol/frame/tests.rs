//! Tests frames with examples, and under every split into chunks.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Error, Scanner};

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// The tag, the body length, and the first byte of the body if it was seen.
type Seen = Vec<(u8, u32, Option<u8>)>;

fn feed(scanner: &mut Scanner, chunk: &[u8], seen: &mut Seen) -> Result<(), Error> {
    scanner.feed(chunk, |frame| seen.push((frame.tag, frame.length, frame.body.first().copied())))
}

#[test]
fn scanner_is_small() {
    assert!(size_of::<Scanner>() <= 16);
}

#[test]
fn frames_come_with_what_the_chunk_holds_of_them() {
    let stream = [message(b'C', b"SELECT 1\0"), message(b'Z', b"I"), message(b'D', b"half")].concat();
    let mut scanner = Scanner::default();
    let mut seen = Vec::new();
    scanner
        .feed(&stream[..stream.len() - 2], |frame| seen.push((frame.tag, frame.length, frame.body.to_vec())))
        .unwrap();
    assert_eq!(
        seen,
        [(b'C', 9, b"SELECT 1\0".to_vec()), (b'Z', 1, b"I".to_vec()), (b'D', 4, b"ha".to_vec())]
    );
    assert!(!scanner.at_boundary());
    assert_eq!(scanner.to_boundary(b"lfZ"), 2);
    assert_eq!(scanner.to_boundary(b"l"), 1);
}

#[test]
fn status_byte_is_waited_for() {
    let mut scanner = Scanner::default();
    let mut seen = Vec::new();
    feed(&mut scanner, b"Z\0\0\0\x05", &mut seen).unwrap();
    assert_eq!(seen, []);
    assert!(!scanner.at_boundary());
    assert_eq!(scanner.to_boundary(b"IZ\0"), 1);
    feed(&mut scanner, b"I", &mut seen).unwrap();
    assert_eq!(seen, [(b'Z', 1, Some(b'I'))]);
    assert!(scanner.at_boundary());
}

#[test]
fn a_scanner_that_has_given_up_is_never_at_a_boundary() {
    let mut scanner = Scanner::default();
    let mut seen = Vec::new();
    assert!(feed(&mut scanner, b"D\0\0\0\x01", &mut seen).is_err());
    scanner.give_up();
    for chunk in [&b""[..], b"x", &message(b'Z', b"I")] {
        assert_eq!(feed(&mut scanner, chunk, &mut seen), Ok(()));
        assert!(!scanner.at_boundary());
        assert_eq!(scanner.to_boundary(chunk), chunk.len());
    }
    assert_eq!(seen, []);
}

#[test]
fn length_below_4_or_above_int32_is_an_error() {
    for length in [0_u32, 3, 0x8000_0000, u32::MAX] {
        let bytes = [&message(b'1', b"")[..], b"D", &length.to_be_bytes()].concat();
        let mut seen = Vec::new();
        let mut scanner = Scanner::default();
        assert_eq!(feed(&mut scanner, &bytes, &mut seen), Err(Error { tag: b'D', length, offset: 5 }));
        assert_eq!(seen, [(b'1', 0, None)]);
    }
    assert!(feed(&mut Scanner::default(), b"D\x7f\xff\xff\xff", &mut Vec::new()).is_ok());
}

#[test]
fn broken_half_header_is_completed_and_then_an_error() {
    let mut scanner = Scanner::default();
    feed(&mut scanner, b"D\0\0", &mut Vec::new()).unwrap();
    assert_eq!(scanner.to_boundary(b"\0\x03more"), 2);
    assert!(feed(&mut scanner, b"\0\x03", &mut Vec::new()).is_err());
}

fn messages() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let tag = prop_oneof![Just(b'Z'), Just(b'D'), any::<u8>()];
    vec((tag, prop_oneof![vec(any::<u8>(), 0..3), vec(any::<u8>(), 0..40)]), 0..12)
}

proptest! {
    #[test]
    fn every_split_gives_the_same_frames(messages in messages(), cuts in vec(any::<prop::sample::Index>(), 0..10)) {
        let stream: Vec<u8> = messages.iter().flat_map(|(tag, body)| message(*tag, body)).collect();
        let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        at.extend([0, stream.len()]);
        at.sort_unstable();
        let mut scanner = Scanner::default();
        let mut seen = Vec::new();
        for pair in at.windows(2) {
            feed(&mut scanner, &stream[pair[0]..pair[1]], &mut seen).unwrap();
        }
        prop_assert!(scanner.at_boundary());
        prop_assert_eq!(seen.len(), messages.len());
        for ((tag, length, first), (sent_tag, body)) in seen.iter().zip(&messages) {
            prop_assert_eq!((*tag, *length), (*sent_tag, u32::try_from(body.len()).unwrap()));
            if *tag == b'Z' || first.is_some() {
                prop_assert_eq!(first.as_ref(), body.first());
            }
        }
    }

    #[test]
    fn boundary_ends_the_message_in_progress_and_no_more(
        messages in messages(),
        cut in any::<prop::sample::Index>(),
        window in 1..30_usize,
    ) {
        let stream: Vec<u8> = messages.iter().flat_map(|(tag, body)| message(*tag, body)).collect();
        let cut = cut.index(stream.len() + 1);
        let mut ends = vec![0];
        for (_, body) in &messages {
            ends.push(ends.last().unwrap() + 5 + body.len());
        }
        let end = *ends.iter().find(|end| **end >= cut).unwrap();
        let mut scanner = Scanner::default();
        feed(&mut scanner, &stream[..cut], &mut Vec::new()).unwrap();
        prop_assert_eq!(scanner.at_boundary(), end == cut);
        let mut at = cut;
        while !scanner.at_boundary() {
            let chunk = &stream[at..stream.len().min(at + window)];
            let n = scanner.to_boundary(chunk);
            prop_assert!(n > 0);
            feed(&mut scanner, &chunk[..n], &mut Vec::new()).unwrap();
            at += n;
        }
        prop_assert_eq!(at, end);
        prop_assert_eq!(scanner.to_boundary(&stream[at..]), 0);
    }

    #[test]
    fn no_input_panics(chunks in vec(vec(prop_oneof![Just(0_u8), any::<u8>()], 0..20), 0..10)) {
        let mut scanner = Scanner::default();
        for chunk in &chunks {
            prop_assert!(scanner.to_boundary(chunk) <= chunk.len());
            if feed(&mut scanner, chunk, &mut Vec::new()).is_err() {
                break;
            }
        }
    }
}
