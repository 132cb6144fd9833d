//! The steps of a task: named, timed, and summed up at the end, whatever the end was.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// The steps that a task has taken so far.
#[derive(Default)]
pub(crate) struct Steps {
    taken: Vec<Step>,
}

struct Step {
    name: String,
    time: Duration,
    passed: bool,
}

impl Steps {
    /// Takes one step: says its name, does it, and remembers how long it took and how it ended.
    pub(crate) fn take<T>(
        &mut self,
        name: &str,
        step: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let result = step();
        self.taken.push(Step { name: name.to_owned(), time: start.elapsed(), passed: result.is_ok() });
        result
    }

    /// One line for each step and one for all of them.
    pub(crate) fn summary(&self) -> String {
        let width =
            self.taken.iter().map(|step| step.name.chars().count()).max().unwrap_or(0).max("total".len());
        let mut text = String::new();
        for step in &self.taken {
            let verdict = if step.passed { "" } else { "  failed" };
            // Writing into a String cannot fail.
            let _ = writeln!(text, "  {:width$}  {:>8}{verdict}", step.name, seconds(step.time));
        }
        let total = self.taken.iter().map(|step| step.time).sum();
        let _ = writeln!(text, "  {:width$}  {:>8}", "total", seconds(total));
        text
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_up_what_passed_and_what_failed() {
        let mut steps = Steps::default();
        assert!(steps.take("fine", || Ok(1)).is_ok());
        assert!(steps.take("not so fine", || -> anyhow::Result<()> { anyhow::bail!("no") }).is_err());
        let summary = steps.summary();
        let lines: Vec<&str> = summary.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("  fine         ") && !lines[0].contains("failed"));
        assert!(lines[1].starts_with("  not so fine  ") && lines[1].ends_with("failed"));
        assert!(lines[2].starts_with("  total"));
    }
}
