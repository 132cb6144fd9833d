//! The seed page's commands around `bastide tunnel`, word for word: the tunnel to each kind of target, `ssh` and `scp`
//! through it, and the recipe with a tunnel inside the tunnel. It leaves out `bastide ssh` (`seed_page`).

use std::io::{Read, Write};
use std::net::TcpStream;

use bastide_tests::{Lab, Program, Tunnel, free_port};

use crate::seed_page::page;
use crate::site::Site;

const BY_ID: &str = r#"bastide tunnel --name "<BastionName>" --resource-group "<ResourceGroupName>" --target-resource-id "<VMResourceId or VMSSInstanceResourceId>" --resource-port "<TargetVMPort>" --port "<LocalMachinePort>""#;

const BY_ADDRESS: &str = r#"bastide tunnel --name "<BastionName>" --resource-group "<ResourceGroupName>" --target-ip-address "<VMIPAddress>" --resource-port "<TargetVMPort>" --port "<LocalMachinePort>""#;

/// Opens the tunnel of a line of the page.
fn open(lab: &Lab, line: &str, target: &str, port: &str) -> Tunnel {
    let tunnel = Tunnel::start(page(
        lab,
        line,
        &[
            ("<BastionName>", "bastion"),
            ("<ResourceGroupName>", "demo"),
            ("<VMResourceId or VMSSInstanceResourceId>", target),
            ("<VMIPAddress>", target),
            ("<TargetVMPort>", "22"),
            ("<LocalMachinePort>", port),
        ],
    ));
    assert_eq!(tunnel.port().to_string(), port);
    tunnel
}

/// Another program of the page, with what stands in the user's `~/.ssh/config`.
fn other(lab: &Lab, config: &str, line: &str) -> Program {
    let (program, words) = line.split_once(' ').unwrap();
    let config = lab.file("config", config);
    lab.program(program).arg("-F").arg(config).words(words)
}

/// What a user's configuration brings who has a key, for hosts without a name.
fn config(lab: &Lab) -> String {
    format!(
        "Host *\n  IdentityFile {}\n  StrictHostKeyChecking accept-new\n  UserKnownHostsFile {}\n",
        lab.key().display(),
        lab.home().join("known_hosts").display()
    )
}

/// Signs in through an open tunnel, and copies a file up and down.
fn use_it(lab: &Lab, vm: &str, port: &str) {
    let fill = |line: &str| line.replace("<LocalMachinePort>", port).replace("<username>", "azureuser");
    let ssh = other(lab, &config(lab), &fill("ssh <username>@127.0.0.1 -p <LocalMachinePort>"));
    let outcome = ssh.input("echo hello\nexit 4\n").run().expect_code(4);
    assert!(outcome.text().contains("hello"), "{outcome}");

    let up =
        "scp -P <LocalMachinePort>  <local machine file path>  <username>@127.0.0.1:<target VM file path>";
    let down =
        "scp -P <LocalMachinePort>  <username>@127.0.0.1:<target VM file path>  <local machine file path>";
    let content = vec![b'x'; 70_000];
    let sent = lab.file("sent", &content);
    let copy = |line: &str, file: &str| {
        let line = fill(line).replace("<local machine file path>", file);
        other(lab, &config(lab), &line.replace("<target VM file path>", "at-vm")).run().expect_code(0);
    };
    copy(up, &sent.display().to_string());
    assert!(std::fs::read(lab.vm_home(vm).join("at-vm")).unwrap() == content);
    let back = lab.home().join("back");
    copy(down, &back.display().to_string());
    assert!(std::fs::read(back).unwrap() == content);
}

#[test]
fn tunnel_to_a_vm() {
    let lab = Lab::new();
    let port = free_port().to_string();
    let tunnel = open(&lab, BY_ID, &lab.vm("web-01"), &port);
    use_it(&lab, "web-01", &port);
    tunnel.interrupt();
    assert_eq!(lab.transcript().mints(), 3);
}

#[test]
fn tunnel_to_a_scale_set_instance() {
    let lab = Lab::new();
    let port = free_port().to_string();
    let tunnel = open(&lab, BY_ID, &lab.instance("workers", 1), &port);
    use_it(&lab, "workers_1", &port);
    tunnel.interrupt();
}

#[test]
fn tunnel_to_an_address() {
    let lab = Lab::new();
    let port = free_port().to_string();
    let tunnel = open(&lab, BY_ADDRESS, "10.0.0.4", &port);
    use_it(&lab, "web-01", &port);
    tunnel.interrupt();
}

/// A local port of the page's; a free one where that is taken, or for root alone.
fn page_port(wanted: u16) -> u16 {
    match std::net::TcpListener::bind(("127.0.0.1", wanted)) {
        Ok(_) => wanted,
        Err(error) => {
            let port = free_port();
            eprintln!("port {wanted} of the page: {error}; {port} takes its place");
            port
        }
    }
}

/// Word for word, where the page's ports can be had. `mylogin` is the user of the VM, whose `127.0.0.1` is reached by the
/// inner tunnel: the VM is this machine, and what listens on its port 22 is then the outer tunnel, which leads to the
/// server.
#[test]
fn the_multi_connection_recipe() {
    let site = Site::new();
    let lab = &site.lab;
    let (outer, inner, user) = (page_port(22), page_port(2222), site.sshd.user());
    let host = format!(
        "Host tunneltunnel\n  HostName 127.0.0.1\n  Port {inner}\n  User {user}\n  StrictHostKeyChecking=No\n  \
         UserKnownHostsFile=\\\\.\\NUL\n",
    );
    let key = site.sshd.key();
    // What stands in the page's way is the key alone: the page's user has it in a place that ssh looks at.
    let common = format!(
        "Host *\n  IdentityFile {}\n  StrictHostKeyChecking accept-new\n  UserKnownHostsFile {}\n",
        key.display(),
        lab.home().join("known_hosts").display()
    );
    let config = format!("{host}{common}");

    let line = "bastide tunnel --name mybastion --resource-group myrg --target-resource-id \
                /subscriptions/<mysubscription>/resourceGroups/myrg/providers/Microsoft.Compute/virtualMachines/myvm \
                --resource-port 22 --port 22";
    let words = line.replace("bastide ", "").replace("mybastion", "bastion").replace("myrg", "demo");
    let words = words.replace("<mysubscription>", bastide_tests::SUBSCRIPTION).replace("myvm", "box");
    let words = words.replace("--port 22", &format!("--port {outer}"));
    let tunnel = Tunnel::start(lab.bastide(&words));

    let line = "ssh -L 2222:127.0.0.1:22 mylogin@127.0.0.1";
    let at_vm = if outer == 22 { 22 } else { site.sshd.port() };
    let line = line.replace("2222:127.0.0.1:22", &format!("{inner}:127.0.0.1:{at_vm}"));
    let line = line.replace("mylogin", &user);
    let with_port = format!("{config}\nHost 127.0.0.1\n  Port {outer}\n");
    let mut session = other(lab, &with_port, &line).args(["-o", "ExitOnForwardFailure=yes"]).start();
    let (mut stdin, mut stdout) = session.pipes();
    // The shell answers when the forwarding is there.
    stdin.write_all(b"echo ready\n").unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"ready\n") {
        let mut byte = [0];
        stdout.read_exact(&mut byte).unwrap();
        said.extend(byte);
    }

    // What VS Code does over it: several connections, one of them for files.
    for number in 0..3 {
        let outcome = other(lab, &config, &format!("ssh tunneltunnel echo {number}")).run().expect_code(0);
        assert_eq!(outcome.text(), format!("{number}\n"));
    }
    let sent = lab.file("sent", "through both");
    let to = lab.home().join("at-vm");
    other(lab, &config, &format!("scp {} tunneltunnel:{}", sent.display(), to.display()))
        .run()
        .expect_code(0);
    assert_eq!(std::fs::read_to_string(to).unwrap(), "through both");

    stdin.write_all(b"exit\n").unwrap();
    drop((stdin, stdout));
    session.finish().expect_code(0);
    tunnel.interrupt();
    // The old client's limit that the recipe goes around is gone: the outer tunnel takes many connections too.
    assert_eq!(lab.transcript().mints(), if outer == 22 { 5 } else { 1 });
    assert!(TcpStream::connect(("127.0.0.1", outer)).is_err(), "it listens on");
}
