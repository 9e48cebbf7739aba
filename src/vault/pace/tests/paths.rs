//! What one path is made to wait for, whatever other paths do.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_path_rests_as_long_as_vault_asks_for_and_others_do_not() {
    let pace = pace();
    let began = Instant::now();
    pace.rest("x", Duration::from_secs(7));
    ask(&pace, "y", Went::Well).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    ask(&pace, "x", Went::Well).await;
    assert_eq!(began.elapsed(), Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn a_refused_path_has_one_request_in_flight_and_waits_longer_and_longer() {
    let pace = pace();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let in_flight = Arc::new(Mutex::new(0));
    let began = Instant::now();
    ask(&pace, "x", Went::Well).await;
    let refused = pace.turn("x", &limit(Priority::First(0))).await.unwrap();
    refused.went(Went::Refused, true);
    drop(refused);
    let mut all = JoinSet::new();
    for _ in 0..6 {
        let (pace, sent, in_flight) = (Arc::clone(&pace), Arc::clone(&sent), Arc::clone(&in_flight));
        all.spawn(async move {
            let turn = pace.turn("x", &limit(Priority::First(0))).await.unwrap();
            *in_flight.lock().unwrap() += 1;
            assert_eq!(*in_flight.lock().unwrap(), 1);
            sent.lock().unwrap().push(began.elapsed().as_millis());
            tokio::time::sleep(Duration::from_millis(100)).await;
            *in_flight.lock().unwrap() -= 1;
            turn.went(Went::Refused, true);
        });
    }
    // Other paths are not held back meanwhile.
    for _ in 0..100 {
        ask(&pace, "y", Went::Well).await;
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    all.join_all().await;
    assert_eq!(*sent.lock().unwrap(), [500, 1600, 3700, 6800, 9900, 13_000]);
}

#[tokio::test(start_paused = true)]
async fn a_path_that_answers_again_is_free_at_once() {
    let pace = pace();
    for _ in 0..5 {
        let turn = pace.turn("x", &limit(Priority::First(0))).await.unwrap();
        turn.went(Went::Refused, true);
    }
    pace.retry_now("x");
    let began = Instant::now();
    ask(&pace, "x", Went::Well).await;
    let turns = [
        pace.turn("x", &limit(Priority::First(0))).await.unwrap(),
        pace.turn("x", &limit(Priority::First(0))).await.unwrap(),
    ];
    assert_eq!(began.elapsed(), Duration::ZERO);
    drop(turns);
}

#[tokio::test(start_paused = true)]
async fn a_path_that_gives_what_is_of_no_use_stays_slow_until_something_is() {
    let pace = pace();
    let mut sent = Vec::new();
    let began = Instant::now();
    for _ in 0..4 {
        ask(&pace, "x", Went::Well).await;
        sent.push(began.elapsed().as_millis());
        pace.of_use("x", false);
    }
    assert_eq!(sent, [0, 500, 1500, 3500]);
    let turn = pace.turn("x", &limit(Priority::First(0))).await.unwrap();
    turn.went(Went::Well, true);
    let other = pace.clone();
    let other = tokio::spawn(async move { ask(&other, "x", Went::Well).await });
    tokio::task::yield_now().await;
    assert!(!other.is_finished(), "it goes alone");
    pace.of_use("x", true);
    other.await.unwrap();
    drop(turn);
}

#[tokio::test(start_paused = true)]
async fn a_path_that_has_too_much_to_do_is_asked_less_and_less_by_each_at_its_own_times() {
    let mut all = Vec::new();
    for _ in 0..20 {
        let pace = pace();
        let began = Instant::now();
        let mut waits = Vec::new();
        let mut last = began;
        for _ in 0..9 {
            // A wait of a minute ends without a turn. The caller then waits again.
            let turn = loop {
                if let Ok(turn) = pace.turn("x", &limit(Priority::First(0))).await {
                    break turn;
                }
            };
            turn.went(Went::Busy, true);
            waits.push(last.elapsed());
            last = Instant::now();
        }
        ask(&pace, "y", Went::Well).await;
        for (number, wait) in waits.iter().enumerate().skip(1) {
            let whole = (SECOND / 2 * (1 << (number - 1))).min(SECOND * 120);
            // While Vault fails as a whole, a turn may be later by one window.
            assert!((whole / 2..=whole + WINDOW).contains(wait), "{number}: {wait:?}");
        }
        all.push(began.elapsed());
    }
    let (least, most) = (all.iter().min().unwrap(), all.iter().max().unwrap());
    assert!(*most > *least + SECOND * 10, "{all:?}");
}
