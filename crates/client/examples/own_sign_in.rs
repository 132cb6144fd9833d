//! Signing in by a way of the program's own: here it reads the token from a variable.
//!
//!     TOKEN=… cargo run --example own_sign_in -- VM

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bastide::{
    AccessToken, AuthError, Client, Environment, OwnProvider, Provider, Secret, Settings, TokenRequest, Words,
};

/// Knows one token.
struct Known {
    token: String,
}

#[async_trait]
impl Provider for Known {
    fn name(&self) -> &str {
        "known"
    }

    async fn access_token(&self, request: &TokenRequest) -> Result<AccessToken, AuthError> {
        println!("a token for {} is asked for", request.scope);
        Ok(AccessToken {
            secret: Secret::new(self.token.as_str()),
            expires_on: SystemTime::now() + Duration::from_hours(1),
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let machine = std::env::args().nth(1).ok_or("which VM?")?;

    let token = std::env::var("TOKEN")?;
    let provider = Some(OwnProvider(Arc::new(Known { token })));
    let settings = Settings { provider, ..Settings::from_environment(Environment::of_process())? };
    let client = Client::new(settings).await?;
    let found = client.find(&Words::parse(&machine, None, None)?).await?;
    println!("{} is reached by {}", found.target, found.host.description().id);
    Ok(())
}
