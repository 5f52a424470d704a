//! Logarithm and exponential function, which the core library does not have.

use core::f64::consts::{LN_2, SQRT_2};

/// ln x of a positive, normal x, to some 1e-14: by its exponent, and
/// ln m = 2 artanh((m - 1) / (m + 1)) of what is left, between 1/√2 and √2.
pub fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = i64::try_from(bits >> 52).unwrap_or(0) - 1023;
    let mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    let (mantissa, exponent) = match mantissa > SQRT_2 {
        true => (mantissa / 2.0, exponent + 1),
        false => (mantissa, exponent),
    };
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let mut sum = 0.0;
    let mut power = 17.0;
    while power > 0.0 {
        sum = sum * square + 1.0 / power;
        power -= 2.0;
    }
    2.0 * s * sum + exponent as f64 * LN_2
}

/// 1 - e^(-x) of an x that is not negative, to some 1e-14 of it.
pub fn one_less_exp(x: f64) -> f64 {
    if x > 40.0 {
        return 1.0;
    }
    // Halved until the series converges: 1 - e^(-2y) = (1 - e^(-y)) (1 + e^(-y)).
    let mut y = x;
    let mut halved = 0;
    while y > 0.25 {
        y /= 2.0;
        halved += 1;
    }
    // y - y²/2 + y³/6 - …
    let mut series = 0.0;
    let mut term = 12.0;
    while term > 0.0 {
        series = y / term * (1.0 - series);
        term -= 1.0;
    }
    let mut result = series;
    for _ in 0..halved {
        result *= 2.0 - result;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_right() {
        for x in [1e-300, 1e-16, 0.1, 0.5, 0.7, 0.9999999, 1.0, 1.5, 2.0, 7e40] {
            let error = (ln(x) - x.ln()).abs();
            assert!(error <= 2e-14 * x.ln().abs().max(1.0), "{x}: {error}");
        }
    }

    #[test]
    fn probabilities_are_right() {
        for x in [
            0.0, 1e-12, 1e-5, 0.01, 0.2, 0.25, 0.26, 1.0, 3.0, 20.0, 39.0, 41.0,
        ] {
            let exact = -f64::exp_m1(-x);
            let error = (one_less_exp(x) - exact).abs();
            assert!(error <= 1e-13 * exact, "{x}: {error}");
        }
    }
}
