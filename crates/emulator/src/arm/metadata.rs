//! `/metadata/endpoints`: where a cloud's services are. The Azure CLI, Terraform's provider and
//! bastide's `--cloud URL` start here. Three generations of the document are in use.

use serde_json::{Value, json};

use crate::azure::Azure;

/// The document of an api-version: until 2018 an object without a name (the form of Azure Stack), in
/// 2019 and 2020 a list of clouds, since 2022-09-01 one cloud, which is what `az cloud register` of
/// Azure CLI 2.91 reads.
pub(super) fn endpoints(azure: &Azure, version: &str) -> Value {
    match version {
        old if old < "2019" => json!({
            "galleryEndpoint": azure.url, "graphEndpoint": azure.url, "portalEndpoint": azure.url,
            "authentication": {"loginEndpoint": azure.url, "audiences": audiences(azure)},
        }),
        lists if lists < "2022" => json!([cloud(azure)]),
        _ => cloud(azure),
    }
}

fn cloud(azure: &Azure) -> Value {
    let url = &azure.url;
    json!({
        "name": "BastideEmulator",
        "portal": url,
        "resourceManager": url,
        "authentication": {
            "loginEndpoint": url, "audiences": audiences(azure), "tenant": "common", "identityProvider": "AAD",
        },
        "graph": url,
        "graphAudience": url,
        "microsoftGraphResourceId": url,
        "gallery": url,
        "batch": url,
        "media": url,
        "sqlManagement": url,
        "activeDirectoryDataLake": url,
        "vmImageAliasDoc": url,
        // Suffixes of services that the emulator does not have: names that lead nowhere.
        "suffixes": {
            "storage": "storage.localhost", "keyVaultDns": "vault.localhost", "acrLoginServer": "registry.localhost",
            "sqlServerHostname": "sql.localhost", "storageSyncEndpointSuffix": "sync.localhost",
            "mhsmDns": "hsm.localhost", "mysqlServerEndpoint": "mysql.localhost",
            "postgresqlServerEndpoint": "postgresql.localhost", "mariadbServerEndpoint": "mariadb.localhost",
            "azureFrontDoorEndpointSuffix": "frontdoor.localhost", "synapseAnalytics": "synapse.localhost",
            "azureDataLakeStoreFileSystem": "lake.localhost",
            "azureDataLakeAnalyticsCatalogAndJob": "analytics.localhost", "attestationEndpoint": "attest.localhost",
        },
    })
}

fn audiences(azure: &Azure) -> Vec<String> {
    azure.audiences().iter().map(|audience| format!("{audience}/")).collect()
}
