//! Who listens on an address that cannot be bound, as far as this process may see it in `/proc`. Floor 2.
//!
//! Source: <https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html>

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Who listens on an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A process that this one may look at.
    Process {
        pid: u32,
        /// The first 15 bytes of the program's name.
        name: String,
    },
    /// A process of this user, which cannot be looked at.
    User(u32),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, name } => write!(f, "{name} (pid {pid})"),
            Self::User(uid) => write!(f, "a process of the user with uid {uid}"),
        }
    }
}

impl Holder {
    /// The holder of an address. Reads `/proc`, and so blocks for a moment.
    #[must_use]
    pub(crate) fn of(address: SocketAddr) -> Option<Self> {
        let tables =
            ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
        let mut entries = tables.iter().flat_map(|table| table.lines()).filter_map(Entry::parse);
        let entry = entries.find(|entry| entry.holds(address))?;
        Some(process_with(entry.inode).unwrap_or(Self::User(entry.uid)))
    }
}

/// A socket that listens.
struct Entry {
    address: SocketAddr,
    uid: u32,
    inode: u64,
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace().skip(1);
        let (ip, port) = words.next()?.split_once(':')?;
        let address = SocketAddr::new(parse_ip(ip)?, u16::from_str_radix(port, 16).ok()?);
        // The remote address stands before the state.
        words.nth(1).filter(|state| *state == LISTEN)?;
        let mut words = words.skip(3);
        let uid = words.next()?.parse().ok()?;
        let inode = words.nth(1)?.parse().ok()?;
        Some(Self { address, uid, inode })
    }

    /// Whether nobody else can bind this address.
    fn holds(&self, address: SocketAddr) -> bool {
        let (ours, wanted) = (self.address.ip().to_canonical(), address.ip().to_canonical());
        self.address.port() == address.port()
            && (ours == wanted || ours.is_unspecified() || wanted.is_unspecified())
    }
}

/// An address as the table has it: words of 32 bits, each in the byte order of the machine.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// The process that has this socket open.
fn process_with(inode: u64) -> Option<Holder> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.find(|pid| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut links = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        links.any(|link| link.as_os_str() == wanted.as_str())
    })?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let name = name.trim().replace(char::is_control, "?");
    Some(Holder::Process { pid, name })
}

/// `TCP_LISTEN`.
const LISTEN: &str = "0A";

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_process_that_listens_is_named() {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let wanted = SocketAddr::new([127, 0, 0, 1].into(), listener.local_addr().unwrap().port());
            let Some(Holder::Process { pid, name }) = Holder::of(wanted) else { panic!("{address}") };
            assert_eq!(pid, std::process::id());
            assert!(!name.is_empty());
            drop(listener);
            assert_eq!(Holder::of(wanted), None);
        }
    }

    #[test]
    fn lines_of_the_table_are_read() {
        let line = "   0: 0100007F:1920 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1";
        let entry = Entry::parse(line).unwrap();
        assert_eq!((entry.address.port(), entry.uid, entry.inode), (6432, 1000, 4242));
        assert!(
            entry.holds("127.0.0.1:6432".parse().unwrap()) && entry.holds("0.0.0.0:6432".parse().unwrap())
        );
        assert!(
            !entry.holds("127.0.0.1:6433".parse().unwrap())
                && !entry.holds("127.0.0.2:6432".parse().unwrap())
        );
        let established = line.replace(" 0A ", " 01 ");
        assert!(Entry::parse(&established).is_none());
        let six = line.replace("0100007F", "00000000000000000000000001000000");
        assert!(Entry::parse(&six).unwrap().holds("[::1]:6432".parse().unwrap()));
        assert!(Entry::parse("  sl  local_address rem_address   st").is_none());
    }
}
