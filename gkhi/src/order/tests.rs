use std::ffi::CString;
use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    name: Name,
    options: u32,
}

impl Ranked for Entry {
    fn name(&self) -> Name {
        self.name
    }
    fn options(&self) -> u32 {
        self.options
    }
}

fn name(index: usize) -> Name {
    static NAMES: OnceLock<Vec<CString>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        (0..8)
            .map(|index| CString::new(format!("exit{index}")).unwrap())
            .collect()
    });
    Name::new(&names[index])
}

#[derive(Debug, Clone)]
enum Step {
    Register(usize, u32),
    Deregister(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let option = prop::sample::select(vec![
        0,
        0,
        options::QUEUE_LIFO,
        options::QUEUE_LIFO,
        options::PRIORITY_FIRST,
        options::PRIORITY_FIRST | options::QUEUE_LIFO,
        options::PRIORITY_LAST,
        options::PRIORITY_LAST | options::QUEUE_LIFO,
        options::EXCLUSIVE,
        options::PRIORITY_FIRST | options::PRIORITY_LAST,
        1,
    ]);
    let step = prop_oneof![
        3 => (0..8usize, option).prop_map(|(index, options)| Step::Register(index, options)),
        1 => (0..8usize).prop_map(Step::Deregister),
    ];
    prop::collection::vec(step, 0..40)
}

/// The documented order, worked out anew from all registrations in their order: the first one, LIFO ones from the youngest to the oldest,
/// the others from the oldest to the youngest, the last one.
fn documented(registered: &[Entry]) -> Vec<Entry> {
    let rank = |entry: &Entry| match entry.options {
        options if options & options::PRIORITY_FIRST != 0 => 0,
        options if options & options::PRIORITY_LAST != 0 => 3,
        options if options & options::QUEUE_LIFO != 0 => 1,
        _ => 2,
    };
    let mut order = Vec::new();
    for class in 0..4 {
        let mut of_class: Vec<Entry> = registered
            .iter()
            .filter(|entry| rank(entry) == class)
            .cloned()
            .collect();
        if class == 1 {
            of_class.reverse();
        }
        order.extend(of_class);
    }
    order
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_sequence_gives_the_documented_order_or_error(steps in steps(), exclusive in prop::bool::weighted(0.1)) {
        let mut list: Vec<Entry> = Vec::new();
        let mut registered: Vec<Entry> = Vec::new();
        for step in steps {
            match step {
                Step::Deregister(index) => {
                    list.retain(|entry| entry.name != name(index));
                    registered.retain(|entry| entry.name != name(index));
                }
                Step::Register(index, options) => {
                    let new = Entry { name: name(index), options };
                    let with = |option: u32| registered.iter().find(|entry| entry.options & option != 0).map(Entry::name);
                    let both = options::PRIORITY_FIRST | options::PRIORITY_LAST;
                    let expected = if options & !options::ALL != 0 || options & both == both {
                        Some(Error::BadOptions { options })
                    } else if exclusive && !registered.is_empty() {
                        Some(Error::HookTaken { by: registered[0].name })
                    } else if registered.iter().any(|entry| entry.name == new.name) {
                        Some(Error::NameTaken { name: new.name })
                    } else if options & options::PRIORITY_FIRST != 0 && with(options::PRIORITY_FIRST).is_some() {
                        with(options::PRIORITY_FIRST).map(|by| Error::FirstTaken { by })
                    } else if options & options::PRIORITY_LAST != 0 && with(options::PRIORITY_LAST).is_some() {
                        with(options::PRIORITY_LAST).map(|by| Error::LastTaken { by })
                    } else {
                        None
                    };
                    let result = position(&new, exclusive, list.iter());
                    match expected {
                        Some(error) => prop_assert_eq!(result, Err(error)),
                        None => {
                            let index = result.unwrap();
                            list.insert(index, new.clone());
                            registered.push(new);
                        }
                    }
                }
            }
            prop_assert_eq!(&list, &documented(&registered));
        }
    }
}
