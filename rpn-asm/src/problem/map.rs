use super::{Explanation, all_of, one_of, say};
use crate::source::Span;
use dprobes::rpn::limits;

/// What can be wrong with the declaration of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapProblem {
    /// Something behind the kind or an option that is no comma.
    ExpectedComma {
        /// What was found, in words.
        found: String,
    },
    /// A word that is no option.
    ExpectedOption {
        /// What was found, in words.
        found: String,
        /// The options there are.
        known: Vec<String>,
        /// An option that is nearly the same.
        near: Option<String>,
    },
    /// An option that only linear histograms have.
    OnlyLinear {
        /// The option.
        option: &'static str,
        /// The kind of this map.
        kind: String,
    },
    /// A linear histogram without what it must have.
    Missing {
        /// The map.
        name: String,
        /// The options.
        options: Vec<String>,
    },
    /// A range of no values.
    Range {
        /// The first value.
        min: i128,
        /// The value behind the last one.
        max: i128,
    },
    /// Steps that do not fill the range.
    Step {
        /// Values in the range.
        range: i128,
        /// Values in a step.
        step: i128,
    },
    /// Too many steps.
    Buckets {
        /// How many.
        buckets: i128,
        /// Values in the range.
        range: i128,
    },
    /// Two maps with one name.
    Duplicate {
        /// The name.
        name: String,
        /// The first.
        first: Span,
    },
    /// More maps than there can be.
    TooMany,
    /// More memory than maps can have.
    TooLarge {
        /// Bytes on each CPU.
        bytes: u64,
    },
}

impl MapProblem {
    pub(super) fn explain(&self) -> Explanation {
        use MapProblem::*;
        match self {
            ExpectedComma { found } => say(
                format!("expected `,` or the end of the line, found {found}"),
                "unexpected here",
            )
            .help("a map is written `map NAME = KIND, OPTION = NUMBER, ...`"),
            ExpectedOption { found, known, near } => say(
                format!("expected an option of the map, found {found}"),
                format!("expected {}", one_of(known)),
            )
            .near("an option", near.as_deref()),
            OnlyLinear { option, kind } => say(
                format!("a `{kind}` map has no `{option}`"),
                "only `linear` maps have this",
            ),
            Missing { name, options } => say(
                format!("map `{name}` lacks {}", all_of(options)),
                "a linear histogram needs `min`, `max` and `step`",
            )
            .help("for 10 steps of 100 write `linear, min = 0, max = 1000, step = 100`"),
            Range { min, max } => say(
                format!("the range from {min} to below {max} is empty"),
                format!("expected more than {min}"),
            ),
            Step { range, step } => say(
                format!("steps of {step} do not fill a range of {range}"),
                format!("expected a divisor of {range}, which is `max` - `min`"),
            ),
            Buckets { buckets, range } => say(
                format!("{buckets} steps are too many"),
                format!("expected a step of at least {}", {
                    let most = i128::from(limits::MAP_BUCKETS_MAX);
                    range / most + i128::from(range % most != 0)
                }),
            )
            .note(format!(
                "a linear histogram has at most {} steps",
                limits::MAP_BUCKETS_MAX
            )),
            Duplicate { name, first } => {
                say(format!("two maps have the name `{name}`"), "used already").see(*first, "first used here")
            }
            TooMany => say(
                format!("a program has at most {} maps", limits::MAPS_MAX),
                "one too many",
            ),
            TooLarge { bytes } => say(
                format!("the maps take {bytes} bytes on each CPU"),
                format!("with this one more than {}", limits::MAP_BYTES_MAX),
            )
            .help("give it, or another map, fewer `entries`"),
        }
    }
}
