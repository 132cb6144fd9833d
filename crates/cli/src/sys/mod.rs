//! What differs by platform: signals, standard input and output as sockets or pipes, who may read a file,
//! where state and settings are kept, the terminal, the limit of descriptors. It leaves out everything that every platform has.

#[cfg(unix)]
pub(crate) mod systemd;
#[cfg(unix)]
mod unix;
#[cfg(not(unix))]
mod windows;

#[cfg(unix)]
pub(crate) use unix::{
    Echo, HANG_UP, HangUps, PassedSignals, PrivateFolder, StopSignals, ask_on_terminal, configuration_folder,
    exit_of, has_display, is_executable, keep_stdout, lockable, make_alike, make_private_folder, pass_signal,
    places_folder, private_folder, raise_descriptor_limit, readers_beside_owner, settle_stdout, shell_quoted,
    split, state_folder, stdin, stdout, stdout_columns, stdout_for_child, stdout_lines, terminal_size,
    unbuffered_stdin,
};
#[cfg(not(unix))]
pub(crate) use windows::{
    Echo, HANG_UP, HangUps, PassedSignals, PrivateFolder, StopSignals, ask_on_terminal, configuration_folder,
    exit_of, has_display, is_executable, keep_stdout, lockable, make_alike, make_private_folder, pass_signal,
    places_folder, private_folder, raise_descriptor_limit, readers_beside_owner, settle_stdout, shell_quoted,
    split, state_folder, stdin, stdout, stdout_columns, stdout_for_child, stdout_lines, systemd,
    terminal_size,
};
