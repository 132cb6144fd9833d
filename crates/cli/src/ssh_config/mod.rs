//! `bastide ssh-config`: `Host` blocks with which plain ssh, and whatever calls it, goes through Bastion. It leaves out the
//! lines (`block`) and the files (`own_file`).

mod block;
mod own_file;

use std::ffi::OsString;

use bastide::Environment;
use serde_json::json;

use self::block::{Block, Certificates};
use self::own_file::SshFolder;
use crate::arguments::{Command, Global, SshConfig, Words};
use crate::exit::{Exit, Failure};
use crate::report::Reporter;
use crate::setup;
use crate::signals::Signals;

/// Prints blocks, or writes, renews or removes them.
pub(crate) fn run(global: &Global, wanted: &SshConfig, reporter: &Reporter) -> Result<Exit, Failure> {
    let folder = SshFolder::of_user()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    setup::block_on(runtime, global, async {
        let signals = Signals::listen(reporter).map_err(Failure::system("signals cannot be received"))?;
        let doing = async {
            match wanted.remove.as_slice() {
                [] => make(global, wanted, &folder, reporter).await,
                names => remove(&folder, names, reporter).await,
            }
        };
        tokio::select! {
            done = doing => done,
            () = signals.stop().cancelled_owned() => Ok(signals.received().map_or(Exit::Done, Exit::Signal)),
        }
    })
}

async fn make(
    global: &Global,
    wanted: &SshConfig,
    folder: &SshFolder,
    reporter: &Reporter,
) -> Result<Exit, Failure> {
    let certificates = if wanted.write { Certificates::Written } else { Certificates::Shown };
    let lines = command_lines(wanted)?;
    if wanted.write && lines.is_empty() {
        return renew(folder, reporter).await;
    }
    let mut made = Vec::new();
    // Without a word, the one that setup complains about.
    if lines.is_empty() {
        made.push(block::make(global, wanted, Vec::new(), certificates, folder.path(), reporter).await?);
    }
    for words in lines {
        made.push(again(words, certificates, folder, reporter).await?);
    }
    for (index, block) in made.iter().enumerate() {
        if made.iter().take(index).any(|other| other.name == block.name && other.vm != block.vm) {
            return Err(taken(&block.name));
        }
    }
    if !wanted.write {
        for Block { name, text, .. } in &made {
            reporter.data(text);
            reporter.event("host", json!({"name": name, "block": text}));
        }
        return Ok(Exit::Done);
    }
    let _alone = folder.lock().await?;
    let mut blocks = folder.blocks()?;
    for block in made.iter().cloned() {
        put(&mut blocks, block)?;
    }
    folder.write(&blocks)?;
    for block in &made {
        told(block, folder, reporter);
    }
    Ok(Exit::Done)
}

/// Makes all blocks anew by the command lines that they came from. One that cannot be made stays as it is.
async fn renew(folder: &SshFolder, reporter: &Reporter) -> Result<Exit, Failure> {
    let mut made = Vec::new();
    let mut failed = None;
    for Block { name, words, .. } in folder.blocks()? {
        match again(words, Certificates::Written, folder, reporter).await {
            Ok(block) => made.push(Block { name, ..block }),
            Err(failure) => {
                reporter.warn(&format!("the block of {name} stays as it was: {failure}"));
                failed.get_or_insert(failure);
            }
        }
    }
    let _alone = folder.lock().await?;
    let mut blocks = folder.blocks()?;
    for block in &made {
        // One that was removed meanwhile stays removed.
        if let Some(old) = blocks.iter_mut().find(|old| old.name == block.name) {
            *old = block.clone();
            told(block, folder, reporter);
        }
    }
    folder.write(&blocks)?;
    failed.map_or(Ok(Exit::Done), Err)
}

async fn remove(folder: &SshFolder, names: &[String], reporter: &Reporter) -> Result<Exit, Failure> {
    let _alone = folder.lock().await?;
    let mut blocks = folder.blocks()?;
    for name in names {
        if !blocks.iter().any(|block| block.name == *name) {
            let there: Vec<&str> = blocks.iter().map(|block| block.name.as_str()).collect();
            return Err(Failure::usage(
                format!("there is no block '{name}' in '{}'", folder.own_file().display()),
                if there.is_empty() {
                    "there is none".to_owned()
                } else {
                    format!("there are {}", there.join(", "))
                },
            ));
        }
    }
    blocks.retain(|block| !names.contains(&block.name));
    folder.write(&blocks)?;
    for name in names {
        reporter.say(&format!("{name} is gone from {}", folder.own_file().display()));
        reporter.event("removed", json!({"name": name, "file": folder.own_file()}));
    }
    Ok(Exit::Done)
}

fn told(block: &Block, folder: &SshFolder, reporter: &Reporter) {
    let file = folder.own_file();
    reporter.say(&format!("{name} is in {}; try `ssh {name}`", file.display(), name = block.name));
    reporter.event("written", json!({"name": block.name, "file": file}));
}

/// Puts a block in the place of an older one for the same VM, or behind all others.
fn put(blocks: &mut Vec<Block>, block: Block) -> Result<(), Failure> {
    match blocks.iter_mut().find(|old| old.name == block.name) {
        Some(old) if old.vm != block.vm => Err(taken(&block.name)),
        Some(old) => {
            *old = block;
            Ok(())
        }
        None => {
            blocks.push(block);
            Ok(())
        }
    }
}

fn taken(name: &str) -> Failure {
    Failure::usage(
        format!("{name} is the name of another VM already"),
        format!(
            "choose another one with --alias, or remove that VM first: bastide ssh-config --remove {name}"
        ),
    )
}

/// The command line of each VM that is named: what was typed, with one VM each, so that the configuration's [hosts.NAME]
/// holds for each by itself.
fn command_lines(wanted: &SshConfig) -> Result<Vec<Vec<String>>, Failure> {
    let flags = Words::of_process().flags_that_stay()?;
    let place = &wanted.place;
    if let Some(first) = &place.target {
        if wanted.alias.is_some() && !wanted.more.is_empty() {
            return Err(Failure::usage("--alias names one VM, and several are given", "give one VM"));
        }
        let targets = std::iter::once(first).chain(&wanted.more);
        return Ok(targets.map(|target| flags.iter().chain([target]).cloned().collect()).collect());
    }
    let is_named = place.target_resource_id.is_some() || place.target_ip_address.is_some();
    Ok(if is_named { vec![flags] } else { Vec::new() })
}

/// Makes the block of one such command line.
async fn again(
    words: Vec<String>,
    certificates: Certificates,
    folder: &SshFolder,
    reporter: &Reporter,
) -> Result<Block, Failure> {
    let line = ["bastide", "ssh-config"].into_iter().chain(words.iter().map(String::as_str));
    let line = Words::new(line.map(OsString::from).collect());
    let (command, global) = line.configured(&Environment::of_process())?;
    let Command::SshConfig(wanted) = command else {
        return Err(Failure::usage(
            "this is no command line for ssh-config",
            "see `bastide ssh-config --help`",
        ));
    };
    block::make(&global, &wanted, words, certificates, folder.path(), reporter).await
}
