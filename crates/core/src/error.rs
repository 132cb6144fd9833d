//! What can be wrong with words that a user typed. It leaves out refusals of the service ([`crate::Refusal`])
//! and of sign-in ([`crate::AuthError`]).

use crate::Fault;

/// A word that does not mean what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not an ARM resource id.
    #[error("'{text}' is not a resource id: {reason}")]
    ResourceId {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not a private IPv4 address.
    #[error("'{text}' is not an IP address that Bastion can reach: {reason}")]
    Address {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not a cloud.
    #[error("'{text}' is not a cloud: {reason}")]
    Cloud {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Error::ResourceId { .. } => {
                "copy it from the portal (\"JSON View\" of the VM) or from `az vm show \
                 --query id`: /subscriptions/SUBSCRIPTION/resourceGroups/GROUP/providers/\
                 Microsoft.Compute/virtualMachines/NAME"
                    .into()
            }
            Error::Address { .. } => {
                "give the VM's private IPv4 address, such as 10.0.0.4, or its resource id with \
                 --target-resource-id"
                    .into()
            }
            Error::Cloud { .. } => {
                "use AzureCloud, AzureUSGovernment, AzureChinaCloud, or the https:// address \
                 of the cloud's resource manager"
                    .into()
            }
        }
    }

    /// Whose fault it is: always that of the words.
    pub fn fault(&self) -> Fault {
        Fault::Usage
    }
}
