//! Those who wait for an answer of the driver: to a check, for another credential, for a rotation. Floor 3.

use tokio::sync::oneshot;

use super::Driver;
use crate::clock;
use crate::credentials::route::{NotReplaced, RotateDone, RotateFailed};
use crate::lease::{Event, GenerationId, Verdict};
use crate::vault::RoleKind;

/// A caller that waits for a rotation.
pub(super) struct Rotate {
    /// Earlier generations are to end for it.
    pub(super) drains: bool,
    pub(super) reply: oneshot::Sender<Result<RotateDone, RotateFailed>>,
}

impl Driver {
    /// A login cannot do with this generation.
    pub(super) fn wanted_another(
        &mut self,
        number: GenerationId,
        reply: oneshot::Sender<NotReplaced>,
        event: Event,
    ) {
        if self.is_published(number) {
            // Those who have given up are dropped: there may be no answer for as long as Vault is away.
            self.replaces.retain(|reply| !reply.is_closed());
            self.replaces.push(reply);
            self.step(event);
        }
    }

    pub(super) fn not_replaced(&mut self, why: NotReplaced) {
        for reply in self.replaces.drain(..) {
            // The caller may have given up.
            let _ = reply.send(why);
        }
    }

    pub(super) fn not_rotated(&mut self, failed: &RotateFailed) {
        for Rotate { reply, .. } in self.rotates.drain(..) {
            // The caller may have given up.
            let _ = reply.send(Err(failed.clone()));
        }
    }

    /// A generation was published.
    pub(super) fn rotated(&mut self, number: GenerationId) {
        let left_alone = (self.kind == RoleKind::Static).then(|| {
            format!("generation {number} is published, and no session is ended: {}", self.static_remedy())
        });
        self.answer_rotates(RotateDone::Published(number), left_alone);
    }

    /// A static role's password is the one that is known.
    pub(super) fn read_again(&mut self, number: GenerationId) {
        let read_at = self.generations.get(&number).map(|generation| generation.published_at());
        let since = read_at.and_then(|at| clock::rfc3339(clock::now(), at)).unwrap_or_default();
        let left_alone =
            format!("unchanged since {since}, and no session is ended: {}", self.static_remedy());
        self.answer_rotates(RotateDone::Unchanged { since }, Some(left_alone));
    }

    /// `not_drained`: why nothing was drained where that was asked for.
    fn answer_rotates(&mut self, done: RotateDone, not_drained: Option<String>) {
        for Rotate { drains, reply } in self.rotates.drain(..) {
            let answer = match &not_drained {
                Some(reason) if drains => Err(RotateFailed::NotDrained { reason: reason.clone() }),
                _ => Ok(done.clone()),
            };
            // The caller may have given up.
            let _ = reply.send(answer);
        }
    }

    /// How a static role's password is changed, and its sessions are ended.
    fn static_remedy(&self) -> String {
        format!(
            "Vault changes a static role's password (vault write -f {}), its sessions go on until the server ends them",
            self.requests.target.as_ref().map(|target| target.path.rotate_role()).unwrap_or_default()
        )
    }

    pub(super) fn answer(&mut self, number: GenerationId, verdict: Verdict) {
        for reply in self.checks.remove(&number).unwrap_or_default() {
            // The caller may have given up.
            let _ = reply.send(verdict);
        }
    }
}
