//! Places that a program can find itself in, as environment variables: what leads an Azure SDK, or
//! bastide, to each way of signing in. The endpoints themselves are `identity` and `oidc`.

use crate::azure::Azure;
use crate::identity::{APP_SERVICE, ARC, ARC_FOLDER, CLOUD_SHELL};
use crate::oidc::{GITHUB, PIPELINES, SERVICE_CONNECTION};
use crate::state::{self, State};

/// A place that a program runs in. Each needs variables of its own, besides those of `env.sh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surroundings {
    /// An App Service or a Function, with a managed identity.
    AppService,
    /// A server with the Azure Arc agent.
    Arc,
    /// Azure Cloud Shell.
    CloudShell,
    /// A pod with workload identity: a federated token in a file.
    Kubernetes,
    /// A job of GitHub Actions with `id-token: write`.
    GithubActions,
    /// A task of Azure Pipelines with a service connection.
    AzurePipelines,
    /// Any place, with the certificate of the first service principal.
    ClientCertificate,
}

impl Surroundings {
    /// All of them.
    pub const ALL: [Surroundings; 7] = [
        Surroundings::AppService,
        Surroundings::Arc,
        Surroundings::CloudShell,
        Surroundings::Kubernetes,
        Surroundings::GithubActions,
        Surroundings::AzurePipelines,
        Surroundings::ClientCertificate,
    ];

    /// Name of its file below `env/` of the state folder, without `.sh`.
    pub fn name(self) -> &'static str {
        match self {
            Surroundings::AppService => "app-service",
            Surroundings::Arc => "arc",
            Surroundings::CloudShell => "cloud-shell",
            Surroundings::Kubernetes => "kubernetes",
            Surroundings::GithubActions => "github-actions",
            Surroundings::AzurePipelines => "azure-pipelines",
            Surroundings::ClientCertificate => "client-certificate",
        }
    }
}

/// File of the service account's token in the state folder.
const FEDERATED_TOKEN: &str = "federated-token";
/// Certificate and private key of the first service principal, PEM, in the state folder.
pub(crate) const CLIENT_CERTIFICATE: &str = "client-certificate.pem";

/// The variables of a place.
pub(crate) fn environment(azure: &Azure, state: &State, place: Surroundings) -> Vec<(String, String)> {
    let (url, plain) = (&azure.url, &azure.plain_url);
    let path = |name: &str| state.path(name).display().to_string();
    let application = azure
        .inventory
        .principals
        .first()
        .filter(|first| azure.inventory.application(&first.tenant, &first.name).is_some());
    let (tenant, client) =
        application.map_or_else(Default::default, |first| (first.tenant.clone(), first.name.clone()));
    let variables = match place {
        Surroundings::AppService => vec![
            ("IDENTITY_ENDPOINT", format!("{plain}{APP_SERVICE}")),
            ("IDENTITY_HEADER", azure.identity.header.expose().to_owned()),
        ],
        Surroundings::Arc => {
            vec![
                ("IDENTITY_ENDPOINT", format!("{plain}{ARC}")),
                ("IMDS_ENDPOINT", format!("{plain}/arc")),
                // The agent's own folder is root's; only bastide can be told of another.
                ("BASTIDE_ARC_KEY_FOLDER", path(ARC_FOLDER)),
            ]
        }
        Surroundings::CloudShell => vec![("MSI_ENDPOINT", format!("{plain}{CLOUD_SHELL}"))],
        Surroundings::Kubernetes => vec![
            ("AZURE_TENANT_ID", tenant),
            ("AZURE_CLIENT_ID", client),
            ("AZURE_FEDERATED_TOKEN_FILE", path(FEDERATED_TOKEN)),
        ],
        Surroundings::GithubActions => vec![
            ("AZURE_TENANT_ID", tenant),
            ("AZURE_CLIENT_ID", client),
            ("ACTIONS_ID_TOKEN_REQUEST_URL", format!("{url}{GITHUB}")),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", azure.job_token.expose().to_owned()),
        ],
        Surroundings::AzurePipelines => vec![
            ("AZURESUBSCRIPTION_TENANT_ID", tenant),
            ("AZURESUBSCRIPTION_CLIENT_ID", client),
            ("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID", SERVICE_CONNECTION.to_owned()),
            ("SYSTEM_OIDCREQUESTURI", format!("{url}{PIPELINES}")),
            ("SYSTEM_ACCESSTOKEN", azure.job_token.expose().to_owned()),
        ],
        Surroundings::ClientCertificate => vec![
            ("AZURE_TENANT_ID", tenant),
            ("AZURE_CLIENT_ID", client),
            ("AZURE_CLIENT_CERTIFICATE_PATH", path(CLIENT_CERTIFICATE)),
        ],
    };
    variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Writes the files that the variables name, and the variables of each place for a shell.
pub(crate) fn write(azure: &Azure, state: &State) -> Result<(), crate::Error> {
    let token = crate::oidc::service_account_token(&azure.issuer, &azure.url)?;
    state.write(FEDERATED_TOKEN, &token)?;
    state.subfolder("env")?;
    for place in Surroundings::ALL {
        let variables = environment(azure, state, place);
        // One of the others would win over the place that is tried.
        let unset = format!("unset {}\n", WITHOUT.join(" "));
        let text = format!("{unset}{}", crate::shell(&variables));
        write_file(state, place, &text)?;
    }
    Ok(())
}

fn write_file(state: &State, place: Surroundings, text: &str) -> Result<(), state::Error> {
    state.write(&format!("env/{}.sh", place.name()), text)
}

/// Variables by which an SDK would choose another way than the one that is tried.
const WITHOUT: [&str; 13] = [
    "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_FEDERATED_TOKEN_FILE",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "IMDS_ENDPOINT",
    "BASTIDE_ARC_KEY_FOLDER",
    "MSI_ENDPOINT",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "SYSTEM_OIDCREQUESTURI",
    "SYSTEM_ACCESSTOKEN",
    "AZURE_CLIENT_ID",
];
