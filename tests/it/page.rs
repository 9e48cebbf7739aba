//! The page at the admin address, in a real browser.

use std::time::Duration;

use crate::harness::{Backends, Browser, Leasehold, Spec, Storage, bench, eventually};

/// The address of the page.
fn page(leasehold: &Leasehold) -> String {
    format!("http://{}/", leasehold.listening("admin")[0])
}

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_each_credential_its_sessions_and_the_rotation_between_them() {
    let backends = Backends::new(Spec::new("app").ttl("1h", "24h").policy(Spec::MAY_REVOKE)).await;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", backends.db.name()).await;
    leasehold.rotate().await;
    let mut browser = Browser::start(1180, 900).await;

    browser.go(&page(&leasehold)).await;

    browser.shows("#verdict h2", "app is served").await;
    browser.shows(".card .badge", "served").await;
    let lives = browser.eval("document.querySelectorAll('.life').length").await;
    assert_eq!(lives, 2);
    browser.shows(".life[data-generation='1']", "1 · 1 session").await;
    browser.shows("#story-list", "generation 2 was proved and published: asked for").await;

    drop(session);
    browser.shows("#story-list", "generation 1 has gone: its lease is revoked").await;
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_before_it_was_opened_is_there() {
    let backends = Backends::new(Spec::new("app").ttl("1h", "24h").policy(Spec::MAY_REVOKE)).await;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", backends.db.name()).await;
    let rotated = leasehold.command(&["rotate", "--drain=0s"]).await;
    assert!(rotated.status.success(), "{rotated:?}");
    eventually(Duration::from_secs(20), async || if session.is_closed() { Ok(()) } else { Err("open") })
        .await;

    let mut browser = Browser::start(390, 844).await;
    browser.go(&page(&leasehold)).await;

    browser.shows("#story-list", "1 session closed as the credential was revoked or lost").await;
    let is_narrow = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
    assert_eq!(browser.eval(is_narrow).await, true, "nothing sticks out on a phone");
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_that_vault_is_sealed_until_when_that_is_no_outage_and_then_that_it_is_one() {
    let vault = bench().own_vault(Storage::Raft).await;
    let db = bench().postgres().await.database().await;
    let backends = Backends::of(db, vault, Spec::new("app").ttl("28s", "24h")).await;
    let leasehold = backends.leasehold().flag("--vault-client-timeout", "2s").start().await;
    leasehold.wait_ready().await;
    let mut browser = Browser::start(1180, 900).await;
    browser.go(&page(&leasehold)).await;
    browser.shows("#verdict h2", "app is served").await;

    backends.vault.seal().await;

    browser.shows("#verdict h2", "Served, but Vault is sealed").await;
    browser.shows("#verdict p", "If Vault never answered again: until ").await;
    browser.shows("#verdict h2", "app: no new session can log in").await;
    browser.shows("#story-list", "no usable credential: new sessions wait").await;
    // It is drawn once it is wide enough to be seen.
    browser.becomes("document.querySelectorAll('.card .out').length", &1.into()).await;

    backends.vault.unseal().await;

    browser.shows("#verdict h2", "app is served").await;
    browser.shows("#story-list", "new sessions find a credential again").await;
    browser.shows("#story-list", "Vault is sealed").await;
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_reach_each_credential_and_say_what_it_is() {
    let backends = Backends::new(Spec::new("app").ttl("1h", "24h").policy(Spec::MAY_REVOKE)).await;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let first = leasehold.connect("app", backends.db.name()).await;
    leasehold.rotate().await;
    let second = leasehold.connect("app", backends.db.name()).await;
    let mut browser = Browser::start(1180, 900).await;
    browser.go(&page(&leasehold)).await;
    browser.shows("#verdict h2", "app is served").await;

    browser.eval("document.querySelector('.life[tabindex=\"0\"]').focus()").await;
    browser.shows(".detail", &format!("Generation 2, current · {}", second.user().await)).await;
    browser.press("ArrowLeft", 37).await;
    browser.shows(".detail", &format!("Generation 1, retiring · {}", first.user().await)).await;

    // It stays there while time goes on, whatever is drawn anew.
    leasehold.rotate().await;
    browser.shows("#story-list", "generation 3 was proved and published").await;
    let focused = browser.eval("document.activeElement.dataset.generation").await;
    assert_eq!(focused, "1");
    browser.press("End", 35).await;
    browser.shows(".detail", "Generation 3, current").await;
    browser.eval("document.querySelector('details').open = true").await;
    browser.shows("table", &second.user().await).await;
    assert_eq!(browser.complaints, Vec::<String>::new());
}

/// The colours of the page and of its texts, and those of its texts that contrast too little with what is behind them: those that
/// are shown, and a badge of each kind. An image is behind none of them.
///
/// Source: <https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio>
const COLOURS: &str = r#"
(() => {
  const rgba = text => { const n = text.match(/[\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    throw new Error("nothing is behind it");
  };
  for (const kind of ["good", "warn", "bad", "idle"]) {
    const badge = document.createElement("span");
    badge.className = `badge ${kind}`;
    badge.textContent = `a badge, ${kind}`;
    document.querySelector(".card").append(badge);
  }
  const faint = [], texts = new Set();
  const all = [...document.body.querySelectorAll("*")].filter(element => element.checkVisibility() &&
    [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.textContent.trim() !== ""));
  for (const element of all) {
    const style = getComputedStyle(element);
    const text = element instanceof SVGElement ? style.fill : style.color;
    const [one, other] = [light(rgba(text)), light(behind(element))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    texts.add(text);
    if (contrast < 4.5) faint.push(`${element.tagName}.${element.getAttribute("class")} "${element.textContent}" ${contrast}`);
  }
  const page = getComputedStyle(document.body);
  return {background: page.backgroundColor, text: page.color, texts: [...texts].sort(), count: all.length, faint};
})()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn it_is_dark_where_that_is_preferred_and_can_be_read_in_both_colour_schemes() {
    let backends = Backends::new(Spec::new("app").ttl("1h", "24h").policy(Spec::MAY_REVOKE)).await;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let mut browser = Browser::start(1180, 900).await;
    let mut seen = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await;
        browser.go(&page(&leasehold)).await;
        browser.shows("#verdict h2", "app is served").await;
        browser.shows("#story-list", "generation 1").await;
        let colours = browser.eval(COLOURS).await;
        assert_eq!(colours["faint"], serde_json::json!([]), "{scheme}");
        assert!(colours["count"].as_u64().unwrap() > 20, "{colours}");
        seen.push(colours);
    }
    for part in ["background", "text", "texts"] {
        assert_ne!(seen[0][part], seen[1][part], "{part}");
    }
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_that_leasehold_answers_no_more() {
    let backends = Backends::new(Spec::new("app")).await;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let mut browser = Browser::start(1180, 900).await;
    browser.go(&page(&leasehold)).await;
    browser.shows("#verdict h2", "app is served").await;

    drop(leasehold);

    browser.shows("#verdict h2", "leasehold has not answered since").await;
}
