//! VMs by their names: one question to Resource Graph finds the VM and the Bastion host that reaches it; what it has
//! answered is kept for the next run. It leaves out how rows are joined, which is the business of unit tests.

use std::io::{Read, Write};
use std::path::PathBuf;

use bastide_emulator::faults::{Fault, Order};
use bastide_emulator::transcript::Kind;
use bastide_tests::{Lab, Outcome, SUBSCRIPTION, Tunnel};

use super::refusals::check;

/// A hub with the Bastion host, in a subscription of its own; a spoke with VMs; and an island with a host of its own.
const WORLD: &str = r#"
    [[subscriptions]]
    id = "22222222-2222-4222-8222-222222222222"
    name = "Spoke"
    tenant = "emulator.example"
    [[subscriptions]]
    id = "66666666-6666-4666-8666-666666666666"
    name = "Hub"
    tenant = "emulator.example"
    [[virtual_networks]]
    name = "hub"
    group = "network"
    subscription = "Hub"
    address_prefixes = ["10.1.0.0/16"]
    [[virtual_networks]]
    name = "spoke"
    group = "app"
    address_prefixes = ["10.0.0.0/16"]
    [[virtual_networks.peerings]]
    to = "/subscriptions/66666666-6666-4666-8666-666666666666/resourceGroups/network/providers/Microsoft.Network/virtualNetworks/hub"
    [[virtual_networks]]
    name = "island"
    group = "app"
    address_prefixes = ["10.9.0.0/16"]
    [[bastion_hosts]]
    name = "bastion"
    group = "network"
    subscription = "Hub"
    vnet = "hub"
    dns_name = "localhost"
    [[bastion_hosts]]
    name = "lonely"
    group = "app"
    vnet = "island"
    [[virtual_machines]]
    name = "Web-01"
    group = "app"
    vnet = "spoke"
    private_ip = "10.0.0.4"
    ports = { 22 = "ssh", 7 = "echo", 19 = "produce:5" }
    [[virtual_machines]]
    name = "off-01"
    group = "app"
    vnet = "spoke"
    power = "deallocated"
    private_ip = "10.0.0.5"
    [[virtual_machines]]
    name = "island-01"
    group = "app"
    vnet = "island"
    private_ip = "10.9.0.4"
    ports = { 7 = "echo", 19 = "produce:5" }
    [[scale_sets]]
    name = "workers"
    group = "app"
    vnet = "spoke"
    instances = [{ id = 0, private_ip = "10.0.0.10" }, { id = 11, private_ip = "10.0.0.11" }]
    ports = { 7 = "echo", 19 = "produce:5", 22 = "ssh" }
"#;

fn world() -> Lab {
    Lab::with(WORLD)
}

/// What a port of `target` says, which says five bytes and closes.
fn hear(lab: &Lab, target: &str) -> Outcome {
    lab.bastide("proxy --resource-port 19").words(target).run()
}

#[track_caller]
fn answers(lab: &Lab, target: &str) {
    let outcome = hear(lab, target).expect_code(0);
    assert_eq!(outcome.stdout, [0, 1, 2, 3, 4], "{outcome}");
}

/// Questions to Resource Graph so far.
fn asked(lab: &Lab) -> usize {
    lab.transcript().count(Kind::Graph)
}

fn ssh(lab: &Lab, target: &str, command: &str) -> Outcome {
    let line = format!("ssh {target} --auth-type ssh-key --username azureuser --ssh-key");
    lab.bastide(&line).arg(lab.key()).arg("--").words(command).run()
}

/// Files that are kept for the next run.
fn kept(lab: &Lab) -> Vec<PathBuf> {
    let folder = lab.home().join(".cache/bastide/places");
    let files = std::fs::read_dir(folder).into_iter().flatten();
    files.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_name_is_enough() {
    let lab = world();
    let outcome = ssh(&lab, "web-01", "echo there").expect_code(0);
    assert_eq!(outcome.text(), "there\n", "{outcome}");
    assert_eq!(asked(&lab), 1);
    // The Bastion host and the VM themselves are read from ARM.
    let transcript = lab.transcript();
    let read = |part: &str| {
        transcript.requests.iter().filter(|one| one.kind == Kind::Arm && one.path.contains(part)).count()
    };
    assert_eq!(
        (read("/bastionHosts/bastion"), read("/virtualMachines/"), transcript.count(Kind::Arm)),
        (1, 1, 2)
    );
    assert!(transcript.sessions[&1].resource.eq_ignore_ascii_case(&vm("web-01")));
    // The host key is that of the VM's identity, as with its id; a name in another spelling is the same VM.
    let by_id = format!("--target-resource-id {} --host-key-check strict", vm("WEB-01"));
    ssh(&lab, &by_id, "true").expect_code(0);

    let tunnel = Tunnel::start(lab.bastide("tunnel WEB-01 --resource-port 7"));
    let mut stream = tunnel.connect();
    stream.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
    drop(stream);
    tunnel.interrupt();
    answers(&lab, "workers_11");
    check(
        lab.bastide("proxy workers_7 --resource-port 19"),
        13,
        "scale-set instance 'workers_7' in resource group 'app' was not found",
        "check the name",
    );
    assert!(
        lab.transcript()
            .sessions
            .values()
            .any(|one| one.resource.ends_with("Sets/workers/virtualMachines/11"))
    );
}

fn vm(name: &str) -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/app/providers/Microsoft.Compute/virtualMachines/{name}"
    )
}

#[test]
fn a_bastion_host_is_found_for_an_id_and_an_address() {
    let lab = world();
    answers(&lab, &vm("web-01"));
    answers(&lab, &format!("--target-resource-id {}", vm("island-01")));
    let set = vm("x").replace("virtualMachines/x", "virtualMachineScaleSets/workers");
    answers(&lab, &format!("{set}/virtualMachines/0"));
    assert_eq!(asked(&lab), 3);
    let outcome =
        lab.bastide("ssh 10.0.0.4 --username azureuser --ssh-key").arg(lab.key()).words("-- echo there");
    assert_eq!(outcome.run().expect_code(0).text(), "there\n");
    let hosts: Vec<_> = lab.transcript().sessions.values().map(|one| one.bastion.clone()).collect();
    assert_eq!(hosts, ["bastion", "lonely", "bastion", "bastion"]);
    check(
        lab.bastide("proxy 10.3.0.4 --resource-port 22"),
        13,
        "no Bastion host reaches '10.3.0.4'",
        "--name BASTION",
    );
}

#[test]
fn a_bastion_host_that_is_named_wins() {
    let lab = world();
    answers(&lab, "web-01 --name bastion --resource-group network --subscription Hub");
    answers(&lab, "island-01 --name lonely");
    answers(&lab, "island-01 --resource-group app");
    let outcome = hear(&lab, "web-01 --resource-group app");
    outcome
        .expect_code(13)
        .expect_stderr("no Bastion host in resource group 'app' reaches 'web-01'")
        .expect_stderr("hint: there is 'bastion' in resource group 'network'");
}

#[test]
fn what_means_nothing_or_too_much() {
    let mut scenario = WORLD.to_owned();
    scenario += r#"
    [[virtual_machines]]
    name = "web-01"
    group = "other"
    vnet = "app/island"
    private_ip = "10.9.0.5"
    ports = { 7 = "echo", 19 = "produce:5" }
    [[bastion_hosts]]
    name = "second"
    group = "network"
    subscription = "Hub"
    vnet = "hub"
    [[bastion_hosts]]
    name = "cheap"
    group = "app"
    vnet = "island"
    sku = "Basic"
    tunneling = "missing"
    "#;
    let lab = Lab::with(&scenario);
    let refused = |target: &str, code: i32, says: &str, hint: &str| {
        check(lab.bastide("proxy --resource-port 19").words(target), code, says, hint);
    };
    refused(
        "web-01",
        2,
        "'web-01' is the name of 2 VMs: in resource group 'app', in resource group 'other'",
        "--target-resource-id /subscriptions/",
    );
    refused(
        "workers_0",
        2,
        "'workers_0' is reached by 2 Bastion hosts: 'bastion' in resource group 'network', 'second' in resource group \
         'network'",
        "choose one, such as --name bastion --resource-group network",
    );
    refused("wbe-01", 13, "no VM is called 'wbe-01'", "is 'Web-01' or 'web-01' meant?");
    refused("nobody", 13, "no VM is called 'nobody'", "bastide list vms");
    // The quotes end no literal of the query.
    for odd in ["it's", "x'or(true)//", "a\\'b"] {
        let outcome = lab.bastide("proxy --resource-port 19").arg(odd).run();
        assert!(
            outcome.code() == 13 || outcome.stderr.contains("is neither the name of a VM"),
            "{odd}: {outcome}"
        );
    }
    // The other words tell them apart, and a host that carries no native client is no choice.
    answers(&lab, "web-01 -g app");
    answers(&lab, "web-01 -n second -g network --subscription Hub");
    answers(&lab, "workers_0 --name second --resource-group network --subscription Hub");
    answers(&lab, "island-01");
    assert_eq!(lab.transcript().sessions[&1].bastion, "lonely");
}

#[test]
fn an_answer_is_kept_for_the_next_run() {
    let lab = world();
    answers(&lab, "web-01");
    assert_eq!((asked(&lab), kept(&lab).len()), (1, 1));
    for target in ["web-01", "WEB-01"] {
        answers(&lab, target);
    }
    ssh(&lab, "Web-01", "true").expect_code(0);
    assert_eq!((asked(&lab), kept(&lab).len()), (1, 1));
    let text = std::fs::read_to_string(&kept(&lab)[0]).unwrap();
    for secret in [lab.env("AZURE_CLIENT_SECRET")].into_iter().chain(lab.emulator().secrets()) {
        assert!(!text.contains(&secret), "{text}");
    }
    // Other words are another question, and so is another cloud.
    answers(&lab, "web-01 -g network");
    assert_eq!((asked(&lab), kept(&lab).len()), (2, 2));
    answers(&lab, "web-01 --no-cache");
    answers(&lab, "workers_0 --no-cache");
    assert_eq!((asked(&lab), kept(&lab).len()), (4, 2));
}

#[test]
fn what_proved_a_kept_place_is_given_back_however_the_command_ends() {
    let lab = world();
    answers(&lab, "web-01");
    let is_settled = || lab.transcript().mints() == lab.transcript().releases();
    lab.bastide("ssh web-01 --auth-type plugin:nothere").run().expect_code(2);
    assert!(lab.transcript().mints() == 2 && is_settled());
    // Another process carries the session: what ours had is not needed.
    let apart = "-o ControlMaster=auto -o ControlPersist=1 -o ControlPath=./%C true";
    ssh(&lab, "web-01", apart).expect_code(0);
    lab.wait_for_releases();
    assert_eq!(lab.transcript().mints(), 4);
    // No limit is too long for a clock.
    let forever = u64::MAX;
    answers(
        &lab,
        &format!("web-01 --timeout {forever} --idle-timeout {forever} --connect-timeout {forever}"),
    );
}

#[test]
fn many_at_one_time_lose_nothing() {
    let lab = world();
    std::thread::scope(|scope| {
        for target in ["web-01", "workers_0", "workers_11", "web-01", "island-01"] {
            let lab = &lab;
            scope.spawn(move || answers(lab, target));
        }
    });
    assert_eq!(kept(&lab).len(), 4);
    let before = asked(&lab);
    for target in ["web-01", "workers_0", "workers_11", "island-01"] {
        answers(&lab, target);
    }
    assert_eq!(asked(&lab), before);
}

/// What an earlier run has found, changed as the world changes.
fn moved(lab: &Lab, from: &str, to: &str) {
    let [path] = kept(lab).try_into().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&path, text.replace(from, to)).unwrap();
}

#[test]
fn an_answer_that_leads_nowhere_is_looked_up_again() {
    let lab = world();
    answers(&lab, "web-01");
    let hub = "/subscriptions/66666666-6666-4666-8666-666666666666/resourceGroups/network";
    let spoke = format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/app");
    let changes = [
        ("Bastion host is gone", "bastionHosts/bastion".to_owned(), "bastionHosts/gone".to_owned()),
        ("group is gone", "resourceGroups/network".into(), "resourceGroups/gone".into()),
        ("VM is gone", "virtualMachines/web-01".into(), "virtualMachines/gone-01".into()),
        // ARM knows both, and only the token shows that the one does not lead to the other any more.
        (
            "VM has moved",
            format!("{hub}/providers/Microsoft.Network/bastionHosts/bastion"),
            format!("{spoke}/providers/Microsoft.Network/bastionHosts/lonely"),
        ),
    ];
    for (number, (what, from, to)) in changes.iter().enumerate() {
        moved(&lab, from, to);
        answers(&lab, "web-01");
        assert_eq!((asked(&lab), kept(&lab).len()), (number + 2, 1), "{what}");
        // What has been found now is kept.
        answers(&lab, "web-01");
        assert_eq!(asked(&lab), number + 2, "{what}");
    }
    moved(&lab, &changes[3].1, &changes[3].2);
    ssh(&lab, "web-01", "true").expect_code(0);
    moved(&lab, &changes[3].1, &changes[3].2);
    Tunnel::start(lab.bastide("tunnel web-01 -L 0:7 -L 0:22")).interrupt();
    assert_eq!(asked(&lab), 7);
}

#[test]
fn what_stays_wrong_is_asked_once_and_told() {
    let lab = world();
    answers(&lab, "web-01");
    let refuse = |order: &str| lab.emulator().set_faults([order.parse::<Order>().unwrap()]);
    refuse("status:on=mint,status=500");
    hear(&lab, "web-01").expect_code(21).expect_stderr("Unexpected internal error");
    assert_eq!(asked(&lab), 2);
    // A service that is not there says nothing of the answer.
    refuse("status:on=arm,status=503,body=html");
    hear(&lab, "web-01").expect_code(21).expect_stderr("not able to answer");
    lab.emulator().set_faults(Vec::<Fault>::new());
    answers(&lab, "web-01");
    assert_eq!(asked(&lab), 2);
    refuse("status:on=graph,status=429,retry_after=3600");
    answers(&lab, "web-01");
    // Nobody waits for an hour without being told.
    hear(&lab, "workers_0")
        .expect_code(21)
        .expect_stderr("too many requests")
        .expect_stderr("try again in an hour");
    lab.emulator().set_faults(Vec::<Fault>::new());
}

#[test]
fn pages_are_read_to_the_end() {
    let lab = Lab::with(&format!("[settings]\ngraph_page_size = 2\n{WORLD}"));
    answers(&lab, "web-01");
    // Two hosts, two networks with a peering, the VM and its interface.
    assert_eq!(asked(&lab), 3);
}

#[test]
fn missing_rights_are_named() {
    let with_roles = |roles: &str| {
        Lab::with(&format!(
            "{WORLD}\n[[service_principals]]\nclient_id = \"44444444-4444-4444-8444-444444444444\"\n\
             object_id = \"55555555-5555-4555-8555-555555555555\"\ntenant = \"emulator.example\"\nroles = [{roles}]\n"
        ))
    };
    let role = |actions: &str| format!("{{ scope = \"/\", actions = [{actions}] }}");
    let lab = with_roles(&role(r#""Microsoft.Compute/*/read", "Microsoft.Network/bastionHosts/read""#));
    check(
        lab.bastide("proxy web-01 --resource-port 19"),
        11,
        "no network interface of it may be read",
        "Reader on the VM's network interface is needed",
    );
    let lab = with_roles(&role(r#""Microsoft.Network/*/read""#));
    check(
        lab.bastide("proxy web-01 --resource-port 19"),
        11,
        "Microsoft.Compute/virtualMachines/read",
        "Reader",
    );
    let lab = with_roles("");
    check(lab.bastide("proxy web-01 --resource-port 19"), 13, "no VM is called 'web-01'", "bastide list vms");
    let outcome =
        lab.bastide("list").run().expect_code(0).expect_stderr("There is no Bastion host and no VM");
    assert!(outcome.stdout.is_empty(), "{outcome}");
}

/// OpenSSH goes on without us (ssh_config(5), `ControlPersist`): the process that carries the connection then is told
/// what was found.
#[test]
fn another_process_need_not_look() {
    let lab = world();
    let socket = lab.home().join("%C");
    let line = "ssh web-01 --no-cache --auth-type ssh-key --username azureuser --ssh-key";
    let control = format!("ControlPath={}", socket.display());
    let outcome = lab
        .bastide(line)
        .arg(lab.key())
        .args(["--", "-o", "ControlMaster=auto", "-o", "ControlPersist=1", "-o", &control, "echo there"])
        .run()
        .expect_code(0);
    assert_eq!(outcome.text(), "there\n", "{outcome}");
    assert_eq!((asked(&lab), lab.transcript().upgrades()), (1, 1));
    lab.wait_for_releases();
}

#[test]
fn everything_is_listed() {
    let lab = world();
    let outcome = lab.bastide("list").run().expect_code(0);
    assert_eq!(
        outcome.text(),
        "\
BASTION  SKU       FEATURES              GROUP    LOCATION    SUBSCRIPTION
bastion  Standard  tunneling,ip-connect  network  westeurope  66666666-6666-4666-8666-666666666666
lonely   Standard  tunneling,ip-connect  app      westeurope  22222222-2222-4222-8222-222222222222

VM          POWER        ADDRESS    BASTION  GROUP  LOCATION
island-01   running      10.9.0.4   lonely   app    westeurope
off-01      deallocated  10.0.0.5   bastion  app    westeurope
Web-01      running      10.0.0.4   bastion  app    westeurope
workers_0   running      10.0.0.10  bastion  app    westeurope
workers_11  running      10.0.0.11  bastion  app    westeurope
"
    );
    // The tables are told apart by themselves.
    let hosts = lab.bastide("list bastions").run().expect_code(0).text();
    let vms = lab.bastide("list vms").run().expect_code(0).text();
    assert_eq!(format!("{hosts}\n{vms}"), outcome.text());

    let events = lab.bastide("list -o json").run().expect_code(0).events();
    let names: Vec<_> =
        events.iter().map(|one| format!("{} {}", one["event"], one["name"]).replace('"', "")).collect();
    assert_eq!(
        names,
        [
            "bastion bastion",
            "bastion lonely",
            "vm island-01",
            "vm off-01",
            "vm Web-01",
            "vm workers_0",
            "vm workers_11"
        ]
    );
    let web = &events[4];
    assert!(web["id"].as_str().unwrap().eq_ignore_ascii_case(&vm("web-01")));
    assert_eq!((&web["power"], &web["addresses"][0]), (&"running".into(), &"10.0.0.4".into()));
    assert!(
        web["bastions"][0]
            .as_str()
            .unwrap()
            .ends_with("/network/providers/Microsoft.Network/bastionHosts/bastion")
    );
    let bastion = &events[0];
    assert_eq!((&bastion["sku"], &bastion["tunneling"]), (&"Standard".into(), &true.into()));
    // One for what is in groups by itself, one for instances of scale sets.
    assert_eq!(asked(&lab), 4 * 2);
}

#[test]
fn a_shell_completes_names_without_asking() {
    let lab = world();
    let complete = |words: &[&str]| -> Vec<String> {
        let outcome = lab
            .program(bastide_tests::binary("bastide"))
            .env("BASTIDE_CLOUD", "https://localhost:9")
            .env("BASTIDE_COMPLETE", "bash")
            .env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string())
            .env("_CLAP_COMPLETE_COMP_TYPE", "9")
            .env("_CLAP_IFS", "\n")
            .arg("--")
            .args(words)
            .run()
            .expect_code(0);
        outcome.text().lines().map(|line| line.trim().to_owned()).collect()
    };
    assert_eq!(complete(&["bastide", "ssh", "w"]), [""; 0]);
    answers(&lab, "island-01");
    assert_eq!(complete(&["bastide", "ssh", "isl"]), ["island-01"]);
    lab.bastide("list vms").run().expect_code(0);
    let asked_before = asked(&lab);
    assert_eq!(complete(&["bastide", "ssh", "work"]), ["workers_0", "workers_11"]);
    assert_eq!(complete(&["bastide", "tunnel", "Web"]), ["Web-01"]);
    assert_eq!(complete(&["bastide", "ssh", "-n", "l"]), ["lonely"]);
    assert_eq!(complete(&["bastide", "ssh", "--resource-group", ""]), ["app", "network"]);
    assert_eq!(asked(&lab), asked_before);
}
