//! The rate limiter, with a paused clock that advances only in waits.

mod paths;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::bounds::Bounds;
use super::turns::{MOST, WINDOW};
use super::*;

const LONG: Duration = Duration::from_secs(600);
const SECOND: Duration = Duration::from_secs(1);

fn limit(priority: Priority) -> Limit {
    Limit::new(Bounds::new(priority, LONG))
}

fn pace() -> Arc<RateLimiter> {
    Arc::new(RateLimiter::new())
}

/// Sends a request for this path, which is answered at once.
async fn ask(pace: &Arc<RateLimiter>, path: &str, went: Went) {
    let turn = pace.turn(path, &limit(Priority::First(0))).await.unwrap();
    turn.went(went, false);
}

/// A rate limiter that has seen only trouble, and whose present turns are used up.
async fn failing() -> Arc<RateLimiter> {
    let pace = pace();
    for _ in 0..MOST {
        ask(&pace, "x", Went::Trouble).await;
    }
    pace
}

/// Runs this number of callers, each of which sends as often as it can during `span`; `went` gives the result of each
/// request. Returns when the requests without a good answer were sent, and how many had a good answer.
async fn sent(callers: u32, span: Duration, went: fn(usize) -> Went) -> (Vec<Instant>, usize) {
    let pace = pace();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let until = Instant::now() + span;
    let mut all = JoinSet::new();
    for _ in 0..callers {
        let (pace, sent) = (Arc::clone(&pace), Arc::clone(&sent));
        all.spawn(async move {
            while Instant::now() < until {
                let turn = pace.turn("x", &limit(Priority::First(0))).await.unwrap();
                let (at, went) = {
                    let mut sent = sent.lock().unwrap();
                    let went = went(sent.len());
                    sent.push((Instant::now(), went));
                    (Instant::now(), went)
                };
                sleep_until(at + Duration::from_millis(20)).await;
                turn.went(went, false);
            }
        });
    }
    all.join_all().await;
    let sent = sent.lock().unwrap();
    let failed: Vec<_> = sent.iter().filter(|(_, went)| *went != Went::Well).map(|(at, _)| *at).collect();
    let well = sent.len() - failed.len();
    (failed, well)
}

fn most_in_a_second(sent: &[Instant]) -> usize {
    let within = |from: &Instant| sent.iter().filter(|at| (*from..*from + SECOND).contains(at)).count();
    sent.iter().map(within).max().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn requests_are_free_while_vault_answers() {
    let (failed, well) = sent(4, SECOND, |_| Went::Well).await;
    assert_eq!((failed.len(), well), (0, 200));
    // A refusal is an answer as well.
    let (refused, _) = sent(4, SECOND, |_| Went::Refused).await;
    assert_eq!(refused.len(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_vault_that_fails_gets_five_requests_a_second() {
    let (failed, _) = sent(4, Duration::from_secs(60), |_| Went::Trouble).await;
    // Four were in flight before the first failure was known.
    assert_eq!(most_in_a_second(&failed[4..]), MOST);
    assert!(failed.len() > 4 * 47, "and not much less than that: {}", failed.len());
}

#[tokio::test(start_paused = true)]
async fn while_half_of_all_fail_five_a_second_come_to_nothing() {
    let half = |number| if number % 2 == 0 { Went::Trouble } else { Went::Well };
    let (failed, well) = sent(4, Duration::from_secs(60), half).await;
    assert!(most_in_a_second(&failed[4..]) <= MOST, "{}", most_in_a_second(&failed[4..]));
    assert!(well > 4 * 47, "what succeeds is not held back for it: {well}");
}

#[tokio::test(start_paused = true)]
async fn what_fails_here_and_there_holds_nobody_back() {
    // Ten of a hundred routes have a broken role.
    let tenth = |number| if number % 10 == 0 { Went::Trouble } else { Went::Well };
    let pace = pace();
    for number in 1..400 {
        ask(&pace, "x", tenth(number)).await;
    }
    let began = Instant::now();
    for number in 1..400 {
        ask(&pace, "x", tenth(number)).await;
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_before_the_failure_counts() {
    let pace = pace();
    let began = Instant::now();
    let mut turns = Vec::new();
    for _ in 0..20 {
        turns.push(pace.turn("x", &limit(Priority::First(0))).await.unwrap());
    }
    turns[0].went(Went::Trouble, false);
    ask(&pace, "x", Went::Trouble).await;
    assert_eq!(began.elapsed(), WINDOW);
}

#[tokio::test(start_paused = true)]
async fn a_vault_that_is_back_is_asked_by_everybody_at_once() {
    let pace = pace();
    for _ in 0..100 {
        ask(&pace, "x", Went::Trouble).await;
    }
    let back_at = Instant::now();
    let mut all = JoinSet::new();
    for _ in 0..100 {
        let pace = Arc::clone(&pace);
        all.spawn(async move {
            let turn = pace.turn("x", &limit(Priority::First(0))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            turn.went(Went::Well, false);
        });
    }
    all.join_all().await;
    // The turns of the failed requests come back with the window.
    assert!(back_at.elapsed() < WINDOW * 2, "{:?}", back_at.elapsed());
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_go_by_what_they_protect() {
    let pace = failing().await;
    let now = Instant::now();
    let at = |seconds| now + Duration::from_secs(seconds);
    let ordered = [
        Priority::Sessions(at(20)),
        Priority::Sessions(at(30)),
        Priority::Logins(at(10)),
        Priority::Logins(at(40)),
        Priority::GivingBack(at(25)),
        Priority::First(0),
        Priority::First(0),
        Priority::First(7),
    ];
    let went = Arc::new(Mutex::new(Vec::new()));
    let mut all = JoinSet::new();
    for (number, priority) in ordered.into_iter().enumerate().rev() {
        let (pace, went) = (Arc::clone(&pace), Arc::clone(&went));
        all.spawn(async move {
            let turn = pace.turn(&number.to_string(), &limit(priority)).await.unwrap();
            went.lock().unwrap().push(priority);
            turn.went(Went::Trouble, false);
        });
        tokio::task::yield_now().await;
    }
    all.join_all().await;
    assert_eq!(*went.lock().unwrap(), ordered);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_turn_takes_nothing_of_the_requests_time() {
    let pace = failing().await;
    let limit = Limit::new(Bounds::new(Priority::First(0), SECOND / 2));
    let turn = pace.turn("x", &limit).await.unwrap();
    limit.is_sent();
    assert_eq!(limit.ends_at() - Instant::now(), SECOND / 2);
    drop(turn);
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_turn_is_known_to_the_one_who_asks() {
    let pace = failing().await;
    let bounds = Bounds::new(Priority::First(0), SECOND);
    let limit = Limit::new(bounds.clone());
    let turn = pace.turn("x", &limit).await.unwrap();
    assert_eq!(bounds.waited(), Duration::ZERO);
    limit.is_sent();
    bounds.sent().await;
    assert_eq!(bounds.waited(), WINDOW);
    drop(turn);
    // A second request with the same limit does not change when the first was sent.
    let turn = pace.turn("x", &limit).await.unwrap();
    limit.is_sent();
    assert_eq!(bounds.waited(), WINDOW);
    drop(turn);
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_waited_for_no_longer_than_it_is_of_use() {
    let pace = pace();
    pace.rest("x", LONG);
    let began = Instant::now();
    for (priority, bound) in
        [(Priority::Sessions(began + SECOND), SECOND), (Priority::First(0), Duration::from_secs(61))]
    {
        assert!(pace.turn("x", &limit(priority)).await.is_err());
        assert_eq!(began.elapsed(), bound);
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_is_not_wanted_any_more_is_given_up_at_once() {
    let pace = pace();
    pace.rest("x", LONG);
    let withdrawn = CancellationToken::new();
    let limit = Limit::new(Bounds::new(Priority::First(0), LONG).withdrawn_by(withdrawn.clone()));
    let began = Instant::now();
    tokio::spawn(async move {
        tokio::time::sleep(SECOND).await;
        withdrawn.cancel();
    });
    assert!(pace.turn("x", &limit).await.is_err_and(|why| why.contains("not wanted")));
    assert_eq!(began.elapsed(), SECOND);
    assert!(pace.state().waiting.is_empty());
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_waiting_holds_nobody_up() {
    let pace = failing().await;
    let urgent = limit(Priority::Sessions(Instant::now() + LONG));
    {
        let waiting = pace.turn("x", &urgent);
        assert!(tokio::time::timeout(SECOND / 10, waiting).await.is_err());
    }
    // A turn that comes without a request being sent delays no other request either.
    drop(pace.turn("x", &urgent).await.unwrap());
    ask(&pace, "x", Went::Trouble).await;
    assert!(pace.state().waiting.is_empty());
    assert!(pace.state().paths.iter().all(|(_, path)| path.in_flight == 0));
}

#[tokio::test(start_paused = true)]
async fn what_goes_alone_goes_by_its_priority_and_takes_no_turn_of_others() {
    let pace = failing().await;
    let began = Instant::now();
    let first = pace.alone("login", &limit(Priority::First(3))).await.unwrap();
    let went = Arc::new(Mutex::new(Vec::new()));
    let mut all = JoinSet::new();
    for priority in [Priority::First(1), Priority::First(0), Priority::Logins(began)] {
        let (pace, went) = (Arc::clone(&pace), Arc::clone(&went));
        all.spawn(async move {
            let turn = pace.alone("login", &limit(priority)).await.unwrap();
            went.lock().unwrap().push(priority);
            drop(turn);
        });
        tokio::task::yield_now().await;
    }
    assert!(went.lock().unwrap().is_empty());
    drop(first);
    all.join_all().await;
    assert_eq!(*went.lock().unwrap(), [Priority::Logins(began), Priority::First(0), Priority::First(1)]);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

/// A hundred leases of 12 s are each renewed after 6 s, beside ten routes whose creds requests fail.
#[tokio::test(start_paused = true)]
async fn ten_broken_routes_end_none_of_a_hundred_leases() {
    let pace = pace();
    let until = Instant::now() + Duration::from_secs(60);
    let mut all = JoinSet::new();
    for number in 0..100_u64 {
        let pace = Arc::clone(&pace);
        all.spawn(async move {
            tokio::time::sleep(Duration::from_millis(number * 57)).await;
            let mut ends_at = Instant::now() + Duration::from_secs(9);
            while Instant::now() < until {
                sleep_until(ends_at - Duration::from_secs(3)).await;
                let turn = pace.turn("sys/leases/renew", &limit(Priority::Sessions(ends_at))).await;
                let turn = turn.expect("it comes before its end");
                ends_at = Instant::now() + Duration::from_secs(9);
                tokio::time::sleep(Duration::from_millis(30)).await;
                turn.went(Went::Well, false);
            }
        });
    }
    for number in 0..10_u32 {
        let pace = Arc::clone(&pace);
        all.spawn(async move {
            let mut failures = 0;
            while Instant::now() < until {
                let path = format!("creds/broken{number}");
                let turn = pace.turn(&path, &limit(Priority::First(failures))).await.unwrap();
                failures += 1;
                tokio::time::sleep(Duration::from_millis(30)).await;
                // A syntax error or a missing database: both are a 500 of Vault's. Another request hangs.
                if number == 9 {
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
                turn.went(Went::Trouble, number != 9);
                drop(turn);
                tokio::time::sleep(SECOND).await;
            }
        });
    }
    all.join_all().await;
}
