//! A state file with any bytes in it. Floor 3.

use super::document::Document;
use crate::time::Time;

/// What is read of it is written again as it was read.
pub(crate) fn document(data: &[u8]) {
    let now = Time::from_nanos(1_000_000_000_000);
    let read = |text: &[u8]| Document::read(text, "boot", "http://vault", now);
    let Ok(routes) = read(data) else { return };
    let Ok(text) = Document::write("boot", "http://vault", routes.iter()) else {
        unreachable!("a document can be written");
    };
    let Ok(again) = read(&text) else { unreachable!("what is written can be read") };
    assert_eq!(again.len(), routes.len());
}
