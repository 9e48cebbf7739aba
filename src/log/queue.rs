//! Lines on their way to stderr: a queue of bounded size, and the thread that writes it. Floor 5.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines on their way to the thread that writes them.
#[derive(Clone)]
pub(super) struct Queue(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Woken for each line, and at the end.
    arrived: Condvar,
    /// Woken when the last line has been written.
    written: Condvar,
    capacity: usize,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// Bytes of `lines`.
    bytes: usize,
    writing: bool,
    ended: bool,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            arrived: Condvar::new(),
            written: Condvar::new(),
            capacity,
        }))
    }

    pub(super) fn start(&self, sink: impl Write + Send + 'static) -> io::Result<Guard> {
        let queue = self.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || queue.write_lines(sink))?;
        Ok(Guard(self.clone()))
    }

    /// Writes what is in it, and ends it. Blocks, as no other thread does it.
    pub(super) fn write_rest(&self, sink: impl Write) {
        self.lock().ended = true;
        self.write_lines(sink);
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.ended || state.bytes.saturating_add(line.len()) > self.0.capacity {
            drop(state);
            crate::metrics::log_lines_dropped(1);
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line.to_vec());
        drop(state);
        self.0.arrived.notify_one();
    }

    fn write_lines(&self, mut sink: impl Write) {
        // A disk that is full may take the half of a line.
        let mut torn = false;
        while let Some(mut line) = self.next() {
            if torn {
                line.insert(0, b'\n');
            }
            let mut rest = line.as_slice();
            if write_all(&mut sink, &mut rest).and_then(|()| sink.flush()).is_err() {
                crate::metrics::log_lines_dropped(1);
            }
            if rest.len() < line.len() {
                torn = !rest.is_empty();
            }
        }
    }

    /// The next line to write. `None` when the log has ended.
    fn next(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        state.writing = false;
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.bytes -= line.len();
                state.writing = true;
                return Some(line);
            }
            self.0.written.notify_all();
            if state.ended {
                return None;
            }
            state = self.0.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes all of `rest`, and leaves in it what could not be written.
fn write_all(sink: &mut impl Write, rest: &mut &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match sink.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => *rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// The writer of one event. The subscriber writes each event in one piece.
pub(super) struct Line<'a>(&'a Queue);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Ends the log when it is dropped, and waits up to [`LAST_WORDS`] until the queue is written.
pub(crate) struct Guard(Queue);

impl Drop for Guard {
    fn drop(&mut self) {
        let shared = &self.0.0;
        let mut state = self.0.lock();
        state.ended = true;
        shared.arrived.notify_all();
        let unwritten = |state: &mut State| state.writing || !state.lines.is_empty();
        drop(shared.written.wait_timeout_while(state, LAST_WORDS, unwritten));
    }
}

/// How long the end of the process waits for the reader of stderr.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A stderr that hands out each write, and blocks until it is taken.
    pub(in super::super) struct Sink(pub(in super::super) mpsc::SyncSender<Vec<u8>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_does_not_read_blocks_nobody() {
        let (sender, reader) = mpsc::sync_channel(0);
        let queue = Queue::new(100);
        let guard = queue.start(Sink(sender)).unwrap();
        for _ in 0..1_000 {
            queue.push(b"0123456789");
        }
        assert!(queue.lock().bytes <= 100);
        drop(guard);
        drop(reader);
    }

    /// A disk with room for so many bytes.
    struct Disk(mpsc::Sender<u8>, usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.1);
            if taken == 0 {
                // Somebody makes room.
                self.1 = 100;
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.1 -= taken;
            bytes.iter().take(taken).for_each(|byte| self.0.send(*byte).unwrap());
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_behind_one_that_was_torn_stands_by_itself() {
        let (sender, disk) = mpsc::channel();
        let queue = Queue::new(1 << 20);
        let guard = queue.start(Disk(sender, 14)).unwrap();
        for line in ["first\n", "second and long\n", "third\n", "fourth\n"] {
            queue.push(line.as_bytes());
        }
        drop(guard);
        let written = String::from_utf8(disk.try_iter().collect()).unwrap();
        assert_eq!(written, "first\nsecond a\nthird\nfourth\n");
    }

    #[test]
    fn what_is_queued_is_written_before_the_end() {
        let (sender, reader) = mpsc::sync_channel(1_000);
        let queue = Queue::new(1 << 20);
        let guard = queue.start(Sink(sender)).unwrap();
        for line in 0..500 {
            queue.push(format!("{line}\n").as_bytes());
        }
        drop(guard);
        assert_eq!(reader.try_iter().count(), 500);
    }

    #[test]
    fn a_log_that_has_ended_takes_no_more() {
        let (sender, reader) = mpsc::sync_channel(10);
        let queue = Queue::new(1 << 20);
        drop(queue.start(Sink(sender)).unwrap());
        queue.push(b"late");
        assert!(queue.lock().lines.is_empty());
        assert_eq!(reader.try_iter().count(), 0);
    }
}
