//! What growth will come to.

use crate::model::{Forecast, Report};

/// What is further away says nothing, seconds: 30 days.
const FARTHEST: f64 = 30.0 * 86_400.0;

/// When the first limit is reached if memory grows by so many bytes a second.
pub fn of(report: &Report, bytes_per_second: f64) -> Option<Forecast> {
    if bytes_per_second <= 0.0 {
        return None;
    }
    let limit = report.limits.iter().min_by_key(|limit| limit.left)?;
    let seconds = limit.left as f64 / bytes_per_second;
    (seconds < FARTHEST).then(|| Forecast {
        limit: limit.name.clone(),
        limit_bytes: limit.bytes,
        left_bytes: limit.left,
        seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MemoryLimit;
    use crate::report::sample;

    #[test]
    fn the_nearest_limit_is_told() {
        let mut report = sample::report();
        assert_eq!(of(&report, 1.0), None);
        let limit = |name: &str, left| MemoryLimit {
            name: name.to_owned(),
            bytes: 1 << 30,
            left,
        };
        report.limits = vec![limit("cgroup /a", 1000), limit("machine", 9000)];
        let forecast = of(&report, 10.0).unwrap();
        assert_eq!((&*forecast.limit, forecast.left_bytes), ("cgroup /a", 1000));
        assert!((forecast.seconds - 100.0).abs() < 1e-9);
        assert_eq!(of(&report, 0.0), None);
        assert_eq!(of(&report, 1e-9), None);
    }
}
