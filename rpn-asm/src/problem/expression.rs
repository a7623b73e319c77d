use super::{Explanation, say};

/// What can be wrong with a constant expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpressionProblem {
    /// Something else stands where an operand should.
    ExpectedOperand {
        /// What was found, in words.
        found: String,
    },
    /// Something follows that no operator connects.
    ExpectedOperator {
        /// What was found, in words.
        found: String,
    },
    /// A missing `)` or `:`.
    ExpectedCloser {
        /// What is missing.
        closer: &'static str,
        /// What was found, in words.
        found: String,
        /// The `(` or `?` it belongs to.
        opener: crate::source::Span,
    },
    /// A number with a digit its base does not have.
    InvalidDigit {
        /// The digit.
        digit: char,
        /// Its base.
        base: u32,
    },
    /// `0x` and nothing.
    NoDigits {
        /// The base.
        base: u32,
    },
    /// More than 64 bits.
    NumberTooLarge,
    /// A floating-point number.
    FloatingPoint,
    /// A divisor that is zero.
    DivisionByZero,
    /// The most negative number divided by -1.
    DivisionOverflow,
    /// A shift by less than 0 or more than 63.
    ShiftCount {
        /// The count as written.
        count: String,
    },
    /// An identifier that means nothing here.
    UndefinedName {
        /// The identifier.
        name: String,
        /// A name that is nearly the same.
        near: Option<String>,
    },
    /// An operator on an address that is not known yet.
    SymbolOperator {
        /// The operator.
        operator: String,
        /// The symbol.
        symbol: String,
        /// A constant that is nearly the same.
        near: Option<String>,
    },
    /// Two symbols in one location.
    TwoSymbols {
        /// The first.
        first: String,
        /// The second.
        second: String,
    },
    /// Too many parentheses or operators inside each other.
    TooDeep,
}

impl ExpressionProblem {
    pub(super) fn explain(&self) -> Explanation {
        use ExpressionProblem::*;
        match self {
            ExpectedOperand { found } => say(
                format!("expected a value, found {found}"),
                "expected a number, a name or `(`",
            ),
            ExpectedOperator { found } => say(
                format!("expected an operator or the end of the expression, found {found}"),
                "unexpected here",
            ),
            ExpectedCloser { closer, found, opener } => say(
                format!("expected `{closer}`, found {found}"),
                format!("expected `{closer}`"),
            )
            .see(*opener, format!("`{closer}` is missing for this")),
            InvalidDigit { digit, base } => say(
                format!("digit `{digit}` is not valid in base {base}"),
                format!("expected {}", digits(*base)),
            ),
            NoDigits { base } => say(
                "number has no digits",
                format!("expected {} after the prefix", digits(*base)),
            ),
            NumberTooLarge => say("number does not fit in 64 bits", "the largest is 0xffffffffffffffff"),
            FloatingPoint => say("floating-point numbers are not supported", "expected an integer"),
            DivisionByZero => say("division by zero", "this is zero"),
            DivisionOverflow => say(
                "division overflows: -0x8000000000000000 / -1 does not fit in 64 bits",
                "the result would be 0x8000000000000000",
            ),
            ShiftCount { count } => say(
                format!("shift count {count} is out of range"),
                "expected a count from 0 to 63",
            ),
            UndefinedName { name, near } => say(format!("`{name}` is not defined"), "not a macro, and symbols have no value here")
                .help(format!("define it with `#define {name} VALUE`, or `-D {name}=VALUE` on the command line"))
                .near("a constant", near.as_deref()),
            SymbolOperator { operator, symbol, near } => say(
                format!("`{operator}` cannot be applied to the symbol `{symbol}`"),
                "the address of a symbol is not known before the program is inserted",
            )
            .help("constants can be added to a symbol and subtracted from it")
            .help(format!(
                "if `{symbol}` is meant to be a constant: `#define {symbol} VALUE`, or `-D {symbol}=VALUE` on the command line"
            ))
            .near("a constant", near.as_deref()),
            TwoSymbols { first, second } => say(
                format!("expression has two symbols, `{first}` and `{second}`"),
                "expected a constant",
            )
            .help(format!("if `{second}` is meant to be a constant: `-D {second}=VALUE` on the command line, or `#define {second} VALUE`")),
            TooDeep => say("expression is nested too deeply", "more than 100 levels"),
        }
    }
}

fn digits(base: u32) -> &'static str {
    match base {
        2 => "`0` or `1`",
        8 => "digits from `0` to `7`",
        16 => "hexadecimal digits",
        _ => "decimal digits",
    }
}
