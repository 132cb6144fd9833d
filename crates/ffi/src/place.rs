//! From options to what the library wants: settings, a Bastion host, a VM, and how connections behave. It leaves out the
//! library's part, which is everything that the words mean.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bastide::{
    Endpoint, FirstWord, ForwardSpec, Keepalive, OwnProvider, PeerPolicy, ProxyRules, RelayOptions,
    ResourceId, RetryPolicy, Settings, Store, Target, TcpKeepalive, TunnelOptions, Wanted, Words,
};

use crate::error::Failure;
use crate::options::{Flags, TARGETS, Values};

/// What a client is made from: the environment, and what options say besides.
pub(crate) fn settings(values: &Values) -> Result<Settings, Failure> {
    let get = |name: &str| values.get(name);
    let owned = |name: &str| values.get(name).map(str::to_owned);
    let mut variables = values.variables.clone();
    // A flag wins over its variable, whatever that says.
    for (flag, variable) in VARIABLES {
        if let Some(value) = get(flag) {
            variables.insert((*variable).to_owned(), value.to_owned());
        }
    }
    let proxy = match get("proxy") {
        Some(url) => {
            let no_proxy = ["NO_PROXY", "no_proxy"].iter().find_map(|name| variables.get(*name));
            let rules = ProxyRules::from_url(url, no_proxy.map_or("", String::as_str))?;
            variables.retain(|name, _| !name.to_ascii_lowercase().ends_with("_proxy"));
            Some(rules)
        }
        None => None,
    };
    let mut settings = Settings::from_environment(variables.into_iter().collect())?;
    if let Some(proxy) = proxy {
        settings.network.proxy = proxy;
    }
    settings.network.ca_bundles.extend(get("ca-bundle").map(PathBuf::from));
    settings.network.keepalive = (get("keepalive") != Some("off")).then(TcpKeepalive::default);
    if let Some(name) = get("credential") {
        settings.credential = name.parse().map_err(|error: bastide::UnknownCredential| {
            Failure::usage(
                error.to_string(),
                "bastide_options_set_token_function takes a function of your own",
            )
        })?;
    }
    if values.switch("no-cache") {
        settings.store = Store::in_memory();
    }
    settings.provider = values.sign_in.as_ref().map(|sign_in| OwnProvider(Arc::clone(sign_in) as _));
    settings.tenant = owned("tenant");
    settings.client_id = owned("client-id");
    settings.subscription = owned("subscription");
    Ok(settings)
}

/// Flags that stand for a variable.
const VARIABLES: &[(&str, &str)] = &[("cloud", "BASTIDE_CLOUD"), ("exec-command", "BASTIDE_EXEC_CREDENTIAL")];

/// The VM that the options name, and the Bastion host where they name one.
pub(crate) fn words(flags: &Flags) -> Result<Words, Failure> {
    let get = |name: &str| flags.get(name).map(String::as_str);
    let mut named = TARGETS.iter().filter_map(|name| Some((*name, get(name)?)));
    let hint = "name it by one of the options target, target-resource-id and target-ip-address";
    let target = match (named.next(), named.next()) {
        (None, _) => return Err(Failure::usage("no VM is named", hint)),
        (Some(_), Some(_)) => return Err(Failure::usage("the VM is named twice", hint)),
        (Some(("target-resource-id", id)), None) => Wanted::Target(Target::Resource(ResourceId::parse(id)?)),
        (Some(("target-ip-address", address)), None) => Wanted::Target(Target::address(address)?),
        (Some((_, words)), None) => Wanted::parse(words)?,
    };
    Ok(Words::new(target, get("name"), get("resource-group")))
}

/// A number that was checked when it was set.
fn number<T: TryFrom<u64>>(flags: &Flags, name: &str) -> Option<T> {
    flags.get(name)?.parse::<u64>().ok()?.try_into().ok()
}

/// The VM's port.
pub(crate) fn resource_port(flags: &Flags) -> Result<u16, Failure> {
    number(flags, "resource-port")
        .ok_or_else(|| Failure::usage("no port of the VM is named", "name it by the option resource-port"))
}

/// How connections behave; `keepalive` is the client's.
pub(crate) fn relay_options(flags: &Flags, keepalive: Option<&str>, port: u16) -> RelayOptions {
    let usual = RelayOptions::default();
    let connect_timeout = number(flags, "connect-timeout").map_or(usual.connect_timeout, Duration::from_secs);
    RelayOptions {
        max_frame: number(flags, "max-frame").unwrap_or(usual.max_frame),
        keepalive: if matches!(keepalive, None | Some("ping")) { Keepalive::Ping } else { Keepalive::Tcp },
        connect_timeout,
        retry: RetryPolicy {
            retries: number(flags, "retries").unwrap_or(usual.retry.retries),
            longest_asked: connect_timeout,
            ..usual.retry
        },
        first_byte: FirstWord::on(port).within(connect_timeout),
        prefetch: number(flags, "prefetch").unwrap_or_default(),
        ..usual
    }
}

/// When connections end by themselves, and whom a tunnel serves.
pub(crate) fn tunnel_options(flags: &Flags) -> TunnelOptions {
    let is_open = flags.get("allow-other-users").is_some_and(|value| value == "true");
    TunnelOptions {
        lifetime: number(flags, "timeout").map(Duration::from_secs),
        idle: number(flags, "idle-timeout").map(Duration::from_secs),
        peers: if is_open { PeerPolicy::Anyone } else { PeerPolicy::SameUser },
        ..TunnelOptions::default()
    }
}

/// Where a tunnel listens, and the VM's port behind it.
pub(crate) fn endpoint(flags: &Flags) -> Result<(Endpoint, u16), Failure> {
    let bind = match flags.get("bind") {
        Some(text) => text.parse().map_err(|_| {
            Failure::usage(
                format!("'{text}' is no value for the option 'bind'"),
                "it has to be an IP address",
            )
        })?,
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    let (endpoint, port) = match flags.get("forward") {
        Some(text) => {
            let spec: ForwardSpec =
                text.parse().map_err(|error| Failure::usage(error, "see -L in `bastide tunnel --help`"))?;
            (spec.endpoint(bind), spec.remote_port)
        }
        None => {
            let port = number(flags, "port").unwrap_or_default();
            (Endpoint::Tcp(SocketAddr::new(bind, port)), resource_port(flags)?)
        }
    };
    if !endpoint.is_local() && flags.get("allow-other-users").is_none_or(|value| value != "true") {
        return Err(Failure::usage(
            format!("{endpoint} can be reached from other machines"),
            "everybody there could use the tunnel: if that is meant, set allow-other-users",
        ));
    }
    Ok((endpoint, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(pairs: &[(&str, &str)]) -> Flags {
        let mut values = Values::default();
        for (name, value) in pairs {
            values.set(name, value).unwrap();
        }
        values.flags
    }

    #[test]
    fn a_flag_wins_over_its_variable() {
        let mut values = Values::default();
        for (name, value) in [
            ("BASTIDE_CLOUD", "nothing that can be read"),
            ("HTTPS_PROXY", "nor this"),
            ("NO_PROXY", "azure.com"),
            ("cloud", "AzureChinaCloud"),
            ("proxy", "http://proxy:3128"),
            ("no-cache", "true"),
        ] {
            values.set(name, value).unwrap();
        }
        let settings = settings(&values).unwrap();
        assert!(
            matches!(settings.cloud, bastide::CloudChoice::Known(cloud) if cloud.name == "AzureChinaCloud")
        );
        assert!(format!("{:?}", settings.network.proxy).contains("proxy:3128"));
        values.flags.clear();
        assert_eq!(super::settings(&values).unwrap_err().code(), 2);
    }

    #[test]
    fn one_vm_is_named_in_one_way() {
        let check = |pairs: &[(&str, &str)], said: &str| {
            let outcome = words(&flags(pairs));
            let words = outcome.map_or_else(|failure| failure.message().to_owned(), |_| String::new());
            assert!(words.contains(said) && said.is_empty() == words.is_empty(), "{pairs:?}: {words}");
        };
        check(&[("target", "10.0.0.4")], "");
        check(&[("target", "web-01"), ("name", "bastion")], "");
        check(&[("target-ip-address", "10.0.0.4")], "");
        check(&[], "no VM is named");
        check(&[("target", "10.0.0.4"), ("target-ip-address", "10.0.0.4")], "the VM is named twice");
        check(&[("target-resource-id", "10.0.0.4")], "10.0.0.4");
    }

    #[test]
    fn endpoints_are_those_of_the_command_line() {
        let check = |pairs: &[(&str, &str)], expected: &str| {
            let words = match endpoint(&flags(pairs)) {
                Ok((endpoint, port)) => format!("{endpoint} {port}"),
                Err(failure) => failure.message().to_owned(),
            };
            assert_eq!(words, expected, "{pairs:?}");
        };
        check(&[("resource-port", "5432")], "127.0.0.1:0 5432");
        check(&[("resource-port", "5432"), ("port", "15432"), ("bind", "::1")], "[::1]:15432 5432");
        check(&[("forward", "/tmp/db.sock:5432")], "/tmp/db.sock 5432");
        check(&[], "no port of the VM is named");
        check(&[("resource-port", "1"), ("bind", "here")], "'here' is no value for the option 'bind'");
        let open = [("resource-port", "1"), ("bind", "0.0.0.0"), ("allow-other-users", "true")];
        check(&open, "0.0.0.0:0 1");
        check(&open[..2], "0.0.0.0:0 can be reached from other machines");
    }

    #[test]
    fn behaviour_is_that_of_the_flags() {
        let pairs = [("connect-timeout", "10"), ("retries", "0"), ("max-frame", "128"), ("prefetch", "3")];
        let options = relay_options(&flags(&pairs), Some("off"), 22);
        assert_eq!((options.max_frame, options.retry.retries, options.prefetch), (128, 0, 3));
        assert_eq!(options.connect_timeout, Duration::from_secs(10));
        assert_eq!(options.first_byte, Some(Duration::from_secs(5)));
        assert_eq!(options.keepalive, Keepalive::Tcp);
        assert_eq!(relay_options(&Flags::new(), None, 5432).first_byte, None);
    }
}
