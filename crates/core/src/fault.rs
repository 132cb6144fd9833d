//! Whose fault an error is: the one question that exit codes, retries and reports ask of every error. It
//! leaves out the errors themselves.

/// The class of an error, as `cli.md` ("Exit codes") tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A bug or a limit of ours.
    Ours,
    /// A malformed argument, flag or configuration.
    Usage,
    /// Not signed in, or the sign-in was refused.
    SignIn,
    /// Signed in, but a right is missing.
    Right,
    /// The Bastion host's SKU or settings refuse it.
    Settings,
    /// Bastion host, VM or subscription not found, or the VM is off.
    NotFound,
    /// Name resolution, TCP, proxy or TLS.
    Network,
    /// The Bastion service or ARM fails.
    Service,
    /// The VM refused or closed the port.
    Vm,
    /// A time limit that the user set ran out.
    Timeout,
}

impl Fault {
    /// Its number: the exit code of the command line (cli.md, "Exit codes"), and the code of an error in C.
    pub const fn code(self) -> u8 {
        match self {
            Fault::Ours => 1,
            Fault::Usage => 2,
            Fault::SignIn => 10,
            Fault::Right => 11,
            Fault::Settings => 12,
            Fault::NotFound => 13,
            Fault::Network => 20,
            Fault::Service => 21,
            Fault::Vm => 22,
            Fault::Timeout => 124,
        }
    }
}
