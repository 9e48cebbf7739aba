//! One sidecar: its lease machine, and a driver over simulated time that uses the driver's own policies. Floor 6.
//!
//! | as in production | a model |
//! |---|---|
//! | the machine ([`DynamicRole`]), its jitter and back-off | the clock |
//! | the order of requests ([`Turns`]), their [`Priority`] | the network between the sidecar and Vault |
//! | the meaning of an answer ([`vault::judge`](crate::vault::judge)) | sessions: a pool that replaces connections |

mod asking;
mod sessions;
mod truth;
mod watch;

use std::time::Duration;

use super::dice::Dice;
use super::scenario::{BEGIN, Fault, Scenario};
use super::servers::{Answer, Call, Kind};
use super::tally::Tally;
use super::verdicts::Verdicts;
use crate::lease::{Action, DynamicRole, Event, GenerationId, Settings};
use crate::time::Time;
use crate::vault::{Priority, Turns};
use asking::{Ask, RatedPath, Task};
use sessions::Held;
use truth::Truth;

/// The environment of a sidecar.
pub(super) struct Context<'a> {
    pub(super) now: Time,
    pub(super) scenario: &'a Scenario,
    pub(super) verdicts: &'a Verdicts,
    pub(super) tally: &'a mut Tally,
    pub(super) calls: &'a mut Vec<Call>,
}

impl Context<'_> {
    fn send(&mut self, call: Call) {
        self.tally.sent(call.at, call.kind);
        self.calls.push(call);
    }
}

/// An event that a sidecar waits for, besides the deadlines of its machine.
#[derive(Clone, Copy, Debug)]
pub(super) enum Timer {
    /// The pod starts.
    Start,
    /// The pod is asked to stop.
    Stop,
    /// The pod has ended, and the next one starts.
    Gone,
    /// The answer to this task arrives.
    Answer(u32, Answer),
    /// The machine stops waiting for a creds request.
    GiveUp(u32),
    /// A proof has ended.
    Proof(GenerationId, bool),
    /// A session was let in with this generation.
    Accepted(GenerationId),
    /// The last session of a generation has ended.
    Left(GenerationId),
    /// Vault revokes an expired lease.
    Expire(u32),
    /// The role of a lease is dropped.
    Dropped(u32),
    /// A client of a lazy route comes or goes.
    Use(bool),
    /// The sidecar gets the command to rotate.
    Rotate,
}

/// One sidecar.
pub(super) struct Sidecar {
    number: u32,
    role: DynamicRole,
    turns: Turns<RatedPath, Time>,
    tasks: Vec<Task>,
    next_task: u32,
    /// When a turn may come.
    wake_at: Time,
    timers: Vec<(Time, Timer)>,
    /// Requests that Vault has not answered yet, by the model's clock.
    unanswered: u32,
    truth: Truth,
    held: Vec<Held>,
    published: Option<GenerationId>,
    /// Since when a credential is needed and missing.
    unserved_since: Option<Time>,
    started_at: Time,
    has_been_ready: bool,
    is_running: bool,
    is_closing: bool,
    failed_at: [Time; 6],
    dice: Dice,
}

impl Sidecar {
    /// A sidecar that starts at this time.
    pub(super) fn new(number: u32, scenario: &Scenario, starts_at: Time) -> Self {
        let mut dice = Dice::new(scenario.seed, u64::from(number) + 1);
        let role = DynamicRole::new(settings(scenario, &mut dice));
        let mut timers = Vec::with_capacity(8);
        timers.push((starts_at, Timer::Start));
        if let Some((window, per_mille)) = scenario.deploy
            && dice.per_mille(per_mille)
        {
            timers.push((window.begins_at() + dice.of(window.lasts), Timer::Stop));
        }
        if let Some(after) = scenario.rotation {
            timers.push((BEGIN + after, Timer::Rotate));
        }
        Self {
            number,
            role,
            turns: Turns::new(dice.number()),
            // The memory of a sidecar is better taken at once, in one place, than whenever it is needed.
            tasks: Vec::with_capacity(4),
            next_task: 0,
            wake_at: Time::NEVER,
            timers,
            unanswered: 0,
            truth: Truth::new(),
            held: Vec::with_capacity(4),
            published: None,
            unserved_since: None,
            started_at: starts_at,
            has_been_ready: false,
            is_running: false,
            is_closing: false,
            failed_at: [Time::from_nanos(0); 6],
            dice,
        }
    }

    /// The time of the next known event.
    pub(super) fn next_at(&mut self) -> Time {
        let timers = self.timers.iter().map(|(at, _)| *at).min().unwrap_or(Time::NEVER);
        let machine = if self.is_running { self.role.next_deadline() } else { Time::NEVER };
        timers.min(machine).min(self.wake_at).min(self.truth.next_expiry())
    }

    /// Whether the sidecar cannot continue before Vault has answered.
    pub(super) fn is_waiting(&self) -> bool {
        self.unanswered > 0
    }

    /// Delivers Vault's answer to a call of this sidecar.
    pub(super) fn take_answer(&mut self, call: &Call, answer: Answer) {
        self.unanswered = self.unanswered.saturating_sub(1);
        let timer = match (call.kind, answer) {
            (Kind::Expire, Answer::Later(at)) => {
                (at + self.dice.of(EXPIRES_WITHIN), truth::expiry(call.task))
            }
            (Kind::Expire, Answer::Done(at)) => (at, Timer::Dropped(call.task)),
            _ => (self.comes_at(call.task, answer), Timer::Answer(call.task, answer)),
        };
        self.timers.push(timer);
    }

    /// The remaining life of the usable credentials. `None`: no credential is wanted.
    pub(super) fn runway(&self, now: Time) -> Option<Duration> {
        let wanted = self.is_running && self.role.is_wanted();
        wanted.then(|| self.role.runs_until(now).map_or(Duration::ZERO, |until| until.since(now)))
    }

    /// Handles the events that are due.
    pub(super) fn step(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        let due = self.timers.iter().enumerate().filter(|(_, (at, _))| *at <= now);
        let first = due.min_by_key(|(_, (at, _))| *at).map(|(index, _)| index);
        if self.truth.next_expiry() <= now {
            self.expire(context);
        } else if let Some(index) = first {
            let (_, timer) = self.timers.swap_remove(index);
            self.happens(context, timer);
        } else if self.is_running && self.role.next_deadline() <= now {
            self.hear(context, Event::Tick);
        }
        self.let_go(context);
        self.take_turns(context);
        self.look(context);
    }

    fn happens(&mut self, context: &mut Context<'_>, timer: Timer) {
        match timer {
            Timer::Start => self.start(context),
            Timer::Stop => {
                self.is_closing = true;
                self.hear(context, Event::Close);
                self.end_sessions(context.now + STOPS_WITHIN);
                self.timers.push((context.now + KILLED_AFTER, Timer::Gone));
            }
            Timer::Gone => self.restart(context),
            Timer::Answer(task, answer) => self.answered(context, task, answer),
            Timer::GiveUp(task) => self.give_up(context, task),
            Timer::Proof(number, accepted) => {
                self.hear(context, if accepted { Event::Proved(number) } else { Event::Unprovable(number) });
            }
            Timer::Accepted(number) => self.hear(context, Event::Accepted(number)),
            Timer::Left(number) => self.left(number),
            Timer::Expire(id) => self.send_expiry(context, id),
            Timer::Dropped(id) => self.truth.dropped(context.tally, id, context.now),
            Timer::Use(begins) => self.use_it(context, begins),
            Timer::Rotate => self.hear(context, Event::Rotate(None)),
        }
    }

    fn start(&mut self, context: &mut Context<'_>) {
        self.is_running = true;
        self.started_at = context.now;
        self.has_been_ready = false;
        if let Some(lazy) = context.scenario.lazy {
            self.timers.push((context.now + self.dice.of(lazy.every), Timer::Use(true)));
        }
        self.hear(context, Event::Tick);
    }

    /// The process ends, and all that it waits for is lost.
    fn restart(&mut self, context: &mut Context<'_>) {
        self.role = DynamicRole::new(settings(context.scenario, &mut self.dice));
        self.turns = Turns::new(self.dice.number());
        self.tasks.clear();
        self.timers.retain(|(_, timer)| matches!(timer, Timer::Expire(_) | Timer::Dropped(_)));
        self.truth.orphan();
        self.held.clear();
        self.published = None;
        self.is_closing = false;
        self.start(context);
    }

    fn expire(&mut self, context: &mut Context<'_>) {
        for id in self.truth.expire(context.now) {
            self.send_expiry(context, id);
        }
    }

    fn send_expiry(&mut self, context: &mut Context<'_>, id: u32) {
        self.unanswered += 1;
        let (at, sidecar) = (context.now, self.number);
        context.send(Call { at, sidecar, task: id, kind: Kind::Expire, until: Time::NEVER });
    }

    /// Passes an event to the machine, and carries out its actions.
    fn hear(&mut self, context: &mut Context<'_>, event: Event) {
        context.tally.events += 1;
        let now = context.now;
        let actions = self.role.handle(now, event);
        for action in &actions {
            match action {
                Action::Store(number) => {
                    self.truth.name(*number);
                    self.held.push(Held::new(*number));
                }
                Action::NotifySessions(number, ending) => self.tell(context, *number, *ending),
                _ => {}
            }
        }
        for action in actions {
            self.act(context, action);
        }
    }

    fn act(&mut self, context: &mut Context<'_>, action: Action) {
        let now = context.now;
        self.watch(context, action);
        match action {
            Action::LogIn { within } => {
                let within = within.unwrap_or(CLIENT_TIMEOUT).min(CLIENT_TIMEOUT);
                self.ask(now, Ask::LogIn, self.for_issuance(now), within);
            }
            Action::Issue(id) => self.ask(now, Ask::Issue(id), self.for_issuance(now), CLIENT_TIMEOUT * 2),
            Action::RenewLease(number, id, within) => {
                let priority = self.for_renewal(|held| held == number);
                self.ask(now, Ask::RenewLease(number, id), priority, within.min(CLIENT_TIMEOUT));
            }
            Action::RenewToken(id, within) => {
                let owned = |number| self.role.generations().any(|(n, g)| n == number && g.token() == id);
                let priority = self.for_renewal(owned);
                self.ask(now, Ask::RenewToken(id), priority, within.min(CLIENT_TIMEOUT));
            }
            Action::RevokeLease(number, id) => {
                let ends_at =
                    self.role.generations().find(|(n, _)| *n == number).map(|(_, g)| g.lease_ends_at());
                let priority = Priority::GivingBack(ends_at.unwrap_or(Time::NEVER));
                self.ask(now, Ask::RevokeLease(number, id), priority, CLIENT_TIMEOUT);
            }
            Action::RevokeToken(id) => {
                let priority = Priority::GivingBack(self.role.token_ends_at(id).unwrap_or(Time::NEVER));
                self.ask(now, Ask::RevokeToken(id), priority, CLIENT_TIMEOUT);
            }
            Action::LookUpLease(number, id) => {
                self.ask(
                    now,
                    Ask::LookUpLease(number, id),
                    Priority::GivingBack(Time::NEVER),
                    CLIENT_TIMEOUT,
                );
            }
            Action::Prove(number) => self.prove(context, number),
            Action::Publish(number) => self.publish(context, number),
            Action::Unpublish => self.published = None,
            Action::DropCredential(number) | Action::Forget(number) => {
                self.held.retain(|held| held.number != number);
            }
            // Command results, refused logins and log notes do not occur in a fleet. `Accepted` comes from the model of
            // sessions, and whether a generation may end is asked when needed.
            Action::ProvePublished(_)
            | Action::Barred
            | Action::Unbarred
            | Action::EndWhenEmpty(_)
            | Action::KeepWhenEmpty(_)
            | Action::Store(_)
            | Action::NotifySessions(..)
            | Action::ForgetToken(_)
            | Action::Answer(..)
            | Action::TooEarly(_)
            | Action::LetsIn(_)
            | Action::RotateDone(_)
            | Action::RotateFailed(_)
            | Action::Note(_) => {}
        }
    }

    fn for_issuance(&self, now: Time) -> Priority<Time> {
        Priority::of_issuance(self.role.runs_until(now), self.role.failures())
    }

    fn for_renewal(&self, stands: impl Fn(GenerationId) -> bool) -> Priority<Time> {
        let generations = self.role.generations().filter(|(number, _)| stands(*number));
        let priorities = generations.map(|(number, generation)| {
            Priority::of_renewal(self.role.hard_close_at(generation), self.has_sessions(number))
        });
        priorities.min().unwrap_or(Priority::Logins(Time::NEVER))
    }

    /// Logs in to PostgreSQL with the candidate.
    fn prove(&mut self, context: &mut Context<'_>, number: GenerationId) {
        context.tally.at(context.now).proofs += 1;
        let accepted = !context.scenario.has(Fault::PostgresAway, context.now);
        self.timers.push((context.now + PROOF, Timer::Proof(number, accepted)));
    }
}

/// The settings of a route, with the defaults of `leasehold run`.
fn settings(scenario: &Scenario, dice: &mut Dice) -> Settings {
    Settings {
        rotate_after: None,
        max_age: None,
        drain: None,
        replica_grace: Duration::ZERO,
        lazy: scenario.lazy.map(|lazy| lazy.idle_after),
        standby: scenario.standby,
        issue_burst: 3,
        issue_interval: Duration::from_mins(1),
        seed: dice.number() | 1,
    }
}

/// The default of `vault.client_timeout`.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);
/// The time of a login at PostgreSQL with SCRAM.
const PROOF: Duration = Duration::from_millis(8);
/// How long the sessions of a pod continue after it is asked to stop.
const STOPS_WITHIN: Duration = Duration::from_secs(5);
/// Kubernetes' `terminationGracePeriodSeconds`.
const KILLED_AFTER: Duration = Duration::from_secs(30);
/// The time over which a Vault that starts again spreads the expiry of leases that ended meanwhile.
const EXPIRES_WITHIN: Duration = Duration::from_secs(5);
