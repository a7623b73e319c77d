//! The same grammar as Sublime Text, bat and syntect read it: a TextMate grammar with contexts in place of nested patterns.

use serde_json::Value;
use std::fmt::Write;

/// A regular expression or a scope in YAML.
fn quoted(value: &Value) -> String {
    format!("'{}'", value.as_str().unwrap().replace('\'', "''"))
}

struct Writer {
    /// Contexts that are written when the one that needs them is done.
    contexts: Vec<(String, String)>,
}

pub fn from(grammar: &Value) -> String {
    let mut out = String::from("%YAML 1.2\n---\n# Made from the TextMate grammar by the tests of rpn-asm.\n");
    writeln!(out, "name: {}", grammar["name"].as_str().unwrap()).unwrap();
    writeln!(out, "file_extensions: [{}]", grammar["fileTypes"][0].as_str().unwrap()).unwrap();
    writeln!(out, "scope: {}\n\ncontexts:", grammar["scopeName"].as_str().unwrap()).unwrap();
    let mut writer = Writer { contexts: Vec::new() };
    let main = writer.patterns("main", &grammar["patterns"]);
    writer.contexts.insert(0, ("main".into(), main));
    for (name, rule) in grammar["repository"].as_object().unwrap() {
        let text = match rule.get("patterns").filter(|_| rule.get("begin").is_none()) {
            Some(patterns) => writer.patterns(name, patterns),
            None => writer.rule(name, 0, rule),
        };
        writer.contexts.push((name.clone(), text));
    }
    for (name, text) in &writer.contexts {
        write!(out, "  {name}:\n{text}").unwrap();
    }
    out
}

impl Writer {
    fn patterns(&mut self, context: &str, patterns: &Value) -> String {
        let rules = patterns.as_array().into_iter().flatten().enumerate();
        rules.map(|(n, rule)| self.rule(context, n, rule)).collect()
    }

    /// One rule of a context; `number` tells it from the others.
    fn rule(&mut self, context: &str, number: usize, rule: &Value) -> String {
        if let Some(include) = rule.get("include") {
            return format!("    - include: {}\n", include.as_str().unwrap().trim_start_matches('#'));
        }
        let mut out = String::new();
        if let Some(regex) = rule.get("match") {
            writeln!(out, "    - match: {}", quoted(regex)).unwrap();
            if let Some(scope) = rule.get("name") {
                writeln!(out, "      scope: {}", scope.as_str().unwrap()).unwrap();
            }
            out.push_str(&captures(rule.get("captures")));
            return out;
        }
        let inner = format!("{context}-{number}");
        writeln!(out, "    - match: {}", quoted(&rule["begin"])).unwrap();
        out.push_str(&captures(rule.get("beginCaptures")));
        writeln!(out, "      push: {inner}").unwrap();
        let mut text = format!("    - meta_scope: {}\n", rule["name"].as_str().unwrap());
        writeln!(text, "    - match: {}", quoted(&rule["end"])).unwrap();
        text.push_str(&captures(rule.get("endCaptures")));
        text.push_str("      pop: true\n");
        text.push_str(&self.patterns(&inner, &rule["patterns"]));
        self.contexts.push((inner, text));
        out
    }
}

fn captures(captures: Option<&Value>) -> String {
    let Some(all) = captures.and_then(Value::as_object) else {
        return String::new();
    };
    let mut out = String::from("      captures:\n");
    for (group, scope) in all {
        writeln!(out, "        {group}: {}", scope["name"].as_str().unwrap()).unwrap();
    }
    out
}
