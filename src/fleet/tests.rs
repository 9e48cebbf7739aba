//! A small fleet in a simulated day of each scenario.

use std::time::Duration;

use super::scenario::Scenario;
use super::{Figures, Report, Size, all, simulate};

fn size() -> Size {
    Size { sidecars: 1000, span: Duration::from_hours(24), seed: 7 }
}

/// The number of sidecars that may wait for their first credential at the end of a minute.
const STARTING: u32 = 2;

fn run(name: &str) -> (Scenario, Report) {
    let scenario = all(size()).into_iter().find(|scenario| scenario.name() == name).expect(name);
    let report = simulate(&scenario);
    (scenario, report)
}

/// Asserts that no promise is broken, no sidecar has more roles than allowed, and all have a credential in the end.
fn holds(name: &str) -> Figures {
    let (scenario, report) = run(name);
    assert_eq!(report.breaches(), "");
    let figures = report.figures().clone();
    let places = if scenario.standby { 3 } else { 2 };
    assert!(figures.most_roles_of_one <= places, "{name}: {figures:?}");
    assert!(figures.mean > 0.0 && figures.sent > 1000, "{name}: {figures:?}");
    figures
}

/// The excess over the mean that is random in a bin of a minute with so few sidecars: four standard deviations.
fn by_chance(figures: &Figures) -> f64 {
    4.0 / (figures.mean * 60.0).sqrt()
}

#[test]
fn a_fleet_that_has_grown_asks_evenly() {
    let figures = holds("steady");
    assert!(figures.calm_peak <= 1.3 + by_chance(&figures), "{figures:?}");
    assert_eq!(figures.cut, 0, "{figures:?}");
    assert!(figures.unserved <= STARTING, "{figures:?}");
    let (_, most, longest) = figures.ready_after;
    assert!(most < Duration::from_millis(50) && longest < Duration::from_millis(100), "{figures:?}");
    let of_one = figures.mean * 3600.0 / f64::from(size().sidecars);
    assert!((2.5..4.0).contains(&of_one), "{of_one} requests an hour of each");
}

#[test]
fn a_fleet_that_starts_at_once_is_ready_at_once_and_makes_no_second_wave() {
    let figures = holds("restart");
    let (_, most, longest) = figures.ready_after;
    assert!(most < Duration::from_millis(100) && longest < Duration::from_secs(1), "{figures:?}");
    assert!(figures.second_peak <= 3.0, "{figures:?}");
    assert_eq!(figures.too_many, 0, "{figures:?}");
}

#[test]
fn a_day_after_a_common_start_what_is_replaced_goes_back_as_its_sessions_leave() {
    let size = Size { span: Duration::from_hours(26), ..size() };
    let scenario = all(size).into_iter().find(|scenario| scenario.name() == "restart").expect("it is there");
    let report = simulate(&scenario);
    assert_eq!(report.breaches(), "");
    assert!(report.figures().calm_peak < 6.0, "{:?}", report.figures());
}

#[test]
fn a_quota_delays_what_it_must_and_is_asked_less_and_less() {
    let figures = holds("quota");
    assert!(figures.too_many > 0, "the quota is reached: {figures:?}");
    assert!(figures.second_peak <= 3.0, "{figures:?}");
    assert!(figures.ready_after.2 < Duration::from_mins(2), "{figures:?}");
}

#[test]
fn a_deploy_makes_no_wave() {
    let figures = holds("deploy");
    assert!(figures.peak <= 3.0 && figures.second_peak <= 3.0, "{figures:?}");
}

#[test]
fn an_absence_of_vault_that_leases_outlive_makes_no_wave_when_it_is_over() {
    for name in ["away-10m", "sealed", "failover"] {
        let figures = holds(name);
        assert_eq!(figures.cut, 0, "{name}: {figures:?}");
        assert!(figures.unserved <= STARTING, "{name}: {figures:?}");
        assert!(figures.second_peak <= 3.0 + by_chance(&figures), "{name}: {figures:?}");
    }
}

#[test]
fn an_absence_longer_than_leases_ends_in_time_and_all_are_served_again() {
    for name in ["away-1h", "away-3h", "postgres"] {
        let figures = holds(name);
        assert!(figures.cut > 0 && figures.unserved > 0, "{name}: {figures:?}");
        assert!(figures.unserved_for <= Duration::from_mins(3), "{name}: {figures:?}");
        assert!(figures.second_peak <= 3.0 + by_chance(&figures), "{name}: {figures:?}");
    }
}

#[test]
fn a_wrong_policy_that_is_taken_back_in_time_ends_no_session() {
    let figures = holds("policy");
    assert_eq!(figures.cut, 0, "{figures:?}");
    assert!(figures.second_peak <= 4.0, "{figures:?}");
}

#[test]
fn a_start_beyond_what_vault_serves_takes_about_as_long_as_vault_does() {
    let size = Size { span: Duration::from_hours(3), ..size() };
    let mut scenario =
        all(size).into_iter().find(|scenario| scenario.name() == "restart").expect("it is there");
    // A credential takes 0.27 s, and a thousand take longer than a request is waited for.
    scenario.vault.slower = 50_000;
    let report = simulate(&scenario);
    assert_eq!(report.breaches(), "");
    let (_, _, longest) = report.figures().ready_after;
    let served_in = Duration::from_millis(267 * 1000);
    assert!(longest > Duration::from_mins(3) && longest < served_in * 3 / 2, "{longest:?}");
}

#[test]
fn every_setting_of_leases_keeps_the_promises() {
    for name in ["ttl-5m", "ttl-24h", "standby", "standby-away", "lazy"] {
        let figures = holds(name);
        assert_eq!(figures.cut, 0, "{name}: {figures:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_figures_and_another_one_others() {
    let small = |seed| {
        let size = Size { sidecars: 200, span: Duration::from_hours(14), seed };
        let scenario =
            all(size).into_iter().find(|scenario| scenario.name() == "away-10m").expect("it is there");
        format!("{:?}", simulate(&scenario).figures())
    };
    assert_eq!(small(3), small(3));
    assert_ne!(small(3), small(4));
}
