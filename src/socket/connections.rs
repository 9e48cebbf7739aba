//! A bounded set of connections that closes an old connection to admit a new one. Floor 2.
//!
//! ```text
//!   admitted ──▶ Asking ──the request is whole──▶ Answering ──▶ Answered ──▶ closed
//! ```
//!
//! If the set is full, a connection that waits for its client is closed (Asking, Answered): of the peer that has most of
//! these, the oldest. So a crowd from one address closes its own connections, and a client that has just come is
//! closed only after as many others as fit have come, unless its own address has most. If none waits for its client, an Answering
//! connection is closed, in the same order.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::{AbortHandle, JoinSet};

/// The peer of a connection, for the share of each peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A TCP peer. An IPv6 address is reduced to its network, since a host has many addresses in it.
    Address(IpAddr),
    /// The user of a Unix socket's peer; `None` if the system did not report it.
    User(Option<u32>),
}

impl Peer {
    /// The peer with this IP address.
    #[must_use]
    pub(crate) fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// The progress of a connection: whether it is Answering. The task that serves the connection advances it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<AtomicBool>);

impl Progress {
    /// The request is complete.
    pub(crate) fn answering(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The answer is complete and is being written.
    pub(crate) fn answered(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn is_answering(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The connections of a listener, in the order of their arrival. Dropping the set closes them all.
#[derive(Debug)]
pub(crate) struct Connections {
    tasks: JoinSet<()>,
    open: Vec<Connection>,
    most: usize,
}

#[derive(Debug)]
struct Connection {
    peer: Peer,
    progress: Progress,
    task: AbortHandle,
}

impl Connections {
    /// Creates a set with a limit.
    #[must_use]
    pub(crate) fn new(most: usize) -> Self {
        Self { tasks: JoinSet::new(), open: Vec::new(), most }
    }

    /// Serves a connection in its own task. If another connection is closed for it, this waits until the task of that
    /// connection has dropped its socket, within the next turn of the runtime. Otherwise both would hold a descriptor.
    pub(crate) async fn admit<F>(&mut self, peer: Peer, serve: impl FnOnce(Progress) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.forget_ended();
        if self.open.len() >= self.most {
            // Of connections that came together the first would be closed before its task has run once: what has arrived
            // on them is read first.
            tokio::task::yield_now().await;
            self.forget_ended();
        }
        if self.open.len() >= self.most {
            self.close(self.first_to_go(|_| true));
        }
        while self.tasks.len() >= self.most && self.tasks.join_next().await.is_some() {}
        let progress = Progress::default();
        let task = self.tasks.spawn(serve(progress.clone()));
        self.open.push(Connection { peer, progress, task });
    }

    /// Closes a connection that waits for its client, if there is any, to free its descriptor.
    pub(crate) fn give_up_one(&mut self) {
        self.forget_ended();
        self.close(self.first_to_go(|connection| !connection.progress.is_answering()));
    }

    fn forget_ended(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|connection| !connection.task.is_finished());
    }

    fn first_to_go(&self, may_go: impl Fn(&Connection) -> bool) -> Option<usize> {
        let rank = |connection: &Connection| {
            let answering = connection.progress.is_answering();
            let alike = |other: &&Connection| {
                other.peer == connection.peer && other.progress.is_answering() == answering
            };
            (answering, Reverse(self.open.iter().filter(alike).count()))
        };
        let may_go = self.open.iter().enumerate().filter(|(_, connection)| may_go(connection));
        // Among connections of equal rank this takes the oldest.
        may_go.min_by_key(|(_, connection)| rank(connection)).map(|(at, _)| at)
    }

    fn close(&mut self, at: Option<usize>) {
        if let Some(at) = at {
            self.open.remove(at).task.abort();
        }
    }
}

/// A peer with one IPv6 address usually controls its /64.
const NETWORK: u128 = !0 << 64;

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn peer(number: u8) -> Peer {
        Peer::at([127, 0, 0, number].into())
    }

    /// Admits a connection that stays open, and returns its progress.
    async fn admit(connections: &mut Connections, from: u8) -> Progress {
        let mut seen = Progress::default();
        let admitting = connections.admit(peer(from), |progress| {
            seen = progress;
            pending()
        });
        admitting.await;
        seen
    }

    async fn admit_three(connections: &mut Connections, from: [u8; 3]) -> [Progress; 3] {
        let [first, second, third] = from;
        [admit(connections, first).await, admit(connections, second).await, admit(connections, third).await]
    }

    fn has(connections: &Connections, progress: &Progress) -> bool {
        connections.open.iter().any(|open| Arc::ptr_eq(&open.progress.0, &progress.0))
    }

    #[tokio::test]
    async fn when_full_the_one_that_has_asked_longest_goes() {
        let mut all = Connections::new(3);
        let [first, second, third] = admit_three(&mut all, [1, 2, 3]).await;
        first.answering();
        admit(&mut all, 4).await;
        assert!(has(&all, &first) && !has(&all, &second) && has(&all, &third));
    }

    #[tokio::test]
    async fn a_reply_that_is_not_read_goes_before_a_command_under_way() {
        let mut all = Connections::new(3);
        let [first, second, third] = admit_three(&mut all, [1, 2, 3]).await;
        for progress in [&first, &second, &third] {
            progress.answering();
        }
        third.answered();
        let fourth = admit(&mut all, 4).await;
        assert!(has(&all, &first) && has(&all, &second) && !has(&all, &third));
        fourth.answering();
        admit(&mut all, 5).await;
        assert!(!has(&all, &first), "there is always room for one more");
        assert_eq!(all.open.len(), 3);
    }

    #[tokio::test]
    async fn a_crowd_gives_up_its_own_whatever_it_waits_for() {
        let mut all = Connections::new(4);
        let patient = admit(&mut all, 1).await;
        let unread = admit(&mut all, 2).await;
        unread.answering();
        unread.answered();
        let [second, third, fourth] = admit_three(&mut all, [2, 2, 2]).await;
        assert!(!has(&all, &unread), "its reply is not read");
        assert!([&patient, &second, &third, &fourth].iter().all(|progress| has(&all, progress)));
        admit(&mut all, 3).await;
        assert!(has(&all, &patient) && !has(&all, &second));
    }

    #[tokio::test]
    async fn requests_under_way_of_one_peer_make_room_among_themselves() {
        let mut all = Connections::new(3);
        let [other, first, second] = admit_three(&mut all, [1, 2, 2]).await;
        for progress in [&other, &first, &second] {
            progress.answering();
        }
        admit(&mut all, 2).await.answering();
        assert!(has(&all, &other) && !has(&all, &first) && has(&all, &second));
    }

    #[tokio::test]
    async fn what_has_arrived_is_read_before_room_is_made() {
        let mut all = Connections::new(2);
        let answer = Arc::new(tokio::sync::Semaphore::new(0));
        for _ in 0..3 {
            let answer = Arc::clone(&answer);
            // Its request is there when it is admitted.
            let serve = |progress: Progress| async move {
                progress.answering();
                answer.add_permits(1);
            };
            all.admit(peer(1), serve).await;
        }
        tokio::task::yield_now().await;
        assert_eq!(answer.available_permits(), 3, "each of them was answered");
    }

    #[tokio::test]
    async fn one_that_has_ended_takes_no_room() {
        let mut all = Connections::new(2);
        let stays = admit(&mut all, 1).await;
        for _ in 0..5 {
            all.admit(peer(2), |_| std::future::ready(())).await;
        }
        assert!(has(&all, &stays));
    }

    #[tokio::test]
    async fn never_more_sockets_are_open_than_there_may_be() {
        let mut all = Connections::new(2);
        let socket = Arc::new(());
        for from in 0..50 {
            let held = Arc::clone(&socket);
            let serve = |_| async move {
                pending::<()>().await;
                drop(held);
            };
            all.admit(peer(from), serve).await;
            assert!(Arc::strong_count(&socket) <= 3, "{}", Arc::strong_count(&socket));
        }
    }

    #[test]
    fn a_host_with_many_addresses_is_one_peer() {
        let at = |text: &str| Peer::at(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
        assert_ne!(at("10.0.0.2"), at("10.0.0.1"));
    }
}
