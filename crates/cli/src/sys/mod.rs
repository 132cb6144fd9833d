//! What differs by platform: signals, standard input and output as sockets or pipes, who may read a file,
//! where state and settings are kept, the terminal, the limit of descriptors. It leaves out everything that every platform has.

#[cfg(unix)]
mod unix;
#[cfg(not(unix))]
mod windows;

#[cfg(unix)]
pub(crate) use unix::{
    Echo, PrivateFolder, StopSignals, ask_on_terminal, configuration_folder, exit_of, has_display,
    keep_stdout, make_private_folder, places_folder, private_folder, raise_descriptor_limit,
    readers_beside_owner, settle_stdout, state_folder, stdin, stdout, stdout_columns, stdout_for_child,
    stdout_lines, terminal_size, terminate, unbuffered_stdin,
};
#[cfg(not(unix))]
pub(crate) use windows::{
    Echo, StopSignals, ask_on_terminal, configuration_folder, exit_of, has_display, keep_stdout,
    make_private_folder, places_folder, raise_descriptor_limit, readers_beside_owner, settle_stdout,
    state_folder, stdin, stdout, stdout_columns, stdout_for_child, stdout_lines, terminal_size, terminate,
};
