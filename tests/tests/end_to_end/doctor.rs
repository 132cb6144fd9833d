//! `bastide doctor`: each link of the chain is broken in turn, and that one has to be named, with its exit code and what
//! mends it. It leaves out how rules and rights are read (`bastide-arm`).

use std::collections::BTreeSet;

use bastide_emulator::transcript::Kind;
use bastide_tests::{Lab, Outcome, Program, SUBSCRIPTION, Tinyproxy, Tunnel};
use rustix::process::Signal;
use serde_json::Value;

/// The links of the chain, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    SignIn,
    Tenant,
    Vm,
    Nic,
    Bastion,
    Vnet,
    Settings,
    Sessions,
    Power,
    Nsg,
    Dns,
    Connection,
    Tls,
    Mint,
    Upgrade,
    FirstByte,
    Release,
}

const LINKS: [Link; 17] = [
    Link::SignIn,
    Link::Tenant,
    Link::Vm,
    Link::Nic,
    Link::Bastion,
    Link::Vnet,
    Link::Settings,
    Link::Sessions,
    Link::Power,
    Link::Nsg,
    Link::Dns,
    Link::Connection,
    Link::Tls,
    Link::Mint,
    Link::Upgrade,
    Link::FirstByte,
    Link::Release,
];

impl Link {
    /// As programs know it.
    fn name(self) -> &'static str {
        match self {
            Link::SignIn => "sign-in",
            Link::Tenant => "tenant",
            Link::Vm => "vm",
            Link::Nic => "nic",
            Link::Bastion => "bastion",
            Link::Vnet => "vnet",
            Link::Settings => "settings",
            Link::Sessions => "sessions",
            Link::Power => "power",
            Link::Nsg => "nsg",
            Link::Dns => "dns",
            Link::Connection => "connection",
            Link::Tls => "tls",
            Link::Mint => "mint",
            Link::Upgrade => "upgrade",
            Link::FirstByte => "first-byte",
            Link::Release => "release",
        }
    }
}

/// The object id of the application that signs in.
const OBJECT: &str = "55555555-5555-4555-8555-555555555555";

const GROUP: &str = "/subscriptions/22222222-2222-4222-8222-222222222222/resourceGroups/demo";

const LINE: &str = "doctor -n bastion -g demo {vm}";

/// A name that no resolver can be asked about: labels have 63 letters at most (RFC 1035 §2.3.4).
const NOWHERE: &str =
    "https://xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.invalid";

/// Somebody with these roles, and a scenario with these further sections.
fn with_roles(roles: &str, more: &str) -> Lab {
    Lab::with(&format!(
        "[[service_principals]]\nclient_id = \"44444444-4444-4444-8444-444444444444\"\nobject_id = \"{OBJECT}\"\n\
         tenant = \"emulator.example\"\nroles = [{roles}]\n{more}"
    ))
}

/// Reader on these resources of the group and no others.
fn reader_of(resources: &[&str]) -> Lab {
    let role = |resource: &&str| format!("{{ scope = \"{GROUP}/providers/{resource}\" }}");
    with_roles(&resources.iter().map(role).collect::<Vec<_>>().join(", "), "")
}

const VM: &str = "Microsoft.Compute/virtualMachines/web-01";
const NIC: &str = "Microsoft.Network/networkInterfaces/web-01-nic";
const BASTION: &str = "Microsoft.Network/bastionHosts/bastion";

/// A report, line by line.
struct Report {
    links: Vec<Value>,
    summary: Value,
}

impl Report {
    fn of(outcome: &Outcome) -> Self {
        let text = outcome.text();
        let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let summary = lines.pop().unwrap();
        assert_eq!(summary["event"], "summary", "{outcome}");
        assert!(lines.iter().all(|line| line["event"] == "link"), "{outcome}");
        Self { links: lines, summary }
    }

    fn names_with(&self, status: &str) -> Vec<&str> {
        let with = self.links.iter().filter(|line| line["status"] == status);
        with.map(|line| line["link"].as_str().unwrap()).collect()
    }
}

/// Runs it twice, for programs and for people: this link alone is broken.
#[track_caller]
fn check(lab: &Lab, program: impl Fn() -> Program, link: Link, code: i32, says: &str, fix: &str) -> Report {
    let outcome = program().words("-o json").run().expect_code(code);
    let report = Report::of(&outcome);
    assert_eq!(report.names_with("failed"), [link.name()], "{outcome}");
    assert_eq!(report.summary["broken"], link.name());
    assert_eq!(report.summary["code"], code);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let broken = report.links.iter().find(|line| line["link"] == link.name()).unwrap();
    let told = format!("{} {}", text(&broken["message"]), broken["causes"]);
    assert!(told.contains(says), "no '{says}': {outcome}");
    assert!(text(&broken["hint"]).contains(fix), "no '{fix}': {outcome}");
    assert!(broken["milliseconds"].is_number(), "{outcome}");
    is_safe_to_paste(lab, &outcome);

    let outcome = program().run().expect_code(code);
    let text = outcome.text();
    assert_eq!(text.lines().filter(|line| line.starts_with("failed ")).count(), 1, "{outcome}");
    assert_eq!(text.lines().filter(|line| line.starts_with("Broken: ")).count(), 1, "{outcome}");
    assert!(
        fix.is_empty() || text.lines().any(|line| line.starts_with("Fix: ") && line.contains(fix)),
        "{outcome}"
    );
    is_safe_to_paste(lab, &outcome);
    report
}

#[track_caller]
fn is_safe_to_paste(lab: &Lab, outcome: &Outcome) {
    let mut secrets = lab.emulator().secrets();
    secrets.extend([lab.env("AZURE_CLIENT_SECRET"), lab.env("BASTIDE_EMULATOR_VM_PASSWORD"), "eyJ".into()]);
    secrets.extend([Tinyproxy::PASSWORD.to_owned(), "wr0ng".into()]);
    for secret in secrets {
        assert!(
            !outcome.text().contains(&secret) && !outcome.stderr.contains(&secret),
            "{secret}: {outcome}"
        );
    }
}

/// Breaks a link, and only that one.
fn broken(link: Link) {
    match link {
        Link::SignIn => {
            let lab = Lab::new();
            let program = || lab.bastide(LINE).env("AZURE_CLIENT_SECRET", "wr0ng-s3cret");
            check(&lab, program, link, 10, "AADSTS7000215", "AZURE_CLIENT_SECRET has to be");
        }
        Link::Tenant => {
            let other = "22222222-2222-4222-8222-222222222223";
            let lab = Lab::with(&format!(
                "[[tenants]]\nid = \"11111111-1111-4111-8111-111111111111\"\ndomain = \"emulator.example\"\n\
                 [[tenants]]\nid = \"11111111-1111-4111-8111-111111111112\"\ndomain = \"other.example\"\n\
                 [[subscriptions]]\nid = \"{SUBSCRIPTION}\"\nname = \"Emulator\"\ntenant = \"emulator.example\"\n\
                 [[subscriptions]]\nid = \"{other}\"\nname = \"Other\"\ntenant = \"other.example\"\n"
            ));
            let program = |subscription: &str| lab.bastide(LINE).args(["--subscription", subscription]);
            check(&lab, || program(other), link, 10, "AADSTS700016", "");
            let unknown = "99999999-9999-4999-8999-999999999999";
            check(&lab, || program(unknown), link, 13, "could not be found", "--tenant");
        }
        Link::Vm => {
            let fix = format!(
                "az role assignment create --role Reader --assignee {OBJECT} --scope {GROUP}/providers/{VM}"
            );
            let lab = reader_of(&[NIC, BASTION]);
            check(&lab, || lab.bastide(LINE), link, 11, "Microsoft.Compute/virtualMachines/read", &fix);
            let lab = Lab::new();
            let line = format!("doctor -n bastion -g demo {}", lab.vm("nowhere"));
            check(&lab, || lab.bastide(&line), link, 13, "was not found", "az resource list");
        }
        Link::Nic => {
            let fix = format!("--role Reader --assignee {OBJECT} --scope {GROUP}/providers/{NIC}");
            let lab = reader_of(&[VM, BASTION]);
            check(&lab, || lab.bastide(LINE), link, 11, "Microsoft.Network/networkInterfaces/read", &fix);
        }
        Link::Bastion => {
            let lab = reader_of(&[VM, NIC]);
            let fix = format!(
                "az role assignment create --assignee {OBJECT} --role Reader --scope {GROUP}/providers/{BASTION}"
            );
            check(&lab, || lab.bastide(LINE), link, 11, "Microsoft.Network/bastionHosts/read", &fix);
            let lab = Lab::new();
            let program = || lab.bastide("doctor -n nowhere -g demo {vm}");
            check(&lab, program, link, 13, "Bastion host 'nowhere'", "--resource-group");
        }
        Link::Vnet => peered(link),
        Link::Settings => {
            let lab = Lab::new();
            let program = || lab.bastide("doctor -n no-tunneling -g demo {vm}");
            let fix =
                "az network bastion update --name no-tunneling --resource-group demo --enable-tunneling true";
            check(&lab, program, link, 12, "is switched off", fix);
            let program = || lab.bastide("doctor -n no-ip-connect -g demo 10.0.0.4");
            check(&lab, program, link, 12, "IP connect is switched off", "--enable-ip-connect true");
        }
        // A host that is nearly full carries another session: that is a warning.
        Link::Sessions => crowded(),
        Link::Power => {
            let lab = Lab::new();
            let id = lab.vm("off-01");
            let line = format!("doctor -n bastion -g demo {id}");
            let fix = format!("az vm start --ids {id}");
            check(&lab, || lab.bastide(&line), link, 13, "is deallocated", &fix);
        }
        Link::Nsg => guarded(link),
        Link::Dns => {
            let lab = Lab::new();
            let program = || lab.bastide(LINE).env("AZURE_AUTHORITY_HOST", NOWHERE);
            check(&lab, program, link, 20, "cannot be resolved", "this machine's DNS");
        }
        Link::Connection => {
            let (lab, proxy) = (Lab::new(), Tinyproxy::start());
            let program = || lab.bastide(LINE).env("HTTPS_PROXY", proxy.url_for("me:wr0ng@"));
            check(
                &lab,
                program,
                link,
                20,
                "does not accept the configured user name",
                "user:password@host:port",
            );
            let closed = format!("https://127.0.0.1:{}", bastide_tests::free_port());
            let program = || lab.bastide(LINE).env("AZURE_AUTHORITY_HOST", &closed);
            check(&lab, program, link, 20, "refused the connection", "check host and port");
        }
        Link::Tls => {
            let lab = Lab::new();
            let program = || lab.bastide(LINE).env_remove("SSL_CERT_FILE").env_remove("REQUESTS_CA_BUNDLE");
            let report = check(&lab, program, link, 20, "bastide-emulator authority", "--ca-bundle FILE");
            assert_eq!(report.names_with("ok"), ["dns", "connection"]);
        }
        Link::Mint => {
            let lab = Lab::new();
            lab.emulator().set_faults(["status:on=mint,status=503,body=html"
                .parse::<bastide_emulator::faults::Order>()
                .unwrap()]);
            let program = || lab.bastide(LINE).words("--retries 1");
            check(&lab, program, link, 21, "status 503", "try again");
        }
        Link::Upgrade => {
            let lab = Lab::new();
            lab.emulator().set_faults(["status:on=upgrade,status=403"
                .parse::<bastide_emulator::faults::Order>()
                .unwrap()]);
            check(
                &lab,
                || lab.bastide(LINE),
                link,
                21,
                "refused the WebSocket: status 403",
                "support request",
            );
        }
        Link::FirstByte => {
            let lab = Lab::new();
            let program = || lab.bastide(LINE).words("--resource-port 81");
            check(
                &lab,
                program,
                link,
                22,
                "was closed before anything came back",
                "nothing listens on port 81",
            );
            // It takes the connection and says nothing, where SSH would speak first.
            let lab = Lab::with_box(r#"22 = "silent""#);
            let line = format!("doctor -n bastion -g demo {} --connect-timeout 2 --retries 0", lab.vm("box"));
            check(&lab, || lab.bastide(&line), link, 21, "nothing came back from the VM", "");
        }
        Link::Release => {
            let lab = Lab::new();
            lab.emulator().set_faults(["status:on=release,status=500"
                .parse::<bastide_emulator::faults::Order>()
                .unwrap()]);
            check(&lab, || lab.bastide(LINE), link, 21, "could not be given back", "bastide sessions close");
        }
    }
}

/// A host in a hub, a VM in a spoke.
fn peered(link: Link) {
    let networks = |peerings: &str| {
        format!(
            "[[virtual_networks]]\nname = \"hub\"\n\
             [[virtual_networks]]\nname = \"spoke\"\naddress_prefixes = [\"10.1.0.0/16\"]\n{peerings}\n\
             [[bastion_hosts]]\nname = \"bastion\"\ndns_name = \"localhost\"\nvnet = \"hub\"\n\
             [[virtual_machines]]\nname = \"web-01\"\nprivate_ip = \"10.1.0.4\"\nvnet = \"spoke\"\n\
             ports = {{ 22 = \"ssh\" }}\n"
        )
    };
    let connected = networks("peerings = [{ to = \"hub\" }]");
    let lab = Lab::with(&connected);
    let report = Report::of(&lab.bastide(LINE).words("-o json").run().expect_code(0));
    assert!(report.names_with("ok").contains(&"vnet"));

    let disconnected = Lab::with(&networks("peerings = [{ to = \"hub\", state = \"Disconnected\" }]"));
    let program = || disconnected.bastide(LINE);
    check(&disconnected, program, link, 12, "'Disconnected'", "az network vnet peering create --name to-hub");
    let alone = Lab::with(&networks(""));
    check(&alone, || alone.bastide(LINE), link, 12, "are not peered", "az network vnet peering create");

    let roles: Vec<String> = [VM, NIC, BASTION]
        .iter()
        .map(|resource| format!("{{ scope = \"{GROUP}/providers/{resource}\" }}"))
        .collect();
    let lab = with_roles(&roles.join(", "), &connected);
    let network = format!("{GROUP}/providers/Microsoft.Network/virtualNetworks/spoke");
    let fix = format!("--role Reader --assignee {OBJECT} --scope {network}");
    check(&lab, || lab.bastide(LINE), link, 11, "Microsoft.Network/virtualNetworks/read", &fix);
}

/// The VM's subnet drops what comes from the Bastion host's.
fn guarded(link: Link) {
    let group = |rest: &str| format!("[[network_security_groups]]\nname = \"web-nsg\"\n{rest}\n");
    let deny = "rules = [{ name = \"no-ssh\", priority = 200, access = \"Deny\", source = \"10.0.0.0/8\", port = \"20-30\" }]";
    let says = "drops connections from Bastion to port 22 (rule 'no-ssh', priority 200)";
    let fix = format!(
        "az network nsg rule create --nsg-name web-nsg --resource-group demo --subscription {SUBSCRIPTION} --name \
         AllowBastion22 --priority 199 --direction Inbound --access Allow --protocol Tcp --source-address-prefixes \
         10.0.255.192/26 --destination-port-ranges 22"
    );
    for place in ["subnets = [\"demo-vnet/default\"]", "machines = [\"web-01\"]"] {
        let lab = Lab::with(&group(&format!("{place}\n{deny}")));
        check(&lab, || lab.bastide(LINE), link, 22, says, &fix);
        // The service says nothing of it, but that the port is closed.
        let outcome = lab.bastide("proxy -n bastion -g demo {vm} --retries 0").run().expect_code(22);
        assert!(outcome.stderr.contains("network security group"), "{outcome}");
        let report = Report::of(&lab.bastide(LINE).words("--resource-port 7 -o json").run().expect_code(0));
        assert!(report.names_with("ok").contains(&"nsg"));
    }
    let out = "subnets = [\"demo-vnet/AzureBastionSubnet\"]\nrules = [{ name = \"out\", priority = 100, access = \"Deny\", \
               direction = \"Outbound\", port = \"22\" }]";
    let lab = Lab::with(&group(out));
    check(
        &lab,
        || lab.bastide(LINE),
        link,
        22,
        "(rule 'out', priority 100)",
        "--priority PRIORITY --direction Outbound",
    );

    // What may not be read cannot be judged, and is no reason to give up.
    let roles: Vec<String> = [VM, NIC, BASTION]
        .iter()
        .map(|resource| format!("{{ scope = \"{GROUP}/providers/{resource}\" }}"))
        .collect();
    let lab = with_roles(&roles.join(", "), &group("machines = [\"web-01\"]"));
    let outcome = lab.bastide(LINE).words("-o json").run().expect_code(0);
    let report = Report::of(&outcome);
    assert_eq!(report.names_with("warning"), ["nsg"], "{outcome}");
    assert!(outcome.text().contains("nobody can say whether port 22 is open"), "{outcome}");
    assert_eq!(report.summary["warnings"], 1);
}

/// 36 of the 40 sessions that its one scale unit carries.
fn crowded() {
    let lab = with_roles(
        "{ scope = \"/\", actions = [\"*/read\", \"Microsoft.Network/bastionHosts/*/action\"] }",
        "[[bastion_hosts]]\nname = \"bastion\"\ndns_name = \"localhost\"\nscale_units = 1\n",
    );
    let tunnel = |count: usize| {
        let line = "tunnel -n bastion -g demo --target-resource-id {vm} --resource-port 7 --prefetch";
        Tunnel::start(lab.bastide(line).arg(count.to_string()))
    };
    let tunnels = [tunnel(18), tunnel(18)];
    lab.wait_for(|transcript| transcript.mints() >= 36);
    let outcome = lab.bastide(LINE).words("-o json").run().expect_code(0);
    let report = Report::of(&outcome);
    assert_eq!(report.names_with("warning"), [Link::Sessions.name()], "{outcome}");
    let warning = report.links.iter().find(|line| line["status"] == "warning").unwrap();
    assert!(warning["message"].as_str().unwrap().contains("2 are needed"), "{outcome}");
    let fix = "az network bastion update --name bastion --resource-group demo --scale-units 2";
    assert!(warning["hint"].as_str().unwrap().contains(fix), "{outcome}");
    for tunnel in tunnels {
        tunnel.interrupt();
    }
}

#[test]
fn each_broken_link_is_named_and_no_other() {
    let next = std::sync::Mutex::new(LINKS.into_iter());
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(link) = next.lock().unwrap().next() else { break };
                    // One that fails does not keep the others from being seen.
                    if std::panic::catch_unwind(|| broken(link)).is_err() {
                        failed.lock().unwrap().push(link);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "see above: {failed:?}");
}

/// The program's links are those that are broken here.
#[test]
fn a_healthy_chain() {
    let lab = Lab::new();
    let outcome = lab.bastide(LINE).words("-o json").run().expect_code(0);
    let report = Report::of(&outcome);
    let names: Vec<&str> = report.links.iter().map(|line| line["link"].as_str().unwrap()).collect();
    assert_eq!(names, LINKS.map(Link::name), "{outcome}");
    assert!(report.summary["broken"].is_null() && report.summary["code"] == 0, "{outcome}");
    assert_eq!(report.names_with("failed").len() + report.names_with("warning").len(), 0, "{outcome}");
    // A reader may not ask for sessions.
    assert_eq!(report.names_with("skipped"), ["sessions"], "{outcome}");
    is_safe_to_paste(&lab, &outcome);
    let keys: BTreeSet<&str> = report.links[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        BTreeSet::from(["causes", "event", "hint", "link", "message", "milliseconds", "status", "time"])
    );

    let outcome = lab.bastide(LINE).run().expect_code(0);
    let text = outcome.text();
    assert!(text.contains("the VM says \"SSH-2.0-"), "{outcome}");
    assert!(text.contains("'localhost' issued by 'bastide-emulator authority'"), "{outcome}");
    assert!(text.contains("Nothing is broken") && text.contains("it can be passed on"), "{outcome}");
    assert!(outcome.stderr.is_empty(), "{outcome}");
    assert_eq!((lab.transcript().mints(), lab.transcript().releases()), (2, 2));
}

/// With one Bastion host that reaches everything.
const ONE_HOST: &str = "[[bastion_hosts]]\nname = \"bastion\"\ndns_name = \"localhost\"\n";

#[test]
fn words_that_resource_graph_understands() {
    let lab = Lab::with(ONE_HOST);
    let healthy = |line: &str| {
        let outcome = lab.bastide(line).words("-o json").run().expect_code(0);
        let report = Report::of(&outcome);
        for name in ["vm", "nic", "bastion", "first-byte"] {
            assert!(report.names_with("ok").contains(&name), "no {name}: {outcome}");
        }
    };
    healthy("doctor web-01");
    healthy("doctor {vm}");
    healthy("doctor web-01 -n bastion -g demo");
    healthy("doctor workers_1");

    let says = "no VM is called 'web-02'";
    check(&lab, || lab.bastide("doctor web-02"), Link::Vm, 13, says, "is 'web-01' meant?");
    let power = lab.vm("off-01");
    check(&lab, || lab.bastide("doctor off-01"), Link::Power, 13, "is deallocated", &power);
    // Nobody reaches it; the VM is looked at all the same.
    let alone = Lab::with(
        "[[virtual_networks]]\nname = \"hub\"\n[[virtual_networks]]\nname = \"demo-vnet\"\n\
         [[bastion_hosts]]\nname = \"bastion\"\ndns_name = \"localhost\"\nvnet = \"hub\"\n",
    );
    for line in ["doctor web-01", "doctor {vm}"] {
        let report = check(
            &alone,
            || alone.bastide(line),
            Link::Bastion,
            13,
            "no Bastion host reaches 'web-01'",
            "is needed",
        );
        assert_eq!(report.names_with("ok"), ["sign-in", "tenant", "vm", "nic"]);
    }
    // Nine of them do.
    let lab = Lab::new();
    check(&lab, || lab.bastide("doctor web-01"), Link::Bastion, 2, "is reached by", "choose one");
    // Who may not read the interface is not told that the Bastion host is missing.
    let lab = reader_of(&[VM, BASTION]);
    let fix = format!("--role Reader --assignee {OBJECT} --scope {GROUP}/providers/{NIC}");
    check(
        &lab,
        || lab.bastide("doctor {vm}"),
        Link::Nic,
        11,
        "Microsoft.Network/networkInterfaces/read",
        &fix,
    );
}

#[test]
fn every_kind_of_host_and_target() {
    let lab = Lab::new();
    let check = |line: &str, ok: &[&str]| {
        let outcome = lab.bastide(line).words("-o json").run().expect_code(0);
        let report = Report::of(&outcome);
        for name in ok {
            assert!(report.names_with("ok").contains(name), "no {name}: {outcome}");
        }
    };
    let instance = lab.instance("workers", 1);
    check(
        &format!("doctor -n bastion -g demo {instance}"),
        &["vm", "nic", "vnet", "power", "nsg", "first-byte"],
    );
    check(
        "doctor -n developer -g demo {vm}",
        &["settings", "nsg", "mint", "upgrade", "first-byte", "release"],
    );
    check("doctor -n bastion -g demo 10.0.0.4", &["bastion", "settings", "tls", "first-byte"]);
    // It need not say anything; one that does is quoted.
    check("doctor -n bastion -g demo {vm} --resource-port 9", &["first-byte", "release"]);
    check("doctor -n bastion -g demo {vm} --resource-port 19", &["first-byte", "release"]);
}

/// The network to the Bastion host can be broken where that to Azure is not.
#[test]
fn a_proxy_for_the_bastion_host_alone() {
    let (lab, proxy) = (Lab::new(), Tinyproxy::start());
    let url = format!("https://127.0.0.1:{}", lab.emulator().port());
    let program = |credentials: &str| {
        lab.bastide(LINE)
            .env("BASTIDE_CLOUD", &url)
            .env("AZURE_AUTHORITY_HOST", &url)
            .env("HTTPS_PROXY", proxy.url_for(credentials))
            .env("NO_PROXY", "127.0.0.1")
    };
    check(&lab, || program(""), Link::Connection, 20, "asks for a user name", "user:password@host:port");
    let outcome = program(&format!("{}:{}@", Tinyproxy::USER, Tinyproxy::PASSWORD)).run().expect_code(0);
    assert!(outcome.text().contains("through the proxy 127.0.0.1:"), "{outcome}");
    is_safe_to_paste(&lab, &outcome);
}

#[test]
fn wrong_use_is_no_diagnosis() {
    let lab = Lab::new();
    for line in [
        "doctor -n bastion -g demo",
        "doctor -n bastion -g demo 10.0.0",
        "doctor -n bastion -g demo {vm} --ca-bundle nowhere.pem",
        "doctor -n bastion -g demo {vm} --cloud mars",
    ] {
        let outcome = lab.bastide(line).run().expect_code(2);
        assert!(outcome.stdout.is_empty(), "{outcome}");
    }
    assert_eq!(lab.transcript().count(Kind::Mint), 0);
}

#[test]
fn an_interrupt_gives_the_session_back() {
    let lab = Lab::new();
    for order in ["hold:on=upgrade", "hold:on=arm"] {
        lab.emulator().set_faults([order.parse::<bastide_emulator::faults::Order>().unwrap()]);
        let doctor = lab.bastide(LINE).start();
        lab.wait_for(|transcript| transcript.struck("hold") > 0);
        doctor.signal(Signal::INT);
        let outcome = doctor.finish().expect_code(130);
        assert!(!outcome.text().contains("Broken"), "{outcome}");
        lab.emulator().set_faults(Vec::<bastide_emulator::faults::Order>::new());
        lab.wait_for_releases();
        lab.emulator().reset();
    }
}
