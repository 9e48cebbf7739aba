//! What handles of a route ask of its driver. Floor 3.

use std::sync::Arc;

use super::Driver;
use super::waiting::Rotate;
use crate::credentials::requests::Target;
use crate::credentials::route::{Command, Reload};
use crate::lease::Event;

impl Driver {
    fn reload(&mut self, reload: Reload) {
        let Reload { settings, vault, servers, issue } = reload;
        if let Ok(mut view) = self.shared.view.lock() {
            view.vault_path = settings.vault_path.to_string();
            view.serves = settings.serves.clone();
        }
        self.state_writer.set_origin(settings.origin());
        if issue {
            self.requests.withdraw();
        }
        self.requests.vault = vault;
        self.requests.target = Some(Target { path: Arc::new(settings.vault_path), servers });
        self.requests.client_timeout = settings.client_timeout;
        self.replica_grace = None;
        self.shared.outage.forget();
        self.machine.set_settings(settings.lease);
        self.step(if issue { Event::Reload } else { Event::Tick });
    }

    /// Does what a handle asks.
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Check(number, reply) => {
                let waiting = self.checks.entry(number).or_default();
                waiting.retain(|reply| !reply.is_closed());
                waiting.push(reply);
                self.step(Event::Suspected(number));
            }
            Command::Replace(number, reply) => self.wanted_another(number, reply, Event::Replace(number)),
            Command::Await(number, reply) => self.wanted_another(number, reply, Event::Await(number)),
            Command::Denial(number) => self.step(Event::DenialSeen(number)),
            Command::Rotate(drain, reply) => {
                self.rotates.retain(|waiting| !waiting.reply.is_closed());
                self.rotates.push(Rotate { drains: drain.is_some(), reply });
                self.requests.retry_now();
                self.step(Event::Rotate(drain));
            }
            Command::Away => self.report_away(),
            Command::Want => self.step(Event::Wanted),
            Command::Reload(reload) => self.reload(*reload),
            Command::Retire => {
                self.closing = true;
                self.requests.withdraw();
                self.step(Event::Retire);
            }
            Command::Close => {
                self.closing = true;
                self.requests.withdraw();
                self.step(Event::Close);
            }
        }
    }
}
