//! `bastide plugin`: which plugins the configuration names, and why one would not be loaded. It leaves out using them.

use std::path::Path;

use bastide::Fault;
use bastide::plugin::{PluginFile, PluginSettings, Unfit, examine};
use serde_json::json;

use crate::arguments::{Global, PluginTask};
use crate::exit::{Exit, Failure};
use crate::report::Reporter;
use crate::sys;

/// Shows them, or checks one.
pub(crate) fn run(global: &Global, task: Option<&PluginTask>, reporter: &Reporter) -> Result<Exit, Failure> {
    let plugins = match task {
        None | Some(PluginTask::List) => global.configuration.plugins.clone(),
        Some(PluginTask::Check { file }) => vec![PluginSettings::new("", absolute(file))],
    };
    // A library may print when it is loaded.
    sys::keep_stdout().map_err(Failure::system("standard output cannot be kept from plugins"))?;
    if plugins.is_empty() {
        reporter.say("The configuration names no plugins");
    }
    let mut exit = Exit::Done;
    for plugin in &plugins {
        match examine(&plugin.path) {
            Ok(file) => fit(plugin, &file, reporter),
            Err(reasons) => {
                unfit(plugin, &reasons, reporter);
                exit = Exit::Failed(Fault::Usage);
            }
        }
    }
    Ok(exit)
}

/// On the command line a path may be relative; in the configuration it may not.
fn absolute(file: &Path) -> std::path::PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}

fn fit(plugin: &PluginSettings, file: &PluginFile, reporter: &Reporter) {
    let (path, calls_itself, interface) = (plugin.path.display(), file.name(), file.interface());
    reporter.data(&format!("{}{path}: {calls_itself}, plugin interface {interface}", label(plugin)));
    reporter.event(
        "plugin",
        json!({
            "name": name(plugin), "path": plugin.path, "fit": true, "calls_itself": calls_itself,
            "interface": interface, "reasons": [],
        }),
    );
}

fn unfit(plugin: &PluginSettings, reasons: &[Unfit], reporter: &Reporter) {
    reporter.data(&format!("{}{}: is not loaded", label(plugin), plugin.path.display()));
    for reason in reasons {
        reporter.data(&format!("  {reason}\n    hint: {}", reason.hint()));
    }
    let reasons: Vec<serde_json::Value> =
        reasons.iter().map(|reason| json!({"message": reason.to_string(), "hint": reason.hint()})).collect();
    reporter.event(
        "plugin",
        json!({"name": name(plugin), "path": plugin.path, "fit": false, "reasons": reasons}),
    );
}

fn name(plugin: &PluginSettings) -> Option<&str> {
    Some(plugin.name.as_str()).filter(|name| !name.is_empty())
}

fn label(plugin: &PluginSettings) -> String {
    name(plugin).map_or_else(String::new, |name| format!("{name}  "))
}
