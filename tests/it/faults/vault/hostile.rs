//! Replies to renewals and logins that nobody can use, from a Vault, or from somebody in its place: each failure has a name,
//! the current credential and its sessions stay, and a token that is known is given back.

use futures_util::future::join_all;
use reqwest::Method;

use super::{SOON, Spec};
use crate::harness::{Backends, Balancer, Leasehold, Session, Spoil, eventually, leasehold};

const RENEWAL: &str = "/sys/leases/renew";
const LOGIN: &str = "/login";

/// A leasehold that is ready, with a session; nothing is spoilt yet.
struct Hostile<'a> {
    backends: &'a Backends,
    balancer: Balancer,
    leasehold: Leasehold,
    session: Session,
    user: String,
}

impl<'a> Hostile<'a> {
    async fn before(backends: &'a Backends) -> Self {
        let balancer = Balancer::before(&format!("127.0.0.1:{}", backends.vault.port), Spoil::Not).await;
        let leasehold = leasehold()
            .upstream(&backends.db)
            .vault_addr(&balancer.addr)
            .login(&backends.setup)
            .flag("--vault-client-timeout", "5s")
            .start()
            .await;
        leasehold.wait_ready().await;
        let session = leasehold.connect("app", backends.db.name()).await;
        let user = session.user().await;
        Self { backends, balancer, leasehold, session, user }
    }

    /// The credential and its session are there, and nothing says a token.
    async fn goes_on(&self, spoil: Spoil) {
        assert_eq!(self.leasehold.http("/readyz").await.status, 200, "{spoil:?}");
        assert_eq!(self.session.user().await, self.user, "{spoil:?}");
        self.leasehold.shows_none_of(self.balancer.tokens()).await;
    }
}

/// What leasehold says of such an answer.
const KIND: &str = "a field of the reply is not of the kind that Vault sends";
const FOREIGN: &str = "the answer is not Vault's";
const LATE: &str = "no answer in time";
const LOST: &str = "the connection was lost";
const LARGE: &str = "the reply is larger than 1 MiB";
const SPAN: &str = "the reply does not say how long what it grants lives";

/// The field is that of a lease, or below `auth.` that of a token.
fn all(lease_duration: &'static str, renewable: &'static str) -> [(Spoil, &'static str); 18] {
    [
        (Spoil::Field(lease_duration, "-5"), KIND),
        (Spoil::Field(lease_duration, "60.5"), KIND),
        (Spoil::Field(lease_duration, "1000000000000000000"), KIND),
        (Spoil::Field(lease_duration, "\"1h\""), KIND),
        (Spoil::Field(lease_duration, "null"), SPAN),
        (Spoil::Without(lease_duration), SPAN),
        (Spoil::Nested(lease_duration, 100_000), KIND),
        (Spoil::Field(renewable, "\"yes\""), KIND),
        (Spoil::Body("{\"data\":{}}"), ""),
        (Spoil::Body("[]"), FOREIGN),
        (Spoil::Body("<html>welcome</html>"), FOREIGN),
        (Spoil::TimeoutWithBody, FOREIGN),
        (Spoil::TooLarge, LARGE),
        (Spoil::Lost, LOST),
        (Spoil::Cut, LOST),
        (Spoil::HeadDrips, LATE),
        (Spoil::HeadIsEndless, LOST),
        (Spoil::BodyDrips, LATE),
    ]
}

async fn is_outlived(hostile: &Hostile<'_>, spoil: Spoil, named: &str) {
    let Hostile { backends, balancer, leasehold, user, .. } = hostile;
    // Within two thirds of its life.
    leasehold.until_metric(SOON * 8, "renewals_total", &[("outcome", "failed")], 1.0).await;

    let line = eventually(SOON, async || {
        let said = leasehold.log().messages("could not renew");
        said.first().map(ToString::to_string).ok_or_else(|| format!("{spoil:?}: {}", leasehold.log().0))
    })
    .await;
    assert!(line.contains(named), "{spoil:?}: {line}");
    hostile.goes_on(spoil).await;
    let renewed = leasehold.metrics().await.get("renewals_total", &[("outcome", "ok")]);
    balancer.set(Spoil::Not);
    leasehold.until_metric(SOON * 4, "renewals_total", &[("outcome", "ok")], renewed + 1.0).await;
    hostile.goes_on(spoil).await;
    assert_eq!(leasehold.connect("app", backends.db.name()).await.user().await, *user, "{spoil:?}");
    let metrics = leasehold.metrics().await;
    assert_eq!(metrics.get("issuances_total", &[]), 1.0, "{spoil:?}: nothing was replaced");
    assert_eq!(metrics.get("sessions_closed_total", &[("cause", "revoked")]), 0.0, "{spoil:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_is_answered_with_nonsense_costs_nothing_and_is_asked_for_again() {
    let backends = Backends::new(Spec::new("app").ttl("90s", "1h")).await;
    let mut all_of_them = Vec::new();
    for (spoil, named) in all("lease_duration", "renewable") {
        all_of_them.push((Hostile::before(&backends).await, spoil, named));
    }
    // Only now, so that no lease is near its end before the last one is watched.
    for (hostile, spoil, _) in &all_of_them {
        hostile.balancer.spoil(RENEWAL, *spoil);
    }
    join_all(all_of_them.iter().map(|(hostile, spoil, named)| is_outlived(hostile, *spoil, named))).await;
}

/// Whether enough of the reply comes that the token is known.
fn names_its_token(spoil: Spoil) -> bool {
    !matches!(spoil, Spoil::Body(_) | Spoil::Lost | Spoil::HeadDrips | Spoil::HeadIsEndless)
}

async fn is_no_login(hostile: &Hostile<'_>, spoil: Spoil, named: &str) {
    let Hostile { backends, balancer, leasehold, .. } = hostile;
    let (before, lines) = (balancer.tokens().len(), failed_logins(leasehold).len());
    balancer.spoil(LOGIN, spoil);

    // Where the login is refused the token that lives carries the next lease; where it is not answered nothing comes.
    leasehold.command(&["rotate"]).await;

    let line = eventually(SOON, async || {
        let said = failed_logins(leasehold).split_off(lines);
        said.into_iter().next().ok_or("no failed login is in the log")
    })
    .await;
    assert!(line.contains(named), "{spoil:?}: {line}");
    balancer.set(Spoil::Not);
    let token = balancer.tokens().swap_remove(before);
    eventually(SOON, async || {
        let reply = backends.vault.request(Method::GET, "auth/token/lookup-self", &token, None).await;
        let is_as_wanted = (reply.status == 200) != names_its_token(spoil);
        if is_as_wanted { Ok(()) } else { Err(format!("{spoil:?}: its token: {}", reply.status)) }
    })
    .await;
    leasehold.rotate().await;
    hostile.goes_on(spoil).await;
}

fn failed_logins(leasehold: &Leasehold) -> Vec<String> {
    leasehold.log().messages("could not log in").iter().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_answered_with_nonsense_costs_nothing_and_its_token_is_given_back() {
    let backends = Backends::new(Spec::new("app")).await;
    let hostile = Hostile::before(&backends).await;
    for (spoil, named) in all("auth.lease_duration", "auth.renewable") {
        is_no_login(&hostile, spoil, named).await;
    }
}
