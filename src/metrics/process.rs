//! What the process itself uses, under the names that Prometheus' client libraries have for it. Floor 0.
//!
//! Source: <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;
use std::time::SystemTime;

use rustix::fs::Dir;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::clock;

/// Where the kernel says it. All of it is opened once: later the process may have given up the right to open a file.
pub(super) struct Process {
    /// Seconds since 1970.
    started_at: f64,
    /// Source: <https://man7.org/linux/man-pages/man5/proc_pid_status.5.html>
    status: Option<File>,
    /// Has an entry for each descriptor that is open.
    descriptors: Option<Mutex<Dir>>,
}

impl Process {
    /// Of this process, which starts now. Where `/proc` is not there, a part is left out.
    pub(super) fn new() -> Self {
        let since_1970 = clock::wall().duration_since(SystemTime::UNIX_EPOCH);
        let descriptors = File::open("/proc/self/fd").ok().and_then(|file| Dir::new(file).ok());
        Self {
            started_at: since_1970.map_or(0.0, |span| span.as_secs_f64()),
            status: File::open("/proc/self/status").ok(),
            descriptors: descriptors.map(Mutex::new),
        }
    }

    /// As text, in Prometheus' format.
    pub(super) fn render(&self) -> String {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        let used = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
        let most = getrlimit(Resource::Nofile).current.map(|limit| limit as f64);
        let samples = [
            (CPU, "counter", Some(used)),
            (RESIDENT, "gauge", self.resident_bytes()),
            (OPEN, "gauge", self.open_descriptors()),
            (MOST, "gauge", most),
            (STARTED, "gauge", Some(self.started_at)),
        ];
        let mut text = String::new();
        for ((name, help), kind, value) in samples {
            if let Some(value) = value {
                // Writing to a String does not fail.
                let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
            }
        }
        text
    }

    fn resident_bytes(&self) -> Option<f64> {
        // It has some 1500 bytes, this line among the first.
        let mut buffer = [0; 4096];
        let length = self.status.as_ref()?.read_at(&mut buffer, 0).ok()?;
        let text = std::str::from_utf8(buffer.get(..length)?).ok()?;
        let kilobytes =
            text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
        Some(kilobytes.parse::<f64>().ok()? * 1024.0)
    }

    fn open_descriptors(&self) -> Option<f64> {
        let mut directory = self.descriptors.as_ref()?.lock().ok()?;
        directory.rewind();
        let names = directory.by_ref().map_while(Result::ok);
        Some(names.filter(|entry| !entry.file_name().to_bytes().starts_with(b".")).count() as f64)
    }
}

const CPU: (&str, &str) = ("process_cpu_seconds_total", "CPU time of all threads, in user and system mode");
const RESIDENT: (&str, &str) = ("process_resident_memory_bytes", "Memory that is in RAM");
const OPEN: (&str, &str) = ("process_open_fds", "File descriptors that are open");
const MOST: (&str, &str) = ("process_max_fds", "The limit of open file descriptors");
const STARTED: (&str, &str) = ("process_start_time_seconds", "When the process started, in Unix time");

#[cfg(test)]
mod tests {
    use super::*;

    fn value(process: &Process, name: &str) -> f64 {
        let text = process.render();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
    }

    #[test]
    fn a_file_that_is_opened_is_counted_and_one_that_is_closed_is_not() {
        let process = Process::new();
        let none = value(&process, "process_open_fds");
        // More than other tests open and close meanwhile.
        let files: Vec<_> = (0..500).map(|_| File::open("/dev/null").unwrap()).collect();
        assert!(value(&process, "process_open_fds") >= none + 250.0);
        drop(files);
        assert!(value(&process, "process_open_fds") < none + 250.0);
        assert!(value(&process, "process_max_fds") >= 500.0);
    }

    #[test]
    fn memory_that_is_touched_is_counted() {
        let process = Process::new();
        let before = value(&process, "process_resident_memory_bytes");
        let memory = vec![1_u8; 64 << 20];
        assert!(value(&process, "process_resident_memory_bytes") >= before + f64::from(32 << 20));
        assert_eq!(memory.iter().map(|byte| usize::from(*byte)).sum::<usize>(), 64 << 20);
    }

    #[test]
    fn cpu_time_grows_and_the_start_stays() {
        let process = Process::new();
        let (used, started) =
            (value(&process, "process_cpu_seconds_total"), value(&process, "process_start_time_seconds"));
        assert!(started > 1e9);
        while value(&process, "process_cpu_seconds_total") <= used {}
        assert_eq!(value(&process, "process_start_time_seconds"), started);
    }
}
