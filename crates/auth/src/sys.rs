//! What differs by platform: ending a child together with the processes that it started. It leaves out
//! everything else.

use std::io;

use tokio::process::{Child, Command};

/// Starts a child that dies with the returned guard, unless [`Guard::disarm`] is called first.
pub(crate) fn spawn(mut command: Command) -> io::Result<(Child, Guard)> {
    command.kill_on_drop(true);
    imp::isolate(&mut command);
    let child = command.spawn()?;
    let guard = Guard(imp::group(&child));
    Ok((child, guard))
}

/// Kills the child's process group when it is dropped; it has to be disarmed once the child was waited for.
pub(crate) struct Guard(Option<imp::Group>);

impl Guard {
    /// The child has ended by itself: its number may soon be somebody else's.
    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            imp::kill(group);
        }
    }
}

#[cfg(unix)]
mod imp {
    use rustix::process::{Pid, Signal, kill_process_group};
    use tokio::process::{Child, Command};

    pub(super) type Group = Pid;

    /// A group of its own: `az` is a shell script that starts Python, under a shell that azure_identity starts.
    pub(super) fn isolate(command: &mut Command) {
        command.process_group(0);
    }

    pub(super) fn group(child: &Child) -> Option<Group> {
        Pid::from_raw(i32::try_from(child.id()?).ok()?)
    }

    pub(super) fn kill(group: Group) {
        // It fails when everybody in it has gone, which is what is wanted.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// A group needs a job object and with it unsafe code: here only the shell is killed, by tokio.
#[cfg(not(unix))]
mod imp {
    use tokio::process::{Child, Command};

    pub(super) enum Group {}

    pub(super) fn isolate(_: &mut Command) {}

    pub(super) fn group(_: &Child) -> Option<Group> {
        None
    }

    pub(super) fn kill(group: Group) {
        match group {}
    }
}
