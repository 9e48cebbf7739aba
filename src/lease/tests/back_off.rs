//! The times of further tries, of renewals and of issuances.

use super::renewal::{LEASE, PATIENCE, story};
use super::script::*;
use crate::lease::{Event, Failure, Note, Reason, Settings};

#[test]
fn transient_failures_back_off_from_half_a_second_to_half_of_what_is_left_and_go_on() {
    let mut story = Story::serving(settings(), 1005.0, endless());
    // Usable 999 s; two thirds are second 666, the drain would begin at 999 − 100.5.
    let mut now = 666.0;
    for wait in [0.5, 4.0, 32.0, 148.25] {
        story.at(now, Event::Tick).does([renew(G1, T1, 249.75)]);
        story.at(now, not_renewed(G1, Failure::Transient)).does([]);
        now += wait;
    }
    story.at(now, Event::Tick).does([renew(G1, T1, 249.75)]);
    story.at(now, renewed(G1, now, 1005.0)).does([]);
    story.at(now + 666.0, Event::Tick).does([renew(G1, T1, 249.75)]);
}

#[test]
fn renewals_that_keep_failing_ask_for_a_fresh_lease_when_the_drain_would_begin() {
    let mut story = story();
    story.at(66.0, Event::Tick);
    // The drain is 10.5 s: from second 88.5 on.
    let mut sent_at = 66.0;
    for wait in [0.5, 4.0, 9.5, 6.333_333_333] {
        story.at(sent_at, not_renewed(G1, Failure::Transient)).does([]);
        sent_at += wait;
        story.at(sent_at, Event::Tick).does([renew(G1, T1, PATIENCE)]);
    }
    story.at(sent_at, not_renewed(G1, Failure::Transient)).does([]);
    story.at(88.5, Event::Tick).does([log_in(PATIENCE)]).notes(Note::Issuing(Reason::NotRenewable));
}

#[test]
fn issuing_backs_off_to_three_seconds_with_no_usable_credential() {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick).does([LOG_IN]);
    let mut now = 0.0;
    for wait in [0.5, 1.0, 2.0, 3.0, 3.0, 3.0] {
        story.at(now, Event::LogInFailed(Failure::Transient)).does([]);
        now += wait;
        story.at(now, Event::Tick).does([LOG_IN]);
    }
}

#[test]
fn issuing_backs_off_eightfold_with_a_usable_credential_and_to_three_seconds_once_it_has_ended() {
    let mut story =
        Story::serving(Settings { rotate_after: Some(secs(10.0)), ..settings() }, LEASE, endless());
    story.at(10.0, Event::Tick).does([log_in(PATIENCE)]);
    let mut now = 10.0;
    // The third wait is a third of what is left.
    for wait in [0.5, 4.0, 28.166_666_666] {
        story.at(now, Event::LogInFailed(Failure::Transient)).does([]);
        now += wait;
        story.at(now, Event::Tick).does([log_in(PATIENCE)]);
    }
    story.at(now, Event::LogInFailed(Failure::Transient)).does([]);
    // In the midst of the next wait the lease is lost.
    story.at(now + 1.0, Event::Suspected(G1)).does([renew(G1, T1, PATIENCE)]);
    let lost = story.at(now + 2.0, not_renewed(G1, Failure::Gone)).role.next_deadline();
    assert_eq!(lost, at(now + 5.0));
    story.at(now + 5.0, Event::Tick).does([LOG_IN]);
}

#[test]
fn tries_of_a_renewal_come_closer_as_the_end_draws_near() {
    // Of 30 s, 27 are usable: second 18. Then with back-off, but never longer than a third of what is left.
    let mut story = Story::serving(settings(), 30.0, endless());
    let mut now = 18.0;
    story.at(now, Event::Tick).does([renew(G1, T1, 6.75)]);
    for wait in [0.5, 2.833_333_333, 1.888_888_889] {
        story.at(now, not_renewed(G1, Failure::Transient)).does([]);
        now += wait;
        story.at(now, Event::Tick).does([renew(G1, T1, 6.75)]);
    }
}

#[test]
fn tries_of_an_issuance_come_closer_as_the_end_draws_near() {
    let mut story =
        Story::serving(Settings { rotate_after: Some(secs(70.0)), ..settings() }, LEASE, endless());
    story.at(66.0, Event::Tick).does([renew(G1, T1, PATIENCE)]);
    let mut now = 70.0;
    story.at(now, Event::Tick).does([log_in(PATIENCE)]);
    for wait in [0.5, 4.0, 8.166_666_666, 5.444_444_444] {
        story.at(now, Event::LogInFailed(Failure::Transient)).does([]);
        now += wait;
        story.at(now, Event::Tick).does([log_in(PATIENCE)]);
    }
}
