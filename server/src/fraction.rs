//! Sums of decimal fractions, as INCRBYFLOAT has them.
//!
//! Up to 17 digits after the point and 20 before it a sum is exact, so that 0.1 and 0.2 are 0.3; what has more is added as
//! floating-point numbers of 64 bits. Both give the same on every computer.

/// The digits after the point that are kept, as many as redis shows.
const DIGITS: u32 = 17;

/// The longest number that is read, in bytes, as in redis.
const MAX_LENGTH: usize = 255;

/// The number 1, in units of the last digit kept.
const ONE: i128 = 10_i128.pow(DIGITS);

/// What is not a sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoSum {
    /// One of the two is no number.
    NotANumber,
    /// It is not finite.
    NotFinite,
}

/// The sum of two numbers in digits.
pub(crate) fn sum(one: &[u8], other: &[u8]) -> Result<String, NoSum> {
    let (float, other_float) = (float(one)?, float(other)?);
    if let (Some(one), Some(other)) = (exact(one), exact(other))
        && let Some(sum) = one.checked_add(other)
    {
        return Ok(shown(sum));
    }
    let sum = float + other_float;
    if !sum.is_finite() {
        return Err(NoSum::NotFinite);
    }
    // All digits of a large one, as of a small one.
    Ok(shortened(&format!("{sum}")))
}

/// Whether it is a number.
pub(crate) fn is_one(digits: &[u8]) -> bool {
    float(digits).is_ok()
}

fn float(digits: &[u8]) -> Result<f64, NoSum> {
    if digits.len() > MAX_LENGTH {
        return Err(NoSum::NotANumber);
    }
    let number: Option<f64> = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    number.filter(|number| !number.is_nan()).ok_or(NoSum::NotANumber)
}

/// A number in units of the last digit kept, if it is one of them.
fn exact(digits: &[u8]) -> Option<i128> {
    let (negative, digits) = match digits {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    let mut units = 0_i128;
    // How many digits came after the point, if that came.
    let mut after: Option<u32> = None;
    for &byte in digits {
        match byte {
            b'0'..=b'9' => {
                units = units.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
                if let Some(after) = &mut after {
                    *after += 1;
                }
            }
            b'.' if after.is_none() => after = Some(0),
            _ => return None,
        }
    }
    let missing = DIGITS.checked_sub(after.unwrap_or(0))?;
    let units = units.checked_mul(10_i128.checked_pow(missing)?)?;
    Some(if negative { -units } else { units })
}

fn shown(units: i128) -> String {
    let sign = if units < 0 { "-" } else { "" };
    let size = units.unsigned_abs();
    let (whole, part) = (size / ONE as u128, size % ONE as u128);
    shortened(&format!("{sign}{whole}.{part:017}"))
}

/// Without what says nothing: digits after the point that are beyond those kept, zeros at the end, the sign of nothing.
fn shortened(digits: &str) -> String {
    let Some(point) = digits.find('.') else { return digits.to_owned() };
    let kept = &digits[..digits.len().min(point + 1 + DIGITS as usize)];
    let short = kept.trim_end_matches('0').trim_end_matches('.');
    if short == "-0" { "0".to_owned() } else { short.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(one: &str, other: &str) -> Result<String, NoSum> {
        sum(one.as_bytes(), other.as_bytes())
    }

    #[test]
    fn sums_of_usual_numbers_are_exact() {
        for (one, other, sum) in [
            ("10.50", "0.1", "10.6"),
            ("0.1", "0.2", "0.3"),
            ("5.0e3", "200", "5200"),
            ("3", "-3.0", "0"),
            ("-0.5", "0.25", "-0.25"),
            ("0", "-0", "0"),
            ("1", "0.00000000000000001", "1.00000000000000001"),
            ("+.5", "1.", "1.5"),
            ("99999999999999999999", "1", "100000000000000000000"),
            ("1e300", "0", &format!("1{}", "0".repeat(300))),
            ("1e-30", "0", "0"),
        ] {
            assert_eq!(add(one, other).as_deref(), Ok(sum), "{one} + {other}");
        }
    }

    #[test]
    fn what_is_no_number_has_no_sum() {
        let long = "1".repeat(MAX_LENGTH + 1);
        for wrong in [&long, "", " 1", "1 ", "x", "1..2", "0x10", "nan", "1e", "--1"] {
            assert_eq!(add("1", wrong), Err(NoSum::NotANumber), "{wrong:?}");
            assert!(!is_one(wrong.as_bytes()));
        }
        assert_eq!(add("1e308", "1e308"), Err(NoSum::NotFinite));
        assert_eq!(add("inf", "1"), Err(NoSum::NotFinite));
    }
}
