//! Settings that cannot be are refused, all at once.

use std::time::Duration;

use recache_model::ttl::Settings;

fn fields(settings: Settings) -> Vec<&'static str> {
    settings.problems().iter().map(|problem| problem.field).collect()
}

#[test]
fn defaults_are_good() {
    assert_eq!(fields(Settings::default()), Vec::<&str>::new());
}

#[test]
fn what_is_no_share_is_refused() {
    for share in [f64::NAN, f64::INFINITY, -0.5, 0.0, 1e-9, 1.0, 7.0] {
        let settings = Settings { stale_share_max: share, ..Settings::default() };
        assert!(fields(settings).contains(&"stale_share_max"), "{share}");
        let settings = Settings { class_share_max: share, ..Settings::default() };
        assert!(fields(settings).contains(&"class_share_max"), "{share}");
    }
    let inverted = Settings { stale_share_max: 0.2, class_share_max: 0.1, ..Settings::default() };
    assert_eq!(fields(inverted), ["class_share_max"]);
}

#[test]
fn bounds_that_are_inverted_or_out_of_range_are_refused_together() {
    let settings = Settings {
        ttl_min: Duration::from_secs(20),
        ttl_max: Duration::from_secs(10),
        window: Duration::from_secs(1),
        ..Settings::default()
    };
    assert_eq!(fields(settings), ["ttl_min", "staleness", "window"]);
    let settings = Settings {
        staleness: Duration::ZERO,
        ttl_min: Duration::ZERO,
        ttl_max: Duration::MAX,
        ..Settings::default()
    };
    assert_eq!(fields(settings), ["staleness", "ttl_min", "ttl_max"]);
    let told = settings.problems()[0].to_string();
    assert_eq!(told, "`staleness` is 0; it must be longer");
}
