//! A stream of any bytes, in chunks of any size. Floor 1.

use super::{Error, Scanner};

/// The first byte is the size of the chunks. What is seen does not depend on it, nor does the place of an error.
pub(crate) fn chunks(data: &[u8]) {
    let Some((size, stream)) = data.split_first() else { return };
    let whole = follow(stream, stream.len());
    assert_eq!(follow(stream, usize::from(*size)), whole);
    assert_eq!(follow(stream, 1), whole);
}

/// Tag and length of each message, how many bytes come before an error, and whether the end is a boundary.
fn follow(stream: &[u8], size: usize) -> (Vec<(u8, u32)>, Result<(), usize>, bool) {
    let (mut scanner, mut seen, mut before) = (Scanner::default(), Vec::new(), 0);
    // Where the message that is not whole yet begins.
    let mut begins = 0;
    for chunk in stream.chunks(size.max(1)) {
        let to_boundary = scanner.to_boundary(chunk);
        assert!(to_boundary <= chunk.len());
        let is_new = scanner.at_boundary();
        if is_new {
            begins = before;
        }
        let fed = scanner.feed(chunk, |frame| {
            assert!(frame.body.len() <= usize::try_from(frame.length).unwrap_or(usize::MAX));
            seen.push((frame.tag, frame.length));
        });
        if let Err(Error { offset, .. }) = fed {
            let here = if scanner.at_boundary() { before + offset } else { begins };
            return (seen, Err(here), true);
        }
        before += chunk.len();
        begins = begins.max(last_boundary(&scanner, begins, stream.get(..before).unwrap_or_default()));
    }
    (seen, Ok(()), scanner.at_boundary())
}

/// The end of the last whole message, counted anew from the one that begins at `from`.
fn last_boundary(scanner: &Scanner, from: usize, stream: &[u8]) -> usize {
    let mut at = from;
    while let Some([_, length @ ..]) = stream.get(at..).and_then(|rest| rest.first_chunk::<5>()) {
        let end = at + 1 + usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if end > stream.len() {
            break;
        }
        at = end;
    }
    assert_eq!(scanner.at_boundary(), at == stream.len());
    at
}
