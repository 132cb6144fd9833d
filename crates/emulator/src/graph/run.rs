//! Carries a query out over rows. It leaves out where they come from and how a query is written.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::parse::{Case, Comparison, Direction, Expression, Function, Query, Stage, Step};
use super::{Refusal, Row};

/// What the query leaves of the rows.
pub(super) fn run(query: &Query, mut rows: Vec<Row>) -> Result<Vec<Row>, Refusal> {
    for stage in &query.stages {
        match stage {
            Stage::Where(condition) => rows.retain(|row| value(condition, row) == Value::Bool(true)),
            Stage::Extend(columns) => {
                for row in &mut rows {
                    let new: Vec<_> =
                        columns.iter().map(|(name, one)| (name.clone(), value(one, row))).collect();
                    row.extend(new);
                }
            }
            Stage::Project(columns) => rows = rows.iter().map(|row| projected(columns, row)).collect(),
            Stage::Distinct(columns) => {
                let mut seen: Vec<Row> = Vec::new();
                for row in rows.iter().map(|row| projected(columns, row)) {
                    if !seen.contains(&row) {
                        seen.push(row);
                    }
                }
                rows = seen;
            }
            Stage::OrderBy(keys) => rows.sort_by(|left, right| {
                let by = |(key, direction): &(Expression, Direction)| {
                    let order = compare(&value(key, left), &value(key, right));
                    if *direction == Direction::Ascending { order } else { order.reverse() }
                };
                keys.iter().map(by).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
            }),
            Stage::Take(count) => rows.truncate(*count),
            Stage::Count => {
                rows = vec![Row::from_iter([("Count".to_owned(), json!(rows.len()))])];
            }
        }
    }
    Ok(rows)
}

fn projected(columns: &[(String, Expression)], row: &Row) -> Row {
    columns.iter().map(|(name, one)| (name.clone(), value(one, row))).collect()
}

fn value(expression: &Expression, row: &Row) -> Value {
    let truth = |one: &Expression| value(one, row) == Value::Bool(true);
    match expression {
        Expression::Literal(literal) => literal.clone(),
        Expression::Path(column, steps) => {
            let start = row.get(column);
            let found = steps.iter().fold(start, |at, step| match step {
                Step::Key(key) => at?.get(key),
                Step::Index(index) => at?.get(index),
            });
            found.cloned().unwrap_or_default()
        }
        Expression::Call(function, arguments) => {
            let argument = arguments.first().map(|one| value(one, row)).unwrap_or_default();
            call(*function, &argument)
        }
        Expression::And(left, right) => (truth(left) && truth(right)).into(),
        Expression::Or(left, right) => (truth(left) || truth(right)).into(),
        Expression::Compare(how, left, right) => holds(*how, &value(left, row), &value(right, row)).into(),
        Expression::In { found, case, left, list } => {
            let left = value(left, row);
            let equal = Comparison::Equal { equal: true, case: *case };
            (list.iter().any(|one| holds(equal, &left, &value(one, row))) == *found).into()
        }
    }
}

fn call(function: Function, argument: &Value) -> Value {
    match function {
        Function::ToString => text(argument).into(),
        Function::ToLower => text(argument).to_lowercase().into(),
        Function::ToUpper => text(argument).to_uppercase().into(),
        Function::ArrayLength => argument.as_array().map_or(Value::Null, |list| json!(list.len())),
        Function::IsEmpty => text(argument).is_empty().into(),
        Function::IsNotEmpty => (!text(argument).is_empty()).into(),
        Function::IsNull => argument.is_null().into(),
        Function::IsNotNull => (!argument.is_null()).into(),
        Function::Not => (*argument == Value::Bool(false)).into(),
    }
}

fn holds(how: Comparison, left: &Value, right: &Value) -> bool {
    let texts = |case| match case {
        Case::Sensitive => (text(left), text(right)),
        Case::Insensitive => (text(left).to_lowercase(), text(right).to_lowercase()),
    };
    match how {
        Comparison::Equal { equal, case } => {
            let (left, right) = texts(case);
            (left == right) == equal
        }
        Comparison::Less { or_equal } => ordered(left, right, Ordering::Less, or_equal),
        Comparison::Greater { or_equal } => ordered(left, right, Ordering::Greater, or_equal),
        Comparison::Contains { found, case } => {
            let (left, right) = texts(case);
            left.contains(&right) == found
        }
        Comparison::StartsWith { found, case } => {
            let (left, right) = texts(case);
            left.starts_with(&right) == found
        }
        Comparison::EndsWith { found, case } => {
            let (left, right) = texts(case);
            left.ends_with(&right) == found
        }
    }
}

/// Nothing is neither less nor more than anything.
fn ordered(left: &Value, right: &Value, wanted: Ordering, or_equal: bool) -> bool {
    if left.is_null() || right.is_null() {
        return false;
    }
    let order = compare(left, right);
    order == wanted || (or_equal && order.is_eq())
}

fn compare(left: &Value, right: &Value) -> Ordering {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left.total_cmp(&right),
        _ => text(left).cmp(&text(right)),
    }
}

/// As `tostring` has it: nothing for null, JSON for what is more than a value.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn rows() -> Vec<Row> {
        let row = |name: &str, kind: &str, properties: Value| {
            let mut row: Row =
                super::super::COLUMNS.iter().map(|one| ((*one).to_owned(), Value::Null)).collect();
            row.extend([
                ("id".to_owned(), json!(format!("/s/{name}"))),
                ("name".to_owned(), json!(name)),
                ("type".to_owned(), json!(kind)),
                ("properties".to_owned(), properties),
            ]);
            row
        };
        vec![
            row(
                "Web-01",
                "microsoft.compute/virtualmachines",
                json!({"size": 2, "odd.key": "x", "tags": ["a", "b"]}),
            ),
            row("web-02", "microsoft.compute/virtualmachines", json!({"size": 10, "tags": []})),
            row("it's\\\"", "microsoft.network/virtualnetworks", json!({"peer": {"id": "/S/Net"}})),
        ]
    }

    fn names(query: &str) -> Vec<String> {
        let query = parse::query(query).unwrap_or_else(|refusal| panic!("{query}: {refusal:?}"));
        let found = run(&query, rows()).unwrap();
        found.iter().map(|row| text(row.values().next().unwrap_or(&Value::Null))).collect()
    }

    #[test]
    fn what_people_write_is_answered() {
        #[track_caller]
        fn check(query: &str, expected: &[&str]) {
            assert_eq!(names(&format!("{query} | project name")), expected, "{query}");
        }
        check("resources", &["Web-01", "web-02", "it's\\\""]);
        check("Resources | where type =~ 'Microsoft.Compute/virtualMachines'", &["Web-01", "web-02"]);
        check("where name == 'web-01'", &[]);
        check("where name =~ 'web-01'", &["Web-01"]);
        check("where name !~ 'web-01' and type contains 'COMPUTE'", &["web-02"]);
        check("where type in~ ('microsoft.Network/virtualnetworks', \"x\")", &["it's\\\""]);
        check("where name !in ('Web-01') and not(type endswith 'networks')", &["web-02"]);
        check("where name =~ 'IT\\'S\\\\\"'", &["it's\\\""]);
        check("where name == \"it's\\\\\\\"\"", &["it's\\\""]);
        check("where name startswith @'it' // a remark\n | take 1", &["it's\\\""]);
        check("where properties.size > 2", &["web-02"]);
        check(
            "where properties.size <= 2 or tostring(properties.peer.id) endswith '/net'",
            &["Web-01", "it's\\\""],
        );
        check("where properties['odd.key'] == 'x' and properties.tags[1] == 'b'", &["Web-01"]);
        check("where array_length(properties.tags) > 0", &["Web-01"]);
        check("where isnull(properties.peer) | order by name asc", &["Web-01", "web-02"]);
        check("sort by name", &["web-02", "it's\\\"", "Web-01"]);
        check("extend big = properties.size >= 10 | where big == true", &["web-02"]);
        assert_eq!(names("resources | distinct type").len(), 2);
        assert_eq!(names("resources | count"), ["3"]);
        let query = parse::query("resources | project tostring(properties.peer.id), x = name").unwrap();
        assert!(run(&query, rows()).unwrap()[0].contains_key("properties_peer_id"));
        assert!(query.shows("x") && !query.shows("id"));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_its_name() {
        #[track_caller]
        fn check(query: &str, code: &str, token: &str) {
            let refusal = parse::query(query).unwrap_err().body();
            let detail = &refusal["error"]["details"][1];
            let said = detail.to_string();
            assert_eq!(detail["code"], code, "{query}: {said}");
            assert!(said.contains(token), "{query}: {said}");
        }
        check("resources | join kind=leftouter x on id", "InvalidQueryLanguage", "join");
        check("resources | mv-expand properties", "InvalidQueryLanguage", "mv-expand");
        check("summarize count() by type", "InvalidQueryLanguage", "summarize");
        check("securityresources | take 1", "InvalidQueryLanguage", "securityresources");
        check("resources | where name has 'x'", "InvalidQueryLanguage", "has");
        check("resources | where strcat(name) == 'x'", "InvalidQueryLanguage", "strcat");
        check("resources | where name = 'x'", "ParserFailure", "=");
        check("resources | where name =~ 'it's'", "ParserFailure", "s");
        check("resources | where name =~ 'x", "ParserFailure", "<EOF>");
        check("resources |\n where", "ParserFailure", "\"line\":2");
        check("resources | take x", "ParserFailure", "x");
        check("resources | where nam =~ 'x'", "Default", "'nam'");
        check("resources | project id | where name == 'x'", "Default", "'name'");
        check(&format!("resources | where {}", "(".repeat(1000)), "InvalidQueryLanguage", "(");
    }
}
