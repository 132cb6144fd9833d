//! What differs by platform: signals, standard input and output as sockets or pipes, who may read a file,
//! where state is kept, the limit of descriptors. It leaves out everything that every platform has.

#[cfg(unix)]
mod unix;
#[cfg(not(unix))]
mod windows;

#[cfg(unix)]
pub(crate) use unix::{
    PrivateFolder, StopSignals, exit_of, has_display, make_private_folder, private_folder,
    raise_descriptor_limit, readers_beside_owner, state_folder, stdin, stdout, terminal_size, terminate,
    unbuffered_stdin,
};
#[cfg(not(unix))]
pub(crate) use windows::{
    StopSignals, exit_of, has_display, make_private_folder, raise_descriptor_limit, readers_beside_owner,
    state_folder, stdin, stdout, terminal_size, terminate,
};
