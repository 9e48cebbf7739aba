//! The promises P2 to P7, checked for each action and after each step.

use super::*;

impl Watch {
    pub(super) fn tell(&mut self, number: GenerationId, ending: Ending) -> Result<(), String> {
        let now = self.now;
        let successor = self.newest.max(self.role.current()) > Some(number);
        let commanded = self.drain_commanded || self.held.get(&number).is_some_and(|held| held.cut);
        let is_current = self.role.current() == Some(number);
        let held = self.held.get(&number).ok_or("told to no session")?;
        if let Some(from) = ending.drain_from {
            promise!(!is_current, "P3: the current generation {number} is drained");
            promise!(successor && from <= now, "P3: generation {number} is drained without a successor");
        }
        if let Some(closing) = ending.closing.filter(|_| !held.is_closing()) {
            let token_end =
                self.tokens.get(&held.token).and_then(|known| known.ends_at).unwrap_or(Time::NEVER);
            let known_end = held.known.ends_at.unwrap_or(Time::NEVER).min(token_end);
            match closing.cause {
                Cause::LeaseEnd => promise!(
                    now + secs(6.0 + LATE) >= known_end,
                    "P3: generation {number} is closed, but its end is {known_end:?}"
                ),
                Cause::Lost => promise!(
                    !self.vault.lease_lives(held.lease, now),
                    "P3: generation {number} is closed as lost, but lives"
                ),
                Cause::CutShort => promise!(commanded, "P3: nobody cut generation {number} short"),
            }
            let true_end = self.vault.true_end(held.lease);
            promise!(
                closing.cause == Cause::Lost
                    || self.vault.was_killed(held.lease)
                    || now + secs(1.9) <= true_end && closing.gone_by <= true_end + secs(ROUNDING),
                "P4: generation {number} is closed too late: it ends at {true_end:?}"
            );
        }
        if let Some(held) = self.held.get_mut(&number) {
            held.told = Some(ending);
        }
        Ok(())
    }

    pub(super) fn act(&mut self, action: Action, is_check: bool) -> Result<(), String> {
        let now = self.now;
        let is_open = |number: GenerationId| self.sessions.values().any(|open| *open == number);
        let is_in_use = |id: TokenId| self.held.values().any(|held| held.token == id);
        match action {
            Action::LogIn { within } => {
                promise!(!self.closed, "something is issued after the close");
                self.send(action, within.unwrap_or(CLIENT_TIMEOUT))
            }
            Action::Issue(id) => {
                promise!(self.tokens.contains_key(&id) && !self.closed, "issued under {id:?}");
                self.send(action, CLIENT_TIMEOUT)
            }
            Action::Prove(_) => self.send(action, CLIENT_TIMEOUT),
            Action::RenewLease(number, _, within) => {
                let held = self.held.get(&number).ok_or("renewed, and unknown")?;
                promise!(is_check || !held.known.capped, "capped generation {number} is renewed again");
                let max_age = self.role.settings().max_age;
                let passes = max_age.is_some_and(|age| now + held.known.longest > held.issued_at + age);
                promise!(!passes, "generation {number} is renewed past max_age");
                self.send(action, within)
            }
            Action::RenewToken(id, within) => {
                let capped = self.tokens.get(&id).is_none_or(|known| known.capped);
                promise!(!capped, "capped token {id:?} is renewed again");
                self.send(action, within)
            }
            Action::RevokeLease(number, _) => {
                let held = self.held.get(&number).ok_or("revoked, and unknown")?;
                let free = !is_open(number) && !held.open_upstream;
                promise!(free, "P4: generation {number} is revoked under its sessions");
                promise!(self.published != Some(number), "P2: generation {number} is revoked and published");
                if let (None, Some(count)) = (held.published_at, &mut self.lost_and_granted) {
                    *count = (*count - 1).max(0);
                }
                self.send(action, CLIENT_TIMEOUT)
            }
            Action::RevokeToken(id) => {
                promise!(self.owned, "P6: token {id:?} is not ours to revoke");
                promise!(!self.unsettled.contains(&id), "P6: token {id:?} is revoked before its late grant");
                promise!(!is_in_use(id), "P4: token {id:?} is in use");
                self.send(action, CLIENT_TIMEOUT)
            }
            Action::LookUpLease(number, id) => {
                promise!(self.tokens.contains_key(&id), "P6: {id:?} looks, and is forgotten");
                promise!(
                    !self.held.contains_key(&number),
                    "P6: generation {number} is looked for while held"
                );
                self.send(action, CLIENT_TIMEOUT)
            }
            Action::ProvePublished(number) => {
                promise!(self.published == Some(number), "generation {number} is proved as published");
                let held = self.held.get(&number).ok_or("proved, and unknown")?;
                let is_there = |fault| self.vault.has(fault, now);
                let has_let_in = self.vault.lease_lives(held.lease, now)
                    && !is_there(Fault::DatabaseDown)
                    && !is_there(Fault::DatabaseRefuses);
                if self.proves_published {
                    self.found.extend(has_let_in.then_some(Event::Accepted(number)));
                    self.found.push(Event::PublishedProofEnded(number));
                }
                Ok(())
            }
            Action::EndWhenEmpty(number) | Action::KeepWhenEmpty(number) => {
                let may_end = matches!(action, Action::EndWhenEmpty(_));
                promise!(
                    !may_end || self.published != Some(number),
                    "P2: generation {number} is published, and ends when it is empty"
                );
                let held = self.held.get_mut(&number).ok_or("ends when empty, and unknown")?;
                promise!(held.ends_when_empty != may_end, "what generation {number} may do is said twice");
                held.ends_when_empty = may_end;
                Ok(())
            }
            Action::Publish(number) => self.publish(number),
            Action::Unpublish => {
                self.published = None;
                Ok(())
            }
            Action::DropCredential(number) | Action::Forget(number) => {
                promise!(!is_open(number), "generation {number} is forgotten with sessions");
                promise!(self.published != Some(number), "generation {number} is forgotten and published");
                self.held.remove(&number);
                Ok(())
            }
            Action::ForgetToken(id) => {
                promise!(!is_in_use(id), "token {id:?} is forgotten in use");
                self.tokens.remove(&id);
                Ok(())
            }
            Action::Answer(number, verdict) => {
                if let Some(held) = self.held.get_mut(&number) {
                    promise!(held.asked > 0, "nobody asked about generation {number}");
                    held.asked = 0;
                    // A generation whose sessions are being closed accepts no login, however long its lease lives on.
                    let lives = self.vault.lease_lives(held.lease, now) && !held.is_closing();
                    promise!(!(verdict == Verdict::Lost && lives), "P3: {number} is called lost, but lives");
                }
                Ok(())
            }
            Action::Note(Note::Lost(number)) if self.published == Some(number) => {
                self.lost_and_granted = Some(0);
                Ok(())
            }
            Action::Note(_)
            | Action::Store(_)
            | Action::Barred
            | Action::Unbarred
            | Action::NotifySessions(..)
            | Action::TooEarly(_)
            | Action::LetsIn(_)
            | Action::RotateFailed(_)
            | Action::RotateDone(_) => Ok(()),
        }
    }

    fn send(&mut self, action: Action, within: Duration) -> Result<(), String> {
        let give_up_at = self.now + within.min(CLIENT_TIMEOUT);
        let request = Request { action, sent_at: self.now, give_up_at };
        let subject = request.subject();
        let is_only = !self.pending.iter().any(|earlier| earlier.subject() == subject);
        promise!(is_only, "two of {subject:?} in flight");
        self.pending.push(request);
        Ok(())
    }

    fn publish(&mut self, number: GenerationId) -> Result<(), String> {
        let now = self.now;
        let cut = std::mem::take(&mut self.drain_commanded);
        let previous =
            self.held.range(..number).rev().find(|(_, held)| held.told.is_some() && !held.is_closing());
        let presses = previous.is_none_or(|(_, held)| {
            held.cut || held.told.is_some_and(|told| told.hard_close_at.since(now) <= self.drain + secs(0.1))
        });
        let held = self.held.get(&number).ok_or("published, and unknown")?;
        let is_new = held.published_at.is_none();
        promise!(
            held.proved || !is_new || (held.unprovable && presses),
            "P2: generation {number} is published without a proof"
        );
        promise!(!held.shut, "P2: generation {number} is published, and closed to newcomers");
        for (n, held) in &mut self.held {
            held.cut |= cut && *n < number && held.published_at.is_some();
        }
        if let Some(held) = self.held.get_mut(&number) {
            held.published_at.get_or_insert(now);
        }
        self.published = Some(number);
        self.newest = self.newest.max(Some(number));
        if is_new {
            self.lost_and_granted = None;
        }
        Ok(())
    }

    /// Checks what must hold after each step.
    pub(in crate::lease::tests) fn look(&mut self) -> Result<(), String> {
        let now = self.now;
        let again = self.role.handle(now, Event::Tick);
        promise!(again.is_empty(), "a second look does more: {again:?}");
        let deadline = self.role.next_deadline();
        promise!(deadline > now, "the deadline {deadline:?} has passed");
        for number in self.sessions.values() {
            let held = self.held.get(number).ok_or("a session without a generation")?;
            promise!(
                self.vault.lease_lives(held.lease, now) || self.vault.was_killed(held.lease),
                "P4: a session outlives the lease of generation {number}"
            );
        }
        let usable = |held: &Held| {
            held.published_at.is_some()
                && !held.cut
                && !held.shut
                && held.told.is_some_and(|told| told.closing.is_none() && now < told.hard_close_at)
        };
        let newest = self.held.iter().rev().find(|(_, held)| usable(held)).map(|(number, _)| *number);
        promise!(
            self.published == newest.filter(|_| !self.closed),
            "P2: {:?} is published, the newest usable is {newest:?}",
            self.published
        );
        promise!(self.role.current() == self.published, "the role and the driver disagree");
        for (number, held) in self.held.iter().filter(|(_, held)| !held.shut) {
            let may_end = self.role.may_empty(now, *number);
            promise!(held.ends_when_empty == may_end, "generation {number}: when it may end was not said");
        }
        Ok(())
    }
}
