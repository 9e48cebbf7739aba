//! What Vault and the database make of requests, and the faults that befall them.

use super::*;

impl World<'_> {
    pub(super) fn fault(&mut self, index: usize) -> Result<(), String> {
        let (_, fault, length) = self.scenario.faults[index];
        match fault {
            Fault::LeaseRevoked => {
                if let Some(held) = self.watch.published.and_then(|number| self.watch.held.get(&number)) {
                    self.watch.vault.leases[held.lease].dead = true;
                    self.watch.vault.leases[held.lease].killed = true;
                }
            }
            Fault::TokenRevoked => {
                if let Some(token) =
                    self.watch.published.and_then(|number| self.watch.held.get(&number)).map(|h| h.token)
                {
                    self.watch.vault.token(token).dead = true;
                    self.watch.vault.token(token).killed = true;
                }
            }
            Fault::Crash if self.watch.closed => {}
            Fault::Crash => return self.crash(),
            Fault::Rotate => return self.step(Event::Rotate(None), None),
            Fault::RotateWithDrain => {
                self.watch.drain_commanded = !self.watch.closed;
                let drain = if self.dice.chance(0.3) {
                    DrainSpan::Default
                } else {
                    DrainSpan::For(self.dice.span(0.0, length * self.scenario.lease))
                };
                return self.step(Event::Rotate(Some(drain)), None);
            }
            Fault::Denials => {
                if let Some(number) = self.watch.published {
                    for _ in 0..3 {
                        self.step(Event::DenialSeen(number), None)?;
                    }
                }
            }
            // A fault of an hour shows as much as a fault of a week, with fewer attempts.
            fault => {
                let until = self.watch.now + secs((length * self.scenario.lease).min(3600.0));
                self.watch.vault.faults.push((fault, until));
            }
        }
        Ok(())
    }

    /// The process ends with its sessions, and its requests to Vault are carried out or not. The next process continues
    /// from the snapshot.
    fn crash(&mut self) -> Result<(), String> {
        let mut kept = self.watch.role.snapshot();
        kept.generations.sort_by_key(|(_, kept)| kept.serves);
        let ids: Vec<u64> = self.happenings.keys().copied().collect();
        for id in ids {
            match self.happenings.get(&id).copied() {
                Some(Happening::Arrives(Request { action, sent_at, .. })) => {
                    let by_token = matches!(action, Action::Issue(_) | Action::RevokeToken(_));
                    if by_token && self.dice.chance(0.5) {
                        self.watch.vault.perform(self.scenario, self.watch.now, sent_at, action);
                    }
                    self.happenings.remove(&id);
                }
                Some(Happening::Comes(..) | Happening::Settles(..)) => {
                    self.happenings.remove(&id);
                }
                _ => {}
            }
        }
        self.watch.crash(&kept)?;
        self.reason = Reason::First;
        self.bucket = (3.0, self.watch.now);
        self.step(Event::Tick, None)
    }

    pub(super) fn send(&mut self, action: Action) -> Result<(), String> {
        if !matches!(action, Action::Prove(_)) {
            self.requests.push_back(self.watch.now);
            while self.requests.front().is_some_and(|at| self.watch.now.since(*at) > secs(10.0)) {
                self.requests.pop_front();
            }
            self.counts.most_requests = self.counts.most_requests.max(self.requests.len());
            promise!(self.requests.len() <= 50, "P7: {} requests in 10 s", self.requests.len());
        }
        let arrives_at = self.watch.now + self.latency();
        let request = self.watch.pending.iter().rev().find(|request| request.action == action);
        let request = *request.ok_or("sent, and not under way")?;
        self.plan(arrives_at, Happening::Arrives(request));
        Ok(())
    }

    pub(super) fn arrive(&mut self, request: Request) {
        let Request { action, sent_at, give_up_at } = request;
        let now = self.watch.now;
        let back = now + self.latency();
        if let Action::Prove(number) = action {
            let lives = self
                .watch
                .held
                .get(&number)
                .is_some_and(|held| self.watch.vault.lease_lives(held.lease, now));
            let event = if self.watch.vault.has(Fault::DatabaseDown, now) {
                Event::Unprovable(number)
            } else if lives && !self.watch.vault.has(Fault::DatabaseRefuses, now) {
                Event::Proved(number)
            } else {
                Event::ProofRefused(number)
            };
            return self.plan(back, Happening::Comes(event, None));
        }
        if self.watch.vault.has(Fault::Refuses, now) {
            return self.plan(back, Happening::Comes(request.failed(Failure::Transient), None));
        }
        let late = Happening::Comes(request.failed(Failure::TimedOut), None);
        if self.watch.vault.has(Fault::Swallows, now) {
            self.plan(give_up_at, late);
            return self.settle(action, give_up_at + secs(CLIENT_TIMEOUT), None);
        }
        let leases = self.watch.vault.leases.len();
        let event = match action {
            Action::RenewLease(number, ..) => match self.watch.held.get(&number) {
                Some(held) => self.watch.vault.renew(self.scenario, now, sent_at, number, held.lease),
                None => Event::LeaseRenewFailed(number, Failure::Gone),
            },
            Action::RevokeLease(number, _) => match self.watch.held.get(&number) {
                Some(held) => self.watch.vault.revoke(self.scenario, now, number, held.lease),
                None => Event::LeaseRevoked(number),
            },
            // A lease whose user the database does not drop stays.
            Action::LookUpLease(number, _) if self.watch.vault.has(Fault::DatabaseDown, now) => {
                Event::LeaseLookedUp(number, LeaseLookup::Present)
            }
            Action::LookUpLease(number, _) => Event::LeaseLookedUp(number, LeaseLookup::Missing),
            action => self.watch.vault.perform(self.scenario, now, sent_at, action),
        };
        let lease = Some(leases).filter(|_| self.watch.vault.leases.len() > leases);
        if self.watch.vault.has(Fault::LosesReplies, now) {
            self.plan(give_up_at, late);
            return self.settle(action, give_up_at + secs(CLIENT_TIMEOUT), None);
        }
        let back =
            if self.watch.vault.has(Fault::Slow, now) { now + self.dice.span(0.5, 15.0) } else { back };
        if back > give_up_at {
            self.plan(give_up_at, late);
            return self.settle(action, back.max(give_up_at), lease);
        }
        self.plan(back, Happening::Comes(event, lease));
    }

    /// A creds request that was given up is settled.
    fn settle(&mut self, action: Action, at: Time, lease: Option<usize>) {
        if let Action::Issue(token) = action {
            self.watch.unsettled.push(token);
            self.plan(at, Happening::Settles(token, lease));
        }
    }
}
