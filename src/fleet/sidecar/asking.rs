//! The requests of a sidecar. As in the driver, each waits for its turn, is sent, and leads to one event. Floor 6.

use std::time::Duration;

use super::{Context, Sidecar, Timer};
use crate::fleet::servers::{Answer, Call, Kind, ROUND_TRIP};
use crate::fleet::verdicts::Trouble;
use crate::lease::{Event, Failure, GenerationId, LeaseLookup, TokenId};
use crate::time::Time;
use crate::vault::{Place, Priority, Sent, WAIT_MOST, Went};

/// A request of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    LogIn,
    Issue(TokenId),
    RenewLease(GenerationId, TokenId),
    RenewToken(TokenId),
    RevokeLease(GenerationId, TokenId),
    RevokeToken(TokenId),
    LookUpLease(GenerationId, TokenId),
}

impl Ask {
    fn kind(self) -> Kind {
        match self {
            Self::LogIn => Kind::LogIn,
            Self::Issue(_) => Kind::Issue,
            Self::RenewLease(..) => Kind::Renew,
            Self::RenewToken(_) => Kind::RenewToken,
            Self::RevokeLease(..) => Kind::Revoke,
            Self::RevokeToken(_) => Kind::RevokeToken,
            Self::LookUpLease(..) => Kind::LookUpLease,
        }
    }
}

/// A path, as the rate limiter knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RatedPath {
    /// What one login at a time holds.
    Login,
    Of(Kind),
}

/// A request of the driver, which may need several requests to Vault.
pub(super) struct Task {
    pub(super) id: u32,
    pub(super) ask: Ask,
    priority: Priority<Time>,
    /// How long the task may take, without waits for turns.
    within: Duration,
    began_at: Time,
    waited: Duration,
    /// When its first request was sent.
    sent_at: Option<Time>,
    /// The turn of the login that runs.
    login: Option<Sent<RatedPath>>,
    /// The token of a login, while it is looked up.
    token: Option<TokenId>,
    /// Whether the machine already got the event that no answer came in time.
    is_given_up: bool,
    stage: Stage,
}

enum Stage {
    /// The task is in the queue for a turn since `since`, and gives up at `until`. Without a kind it is the turn of a
    /// login.
    Waits { place: Place<Time>, kind: Option<Kind>, since: Time, until: Time },
    /// The request was sent.
    Sent(Sent<RatedPath>, Kind),
}

impl Task {
    fn ends_at(&self) -> Time {
        self.began_at + self.within + self.waited
    }
}

impl Sidecar {
    /// Starts a task for a request of the machine.
    pub(super) fn ask(&mut self, now: Time, ask: Ask, priority: Priority<Time>, within: Duration) {
        self.next_task += 1;
        let is_login = ask == Ask::LogIn;
        let place = self.turns.queue(
            priority,
            Some(if is_login { RatedPath::Login } else { RatedPath::Of(ask.kind()) }),
            is_login,
        );
        let until = (now + WAIT_MOST).min(priority.moot_at().unwrap_or(Time::NEVER));
        let kind = (!is_login).then(|| ask.kind());
        self.tasks.push(Task {
            id: self.next_task,
            ask,
            priority,
            within,
            began_at: now,
            waited: Duration::ZERO,
            sent_at: None,
            login: None,
            token: None,
            is_given_up: false,
            stage: Stage::Waits { place, kind, since: now, until },
        });
    }

    /// Sends the requests whose turn has come, and gives up those that have waited too long.
    pub(super) fn take_turns(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        let mut index = 0;
        self.wake_at = Time::NEVER;
        while let Some(task) = self.tasks.get_mut(index) {
            let Stage::Waits { place, kind, since, until } = task.stage else {
                index += 1;
                continue;
            };
            match self.turns.take(place, now) {
                Ok(sent) => {
                    task.waited += now.since(since);
                    match kind {
                        None => {
                            task.login = Some(sent);
                            task.priority = task.priority.min(Priority::Logins(task.began_at));
                            self.queue(index, now, Kind::LogIn);
                        }
                        Some(kind) if now < task.ends_at() => {
                            task.sent_at.get_or_insert(now);
                            task.stage = Stage::Sent(sent, kind);
                            let call = Call {
                                at: now,
                                sidecar: self.number,
                                task: task.id,
                                kind,
                                until: task.ends_at(),
                            };
                            if matches!(task.ask, Ask::Issue(_)) {
                                self.timers.push((now + task.within / 2, Timer::GiveUp(task.id)));
                            }
                            self.unanswered += 1;
                            context.send(call);
                        }
                        Some(_) => {
                            self.turns.done(&sent);
                            self.fail(index, context, Failure::Transient);
                            continue;
                        }
                    }
                    // This turn may let other requests go, so all are checked again.
                    index = 0;
                    self.wake_at = Time::NEVER;
                }
                Err(_) if now >= until => {
                    self.turns.leave(place);
                    self.fail(index, context, Failure::Transient);
                }
                Err(again_at) => {
                    self.wake_at = self.wake_at.min(again_at.unwrap_or(until)).min(until);
                    index += 1;
                }
            }
        }
    }

    /// Queues a further request of a task.
    fn queue(&mut self, index: usize, now: Time, kind: Kind) {
        let Some(task) = self.tasks.get_mut(index) else { return };
        let place = self.turns.queue(task.priority, Some(RatedPath::Of(kind)), false);
        let until = (now + WAIT_MOST).min(task.priority.moot_at().unwrap_or(Time::NEVER));
        task.stage = Stage::Waits { place, kind: Some(kind), since: now, until };
    }

    /// Handles Vault's answer, or the end of the wait for it.
    pub(super) fn answered(&mut self, context: &mut Context<'_>, id: u32, answer: Answer) {
        let now = context.now;
        let Some(index) = self.tasks.iter().position(|task| task.id == id) else { return };
        let Some(task) = self.tasks.get_mut(index) else { return };
        let ask = task.ask;
        let (began_at, sent_at, login_token) = (task.began_at, task.sent_at.unwrap_or(now), task.token);
        let Stage::Sent(sent, kind) = std::mem::replace(
            &mut task.stage,
            Stage::Waits { place: NOWHERE, kind: None, since: now, until: now },
        ) else {
            return;
        };
        let trouble = Trouble::of(answer);
        let verdict = trouble.map(|trouble| context.verdicts.of(kind, trouble));
        let (went, slows) = verdict.map_or((Went::Well, false), |verdict| (verdict.went, verdict.slows));
        self.turns.went(&sent, went, slows, now);
        if trouble == Some(Trouble::Quota)
            && let Some(span) = context.scenario.vault.retry_after
        {
            self.turns.rest(&RatedPath::Of(kind), now + span, now);
        }
        self.turns.done(&sent);
        if trouble.is_some() {
            context.tally.at(now).failed += 1;
            context.tally.at(now).too_many += u32::from(trouble == Some(Trouble::Quota));
            self.watch_failures(context, sent_at.max(began_at));
        }
        let Some(verdict) = verdict else {
            return self.succeeded(index, context, kind, answer);
        };
        match (kind, verdict.failure()) {
            // The properties of the login's reply are used.
            (Kind::LookUp, _) if ask == Ask::LogIn => self.logged_in(index, context, login_token),
            (Kind::LookUp, _) => self.fail(index, context, Failure::Transient),
            // A look-up decides between a dead token and a policy.
            (_, Failure::Forbidden) => self.queue(index, now, Kind::LookUp),
            (_, failure) => self.fail(index, context, failure),
        }
    }

    fn succeeded(&mut self, index: usize, context: &mut Context<'_>, kind: Kind, answer: Answer) {
        let Answer::Done(done_at) = answer else { return };
        let Some(task) = self.tasks.get_mut(index) else { return };
        let sent_at = task.sent_at.unwrap_or(context.now);
        match (kind, task.ask) {
            (Kind::LogIn, _) => {
                let token = self.truth.make_token(done_at, context.scenario);
                if let Some(task) = self.tasks.get_mut(index) {
                    task.token = Some(token);
                    // The look-up has its own limit.
                    task.within = (context.now + REFINE_WITHIN).min(task.ends_at()).since(task.began_at);
                    task.waited = Duration::ZERO;
                }
                self.queue(index, context.now, Kind::LookUp);
            }
            (Kind::LookUp, Ask::LogIn) => {
                let token = task.token;
                self.logged_in(index, context, token);
            }
            (Kind::LookUp, ask) => {
                let lives = self.truth.token_of(ask).is_some_and(|id| self.truth.token_lives(id, done_at));
                self.fail(index, context, if lives { Failure::Forbidden } else { Failure::TokenDead });
            }
            (_, ask) => {
                let is_late = task.is_given_up;
                self.finish(index);
                let event = self.truth.perform(context, ask, sent_at, done_at);
                match event {
                    Event::Granted { sent_at, lease, .. } if is_late => {
                        if let Ask::Issue(token) = ask {
                            self.hear(context, Event::LeaseLeft { token, sent_at, lease });
                            self.hear(context, Event::LateReply(token));
                        }
                    }
                    event => self.hear(context, event),
                }
            }
        }
    }

    fn logged_in(&mut self, index: usize, context: &mut Context<'_>, token: Option<TokenId>) {
        let sent_at = self.tasks.get(index).and_then(|task| task.sent_at).unwrap_or(context.now);
        if let Some(sent) = self.tasks.get(index).and_then(|task| task.login.as_ref()) {
            self.turns.went(sent, Went::Well, true, context.now);
        }
        self.finish(index);
        if let Some(token) = token {
            let facts = self.truth.facts(token, sent_at, context.scenario);
            self.hear(context, Event::LoggedIn(token, facts));
        }
    }

    /// Removes a task that is done.
    fn finish(&mut self, index: usize) {
        let task = self.tasks.remove(index);
        if let Some(sent) = &task.login {
            self.turns.done(sent);
        }
    }

    /// Ends a task that failed, and passes the failure to the machine.
    fn fail(&mut self, index: usize, context: &mut Context<'_>, failure: Failure) {
        let Some(task) = self.tasks.get(index) else { return };
        let (ask, is_given_up) = (task.ask, task.is_given_up);
        self.finish(index);
        let unknown = failure == Failure::TimedOut;
        match ask {
            Ask::LogIn => self.hear(context, Event::LogInFailed(failure)),
            Ask::Issue(token) => {
                if !is_given_up {
                    self.hear(context, Event::IssueFailed(failure));
                }
                if unknown || is_given_up {
                    self.hear(context, Event::LateReply(token));
                }
            }
            Ask::RenewLease(number, _) => self.hear(context, Event::LeaseRenewFailed(number, failure)),
            Ask::RenewToken(token) => self.hear(context, Event::TokenRenewFailed(token, failure)),
            Ask::RevokeLease(number, _) => self.hear(context, Event::LeaseRevokeFailed(number, failure)),
            Ask::RevokeToken(token) => self.hear(context, Event::TokenRevokeFailed(token, failure)),
            Ask::LookUpLease(number, _) => {
                self.hear(context, Event::LeaseLookedUp(number, LeaseLookup::Unknown));
            }
        }
    }

    /// A creds request has reached its time limit. Its late answer is accepted for the same time again.
    pub(super) fn give_up(&mut self, context: &mut Context<'_>, id: u32) {
        // See `credentials::requests`: without a usable credential the whole time is waited.
        if self.published.is_none() {
            return;
        }
        let Some(task) = self.tasks.iter_mut().find(|task| task.id == id && !task.is_given_up) else {
            return;
        };
        task.is_given_up = true;
        self.hear(context, Event::IssueFailed(Failure::TimedOut));
    }

    /// When the answer arrives at the sidecar.
    pub(super) fn comes_at(&self, id: u32, answer: Answer) -> Time {
        let until = self.tasks.iter().find(|task| task.id == id).map_or(Time::NEVER, Task::ends_at);
        match answer {
            Answer::Done(at) => at + ROUND_TRIP,
            Answer::TooMany(at)
            | Answer::NoDatabase(at)
            | Answer::Forbidden(at)
            | Answer::Unavailable(at, _)
            | Answer::Unreachable(at)
            | Answer::Lost(at)
            | Answer::Later(at) => at,
            Answer::Silence => until,
        }
    }
}

/// The place of a task between two stages, which is in no queue.
const NOWHERE: Place<Time> = (Priority::First(0), 0);

/// The limit of the look-up of a fresh token.
const REFINE_WITHIN: Duration = Duration::from_secs(2);
