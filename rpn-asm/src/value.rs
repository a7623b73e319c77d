//! The numbers of constant expressions: 64 bits with C's rules for signedness.

use crate::problem::ExpressionProblem;
use std::fmt;

/// A number as C's `intmax_t` or `uintmax_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Value {
    pub bits: u64,
    pub unsigned: bool,
}

impl Value {
    pub const fn signed(v: i64) -> Self {
        Self {
            bits: v as u64,
            unsigned: false,
        }
    }

    fn truth(v: bool) -> Self {
        Self::signed(v.into())
    }

    pub fn is_zero(self) -> bool {
        self.bits == 0
    }

    /// The value as a mathematical integer.
    pub fn wide(self) -> i128 {
        if self.unsigned {
            self.bits.into()
        } else {
            (self.bits as i64).into()
        }
    }

    /// A number as it is written: decimal, `0x`, `0b`, `0o`, or octal with a leading 0; C's suffixes `u`, `l`, `ll` are
    /// allowed. Unsigned if it says so or does not fit a signed word.
    pub fn parse(text: &str) -> Result<Self, ExpressionProblem> {
        let lower = text.to_ascii_lowercase();
        let (base, digits) = match lower.as_bytes() {
            [b'0', b'x', ..] => (16, &lower[2..]),
            [b'0', b'b', ..] => (2, &lower[2..]),
            [b'0', b'o', ..] => (8, &lower[2..]),
            [b'0', _, ..] => (8, &lower[1..]),
            _ => (10, &lower[..]),
        };
        let (digits, suffix) = ["ull", "llu", "lu", "ul", "ll", "u", "l"]
            .iter()
            .find_map(|s| digits.strip_suffix(s).map(|d| (d, *s)))
            .unwrap_or((digits, ""));
        let prefixed = lower.len() > 2 && base != 10 && !lower.as_bytes()[1].is_ascii_digit();
        if digits.is_empty() && (base != 8 || prefixed || lower.len() > 1 && lower.as_bytes()[1] == b'o') {
            return Err(ExpressionProblem::NoDigits { base });
        }
        let mut bits: u64 = 0;
        for c in digits.chars() {
            if c == '.' && base <= 10 {
                return Err(ExpressionProblem::FloatingPoint);
            }
            let Some(d) = c.to_digit(base) else {
                return Err(ExpressionProblem::InvalidDigit { digit: c, base });
            };
            bits = bits
                .checked_mul(base.into())
                .and_then(|b| b.checked_add(d.into()))
                .ok_or(ExpressionProblem::NumberTooLarge)?;
        }
        Ok(Self {
            bits,
            unsigned: suffix.contains('u') || bits > i64::MAX as u64,
        })
    }

    pub fn not(self) -> Self {
        Self::truth(self.is_zero())
    }

    pub fn complement(self) -> Self {
        Self {
            bits: !self.bits,
            ..self
        }
    }

    pub fn negate(self) -> Self {
        Self {
            bits: self.bits.wrapping_neg(),
            ..self
        }
    }

    /// The operators that always evaluate both sides. Sums and products wrap, as the words of a program do.
    pub fn binary(operator: &str, a: Self, b: Self) -> Result<Self, ExpressionProblem> {
        let unsigned = a.unsigned || b.unsigned;
        let (x, y) = (a.bits, b.bits);
        let (sx, sy) = (x as i64, y as i64);
        let number = |bits| Ok(Self { bits, unsigned });
        let truth = |t| Ok(Self::truth(t));
        let less = if unsigned { x < y } else { sx < sy };
        match operator {
            "+" => number(x.wrapping_add(y)),
            "-" => number(x.wrapping_sub(y)),
            "*" => number(x.wrapping_mul(y)),
            "/" | "%" if y == 0 => Err(ExpressionProblem::DivisionByZero),
            "/" if unsigned => number(x / y),
            "%" if unsigned => number(x % y),
            "/" => match sx.checked_div(sy) {
                Some(q) => number(q as u64),
                None => Err(ExpressionProblem::DivisionOverflow),
            },
            "%" => number(sx.wrapping_rem(sy) as u64),
            "&" => number(x & y),
            "|" => number(x | y),
            "^" => number(x ^ y),
            "<<" | ">>" => {
                let n = u32::try_from(b.wide())
                    .ok()
                    .filter(|n| *n < 64)
                    .ok_or_else(|| ExpressionProblem::ShiftCount { count: b.to_string() })?;
                let bits = match (operator, a.unsigned) {
                    ("<<", _) => x << n,
                    (_, true) => x >> n,
                    (_, false) => (sx >> n) as u64,
                };
                Ok(Self { bits, ..a })
            }
            "<" => truth(less),
            ">=" => truth(!less),
            ">" => truth(!less && x != y),
            "<=" => truth(less || x == y),
            "==" => truth(x == y),
            _ => truth(x != y),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.wide().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let ok = |t: &str| Value::parse(t).map(|v| (v.bits, v.unsigned));
        for (text, bits, unsigned) in [
            ("0", 0, false),
            ("00", 0, false),
            ("0u", 0, true),
            ("0L", 0, false),
            ("10", 10, false),
            ("0x1F", 31, false),
            ("0b101", 5, false),
            ("0o17", 15, false),
            ("017", 15, false),
            ("7ULL", 7, true),
            ("9223372036854775807", i64::MAX as u64, false),
            ("9223372036854775808", 1 << 63, true),
            ("0xffffffffffffffff", u64::MAX, true),
        ] {
            assert_eq!(ok(text), Ok((bits, unsigned)), "{text}");
        }
        for (text, problem) in [
            ("0x", ExpressionProblem::NoDigits { base: 16 }),
            ("0b", ExpressionProblem::NoDigits { base: 2 }),
            ("0o", ExpressionProblem::NoDigits { base: 8 }),
            ("0xul", ExpressionProblem::NoDigits { base: 16 }),
            ("08", ExpressionProblem::InvalidDigit { digit: '8', base: 8 }),
            ("12a", ExpressionProblem::InvalidDigit { digit: 'a', base: 10 }),
            ("0b2", ExpressionProblem::InvalidDigit { digit: '2', base: 2 }),
            ("1.5", ExpressionProblem::FloatingPoint),
            ("18446744073709551616", ExpressionProblem::NumberTooLarge),
        ] {
            assert_eq!(ok(text), Err(problem), "{text}");
        }
    }
}
