//! `bastide config show`: which value each flag has where it is left out, and where that stands. It leaves out reading
//! the file.

use bastide::Environment;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches};
use serde_json::json;

use crate::arguments::{ConfigTask, Global, Words};
use crate::configuration::{self, Effective};
use crate::exit::{Exit, Failure};
use crate::report::Reporter;

/// Shows them.
pub(crate) fn run(global: &Global, task: &ConfigTask, reporter: &Reporter) -> Result<Exit, Failure> {
    let ConfigTask::Show { target } = task;
    let configuration = &global.configuration;
    if let Some(path) = &configuration.path {
        let there = if path.exists() { "" } else { ", which is not there" };
        reporter.say(&format!("The configuration file is {}{there}", path.display()));
    }
    let effective = configuration.flags.for_target(target.as_deref(), global.profile.as_deref())?;
    let environment = Environment::of_process();
    let words = Words::of_process();
    let (definition, matches) = words.definition_and_matches()?;
    let mut rows = Vec::new();
    if let Some(target) = target {
        let stands_for = configuration.flags.stands_for(target);
        if stands_for != target {
            rows.push(Row::new("target", stands_for, format!("[hosts.{target}]")));
        }
    }
    for (flag, (_, arg)) in configuration::all(&definition) {
        rows.extend(row(flag, arg, &matches, &effective, &environment));
    }
    let width = |of: fn(&Row) -> &str| rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0);
    let (first, second) = (width(|row| &row.flag), width(|row| &row.value));
    for Row { flag, value, source } in &rows {
        reporter.data(&format!("{flag:first$}  {value:second$}  {source}"));
        reporter.event("setting", json!({"flag": flag, "value": value, "source": source}));
    }
    Ok(Exit::Done)
}

struct Row {
    flag: String,
    value: String,
    source: String,
}

impl Row {
    fn new(flag: &str, value: &str, source: String) -> Self {
        // A password in it is for nobody's eyes.
        let value = if flag == "proxy" { without_password(value) } else { value.to_owned() };
        Self { flag: flag.to_owned(), value, source }
    }
}

/// In the order in which they count: what was typed, `[hosts]`, the environment, the rest of the file, what holds for
/// everybody.
fn row(
    flag: &str,
    arg: &Arg,
    matches: &ArgMatches,
    effective: &Effective<'_>,
    environment: &Environment,
) -> Option<Row> {
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let id = arg.get_id().as_str();
    let is_ours = matches.ids().any(|known| known.as_str() == id);
    if is_ours && matches.value_source(id) == Some(ValueSource::CommandLine) {
        let typed: Vec<_> =
            matches.get_raw(id).into_iter().flatten().map(|value| value.to_string_lossy()).collect();
        return Some(Row::new(flag, &typed.join(" "), format!("--{flag}")));
    }
    let in_file = effective.value(flag, &|name| set(name).is_some());
    let own_variable = arg.get_env().and_then(|name| name.to_str());
    let variable = own_variable
        .filter(|name| set(name).is_some())
        .or_else(|| configuration::shadow(flag, &|name| set(name).is_some()));
    match (in_file, variable) {
        (Some((values, source)), variable) if variable.is_none() || source.is_host() => {
            Some(Row::new(flag, &values.join(" "), source.to_string()))
        }
        (_, Some(name)) => Some(Row::new(flag, set(name).unwrap_or_default(), name.to_owned())),
        (_, None) => {
            let defaults: Vec<_> =
                arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
            let is_flag = !arg.get_action().takes_values();
            (!defaults.is_empty() && !is_flag)
                .then(|| Row::new(flag, &defaults.join(" "), "built in".to_owned()))
        }
    }
}

fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    match rest.rsplit_once('@').map(|(user, host)| (user.split_once(':'), host)) {
        Some((Some((user, _)), host)) => format!("{scheme}://{user}:…@{host}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_proxies_are_left_out() {
        let check = |url: &str, shown: &str| assert_eq!(without_password(url), shown);
        check("http://me:p@ss@proxy:3128", "http://me:…@proxy:3128");
        check("http://me@proxy:3128", "http://me@proxy:3128");
        check("http://proxy:3128", "http://proxy:3128");
        check("proxy", "proxy");
    }
}
